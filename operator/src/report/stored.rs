//! What the API server keeps of a status that the operator has written. Pure.
//!
//! Under a CRD of an earlier release it drops the fields that this does not declare, and entries of other writers stay beside
//! those of the operator. Compared with what the pool has then, the same status would be written in every pass.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;
use trivet_crds::pool::ApiserverPoolStatus;

/// After this time a status is written once more though it says the same: the CRD may have been upgraded meanwhile. Where it
/// was not, the write changes nothing, and starts no pass.
const AGAIN_AFTER: Duration = Duration::from_secs(600);

/// The last status that was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    written: ApiserverPoolStatus,
    kept: Option<ApiserverPoolStatus>,
    at: Instant,
    /// The fields that were not kept as they were written, such as `members[].zone`.
    pub lost: BTreeSet<String>,
}

impl Stored {
    /// The API server has answered a write of `written` with a pool that has `kept`.
    pub fn new(written: &ApiserverPoolStatus, kept: Option<ApiserverPoolStatus>, at: Instant) -> Self {
        let mut lost = BTreeSet::new();
        let as_json = |status: &ApiserverPoolStatus| serde_json::to_value(status).unwrap_or_default();
        let nothing = || Value::Object(serde_json::Map::new());
        let of_kept = kept.as_ref().map_or_else(nothing, as_json);
        differences("", &as_json(written), &of_kept, &mut lost);
        Self {
            written: written.clone(),
            kept,
            at,
            lost,
        }
    }

    /// Whether a write of `new` over a pool that has `current` would change nothing.
    pub fn has(
        &self,
        new: &ApiserverPoolStatus,
        current: Option<&ApiserverPoolStatus>,
        now: Instant,
    ) -> bool {
        let is_recent = now.saturating_duration_since(self.at) < AGAIN_AFTER;
        is_recent && self.written == *new && self.kept.as_ref() == current
    }
}

/// Collects where `kept` has not what `written` has. What it has besides does not count.
fn differences(at: &str, written: &Value, kept: &Value, found: &mut BTreeSet<String>) {
    match (written, kept) {
        (Value::Object(written), Value::Object(kept)) => {
            for (field, value) in written {
                let path = if at.is_empty() {
                    field.clone()
                } else {
                    format!("{at}.{field}")
                };
                differences(&path, value, kept.get(field).unwrap_or(&Value::Null), found);
            }
        }
        (Value::Array(written), Value::Array(kept)) => {
            for (index, entry) in written.iter().enumerate() {
                let same = kept.iter().find(|other| is_same_entry(entry, other));
                let same = same.or_else(|| kept.get(index)).unwrap_or(&Value::Null);
                differences(&format!("{at}[]"), entry, same, found);
            }
        }
        (written, kept) if written == kept => {}
        _ => {
            found.insert(at.to_owned());
        }
    }
}

/// Whether both are the entry of one condition, or of one member.
fn is_same_entry(one: &Value, other: &Value) -> bool {
    ["type", "name"]
        .iter()
        .any(|key| one.get(key).is_some() && one.get(key) == other.get(key))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(value: Value) -> ApiserverPoolStatus {
        serde_json::from_value(value).unwrap()
    }

    fn member(name: &str, reachable: u32) -> Value {
        json!({ "name": name, "addresses": ["10.0.0.1"], "port": 6443, "source": "Node", "state": "Active",
                "health": "Up", "reachableNodes": reachable })
    }

    #[test]
    fn what_comes_back_without_some_fields_is_told_by_their_names() {
        let written = status(json!({
            "members": [member("cp1", 3), member("cp2", 3)], "membersSummary": "2/2", "configRevision": 7,
        }));
        let kept =
            status(json!({ "members": [member("cp2", 0), member("cp1", 0)], "membersSummary": "2/2" }));
        let stored = Stored::new(&written, Some(kept), Instant::now());
        let lost: Vec<_> = stored.lost.iter().map(String::as_str).collect();
        assert_eq!(lost, ["configRevision", "members[].reachableNodes"]);
        let nothing = Stored::new(&status(json!({ "configRevision": 7 })), None, Instant::now());
        assert_eq!(nothing.lost.len(), 1);
    }

    #[test]
    fn entries_of_another_writer_are_no_loss_and_no_reason_to_write_again() {
        let condition = |type_: &str| {
            json!({ "type": type_, "status": "True", "reason": "A", "message": "",
                    "lastTransitionTime": "2026-11-29T00:00:00Z" })
        };
        let written = status(json!({ "conditions": [condition("Ready")] }));
        let kept = status(json!({ "conditions": [condition("Foreign"), condition("Ready")] }));
        let now = Instant::now();
        let stored = Stored::new(&written, Some(kept.clone()), now);
        assert!(stored.lost.is_empty());
        assert!(stored.has(&written, Some(&kept), now));
        assert!(
            !stored.has(&written, Some(&written), now),
            "somebody has written since"
        );
        assert!(
            !stored.has(&kept, Some(&kept), now),
            "there is something else to say"
        );
        let later = now + AGAIN_AFTER;
        assert!(
            !stored.has(&written, Some(&kept), later),
            "the CRD may be another by now"
        );
    }
}
