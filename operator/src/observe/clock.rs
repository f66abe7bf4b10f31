//! The wall clock, as far as revisions need it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;

/// The time in Unix seconds: the operator's clock, or the latest time that the API server has set on one of the pool's
/// objects if that is later. The clock of many nodes is at 1970 until NTP answers, and a revision from that clock would be
/// below all earlier ones.
pub(super) fn unix_seconds(clock: Timestamp, pool: &ObjectMeta, map: Option<&ObjectMeta>) -> u64 {
    let dates = [Some(pool), map].into_iter().flatten().flat_map(dates);
    let latest = dates.fold(clock, Timestamp::max);
    u64::try_from(latest.as_second()).unwrap_or_default()
}

/// When the API server has created and changed an object.
fn dates(meta: &ObjectMeta) -> impl Iterator<Item = Timestamp> {
    let changes = meta.managed_fields.iter().flatten();
    let changes = changes.filter_map(|entry| entry.time.as_ref());
    meta.creation_timestamp.iter().chain(changes).map(|time| time.0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(created: &str, changed: &str) -> ObjectMeta {
        serde_json::from_value(json!({
            "creationTimestamp": created,
            "managedFields": [{ "manager": "a", "time": created }, { "manager": "b", "time": changed }, { "manager": "c" }],
        }))
        .unwrap()
    }

    #[test]
    fn a_clock_behind_the_api_server_reads_as_the_time_of_the_last_write() {
        let pool = object("2026-01-01T00:00:00Z", "2026-03-01T00:00:00Z");
        let map = object("2026-01-02T00:00:00Z", "2026-04-01T00:00:00Z");
        let last: Timestamp = "2026-04-01T00:00:00Z".parse().unwrap();
        let seconds = u64::try_from(last.as_second()).unwrap();
        assert_eq!(unix_seconds(Timestamp::UNIX_EPOCH, &pool, Some(&map)), seconds);
        let clock: Timestamp = "2026-05-01T00:00:00Z".parse().unwrap();
        let ahead = u64::try_from(clock.as_second()).unwrap();
        assert_eq!(unix_seconds(clock, &pool, Some(&map)), ahead);
        assert_eq!(
            unix_seconds(Timestamp::UNIX_EPOCH, &ObjectMeta::default(), None),
            0
        );
    }
}
