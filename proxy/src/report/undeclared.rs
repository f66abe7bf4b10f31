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

/// The fields that were refused lately, by their paths without the keys of list entries: `members.standing`.
#[derive(Debug, Default)]
pub(super) struct Undeclared {
    fields: BTreeSet<String>,
    since: Option<Instant>,
}

impl Undeclared {
    /// Takes a refusal in. Returns the fields that it names and none did before: a report without them is another one.
    pub(super) fn learn(&mut self, refusal: &str, now: Instant) -> Vec<String> {
        let mut named: Vec<_> = named(refusal).collect();
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
        for field in &self.fields {
            let steps: Vec<_> = field.split('.').collect();
            remove(report, &steps);
        }
    }
}

/// Removes a field, in each entry of the lists on the way.
fn remove(value: &mut Value, steps: &[&str]) {
    match (value, steps) {
        (Value::Array(entries), steps) => entries.iter_mut().for_each(|entry| remove(entry, steps)),
        (Value::Object(fields), [last]) => drop(fields.remove(*last)),
        (Value::Object(fields), [first, rest @ ..]) => {
            if let Some(value) = fields.get_mut(*first) {
                remove(value, rest);
            }
        }
        _ => {}
    }
}

/// The paths in a refusal, without the keys of list entries.
fn named(refusal: &str) -> impl Iterator<Item = String> {
    let before = refusal.split(UNDECLARED);
    let paths = refusal.matches(UNDECLARED).zip(before);
    paths.filter_map(|(_, before)| {
        let line = before.rsplit('\n').next()?;
        let path = without_keys(line);
        let path = path
            .rsplit(char::is_whitespace)
            .next()?
            .strip_prefix('.')?
            .to_owned();
        (!path.is_empty()).then_some(path)
    })
}

/// A path without what is in brackets. A key may have dots, and a message in it spaces.
fn without_keys(path: &str) -> String {
    let mut depth = 0_u32;
    path.chars()
        .filter(|character| {
            match character {
                '[' => depth += 1,
                ']' => {
                    depth = depth.saturating_sub(1);
                    return false;
                }
                _ => {}
            }
            depth == 0
        })
        .collect()
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
    fn a_field_of_list_entries_goes_from_each_of_them_and_the_others_stay() {
        let (mut undeclared, now) = (Undeclared::default(), Instant::now());
        let refusal = "failed to create typed patch object (default.w1; trivet.dev/v1alpha1, Kind=ProxyReport): \
                       .members[name=\"cp1.example.com\"].standing: field not declared in schema";
        assert_eq!(undeclared.learn(refusal, now), ["members.standing"]);
        let entry = |name: &str| json!({ "name": name, "standing": "Active" });
        let mut report = json!({ "members": [entry("cp1.example.com"), entry("cp2")], "standing": 1 });
        undeclared.remove_from(&mut report, now);
        let left = json!({ "members": [{ "name": "cp1.example.com" }, { "name": "cp2" }], "standing": 1 });
        assert_eq!(report, left);
    }

    #[test]
    fn several_fields_and_those_in_lists_are_read_and_other_refusals_name_none() {
        let several = "errors:\n  .a: field not declared in schema\n  .members[name=\"cp1.example.com\"].b.c: field not \
                       declared in schema";
        assert_eq!(named(several).collect::<Vec<_>>(), ["a", "members.b.c"]);
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
