//! Fields of the report that the ProxyReport of the cluster does not have: its CRD may be of an earlier release.
//!
//! An apiserver refuses a server-side apply of a field that its schema does not declare (structured-merge-diff, `typed/`), with
//! the path of the field. The report goes without it then, which is better than none.

use std::{collections::BTreeSet, time::Duration};

use serde_json::Value;
use tokio::time::Instant;

/// What follows a path in a refusal.
const UNDECLARED: &str = ": field not declared in schema";

/// How long a report goes without a field: the CRD may be replaced meanwhile.
const FORGOTTEN: Duration = Duration::from_secs(3600);

/// The fields that were refused lately.
#[derive(Debug, Default)]
pub(super) struct Undeclared {
    fields: BTreeSet<String>,
    since: Option<Instant>,
}

impl Undeclared {
    /// Takes a refusal in. Returns the fields that it names and none did before: a report without them is another one.
    pub(super) fn learn(&mut self, refusal: &str, now: Instant) -> Vec<String> {
        let mut named: Vec<_> = named(refusal).map(str::to_owned).collect();
        named.retain(|field| self.fields.insert(field.clone()));
        if !named.is_empty() {
            self.since = Some(now);
        }
        named
    }

    /// Removes them from a report.
    pub(super) fn remove_from(&mut self, report: &mut Value, now: Instant) {
        let is_old = |since| now.saturating_duration_since(since) >= FORGOTTEN;
        if self.since.is_some_and(is_old) {
            *self = Self::default();
        }
        if let Value::Object(report) = report {
            report.retain(|field, _| !self.fields.contains(field));
        }
    }
}

/// The fields at the top of the paths in a refusal.
fn named(refusal: &str) -> impl Iterator<Item = &str> {
    let before = refusal.split(UNDECLARED);
    let paths = refusal.matches(UNDECLARED).zip(before);
    paths.filter_map(|(_, before)| {
        let path = before.rsplit(char::is_whitespace).next()?.strip_prefix('.')?;
        path.split(['.', '[']).next().filter(|field| !field.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ONE: &str = "failed to create typed patch object (default.w1; trivet.dev/v1alpha1, Kind=ProxyReport): \
                       .memoryMebibytes: field not declared in schema";

    #[test]
    fn a_report_goes_without_what_the_schema_does_not_have_for_an_hour() {
        let (mut undeclared, now) = (Undeclared::default(), Instant::now());
        assert_eq!(undeclared.learn(ONE, now), ["memoryMebibytes"]);
        assert_eq!(undeclared.learn(ONE, now), [""; 0]);
        let report = json!({ "memoryMebibytes": 7, "openFiles": 30 });
        let mut left = report.clone();
        undeclared.remove_from(&mut left, now);
        assert_eq!(left, json!({ "openFiles": 30 }));
        let mut left = report.clone();
        undeclared.remove_from(&mut left, now + FORGOTTEN);
        assert_eq!(left, report);
    }

    #[test]
    fn several_fields_and_those_in_lists_are_read_and_other_refusals_name_none() {
        let several = "errors:\n  .a: field not declared in schema\n  .members[name=\"cp1\"].b: field not declared in schema";
        assert_eq!(named(several).collect::<Vec<_>>(), ["a", "members"]);
        for other in [
            "",
            UNDECLARED,
            ".: field not declared in schema",
            "poolName: too long",
        ] {
            assert_eq!(named(other).count(), 0, "{other}");
        }
    }
}
