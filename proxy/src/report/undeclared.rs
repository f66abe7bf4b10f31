//! Fields of the report that the ProxyReport of the cluster does not have: its CRD may be of an earlier release.
//!
//! An apiserver refuses a server-side apply of a field that its schema does not declare (structured-merge-diff, `typed/`), with
//! the path of the field. The report goes without it then, which is better than none.

use std::{collections::BTreeSet, time::Duration};

use serde_json::Value;
use tokio::time::Instant;
use trivet_crds::report::interval_seconds;

/// How many nodes the fleet has, and a chance between 0 and 1.
pub(super) type Draw = (u32, f64);

/// What follows a path in a refusal.
const UNDECLARED: &str = ": field not declared in schema";

/// The fields that were refused lately, by their paths without the keys of list entries: `members.standing`.
#[derive(Debug, Default)]
pub(super) struct Undeclared {
    fields: BTreeSet<String>,
    /// Until when reports go without them. Nothing in the API tells a proxy that the CRD was replaced, so it tries again.
    until: Option<Instant>,
    /// The fields that the log names.
    told: BTreeSet<String>,
}

impl Undeclared {
    /// Takes a refusal in. Returns whether it names a field that none did before: a report without it is another one.
    pub(super) fn learn(&mut self, refusal: &str, now: Instant, draw: Draw) -> bool {
        let before = self.fields.len();
        self.fields.extend(named(refusal));
        let has_learnt = self.fields.len() > before;
        if has_learnt {
            self.until = Some(now + pause(draw));
        }
        has_learnt
    }

    /// Forgets the fields after a while, so that the next write tries all of them again.
    pub(super) fn forget_old(&mut self, now: Instant) {
        if self.until.is_some_and(|until| until <= now) {
            self.fields.clear();
            self.until = None;
        }
    }

    /// Removes them from a report.
    pub(super) fn remove_from(&self, report: &mut Value) {
        for field in &self.fields {
            let steps: Vec<_> = field.split('.').collect();
            remove(report, &steps);
        }
    }

    /// The fields that a report which was written lacks, unless the report before lacked the same.
    pub(super) fn news(&mut self) -> Option<Vec<String>> {
        if self.told == self.fields {
            return None;
        }
        self.told.clone_from(&self.fields);
        Some(self.fields.iter().cloned().collect())
    }
}

/// How long reports go without a refused field: as long as a report goes without a change. A fleet makes as many more requests
/// then, none of which reaches etcd, as it makes writes at rest.
fn pause((nodes, chance): Draw) -> Duration {
    let interval = Duration::from_secs(interval_seconds(nodes));
    interval / 2 + (interval / 2).mul_f64(chance.clamp(0.0, 1.0))
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

    const DRAW: Draw = (3, 0.5);

    #[test]
    fn a_report_goes_without_what_the_schema_does_not_have_for_a_few_minutes() {
        let (mut undeclared, now) = (Undeclared::default(), Instant::now());
        assert!(undeclared.learn(ONE, now, DRAW));
        assert!(!undeclared.learn(ONE, now, DRAW));
        let report = json!({ "memoryMebibytes": 7, "openFiles": 30 });
        let left_at = |undeclared: &mut Undeclared, seconds| {
            undeclared.forget_old(now + Duration::from_secs(seconds));
            let mut left = report.clone();
            undeclared.remove_from(&mut left);
            left
        };
        assert_eq!(left_at(&mut undeclared, 224), json!({ "openFiles": 30 }));
        assert_eq!(left_at(&mut undeclared, 225), report);
        assert!(
            undeclared.learn(ONE, now, DRAW),
            "the CRD is still the earlier one"
        );
    }

    #[test]
    fn a_fleet_tries_again_as_rarely_as_it_writes_at_rest() {
        for nodes in [1, 5_000, 20_000] {
            let interval = Duration::from_secs(interval_seconds(nodes));
            assert_eq!(pause((nodes, 0.0)), interval / 2);
            assert_eq!(pause((nodes, 1.0)), interval);
        }
    }

    #[test]
    fn each_change_of_the_schema_is_told_once() {
        let (mut undeclared, now) = (Undeclared::default(), Instant::now());
        assert_eq!(undeclared.news(), None);
        undeclared.learn(ONE, now, DRAW);
        assert_eq!(undeclared.news(), Some(vec!["memoryMebibytes".to_owned()]));
        // Tried again, and refused again.
        undeclared.forget_old(now + Duration::from_secs(300));
        undeclared.learn(ONE, now, DRAW);
        assert_eq!(undeclared.news(), None);
        undeclared.forget_old(now + Duration::from_secs(300));
        assert_eq!(undeclared.news(), Some(Vec::new()));
        assert_eq!(undeclared.news(), None);
    }

    #[test]
    fn a_field_of_list_entries_goes_from_each_of_them_and_the_others_stay() {
        let mut undeclared = Undeclared::default();
        let refusal = "failed to create typed patch object (default.w1; trivet.dev/v1alpha1, Kind=ProxyReport): \
                       .members[name=\"cp1.example.com\"].standing: field not declared in schema";
        undeclared.learn(refusal, Instant::now(), DRAW);
        assert_eq!(undeclared.fields, ["members.standing".to_owned()].into());
        let entry = |name: &str| json!({ "name": name, "standing": "Active" });
        let mut report = json!({ "members": [entry("cp1.example.com"), entry("cp2")], "standing": 1 });
        undeclared.remove_from(&mut report);
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
