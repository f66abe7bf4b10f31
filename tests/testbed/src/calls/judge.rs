//! Judges what the logs have: pure.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::call::Call;
use super::exempt;
use super::read::Seen;
use super::report::{AccountReport, Found, Report, RightReport};
use super::spans::{Span, without_the_charts_rights};
use crate::rights::{Account, On, Rendered, Request, Right};

/// The programs that use an account, as they call themselves. What another program does with its token, as a scenario does that
/// steals it, is not the account's.
fn program(account: &str) -> Option<&'static str> {
    Some(match account {
        "trivet-operator" | "trivet-retirement" => "trivet-operator",
        "trivet-proxy" => "trivet-proxy",
        "trivet-plugin-user" => "kubectl-trivet",
        _ => return None,
    })
}

/// Compares calls with rights, account by account.
pub(crate) fn judge(rendered: &Rendered, mut seen: Seen) -> Report {
    seen.changes.sort_by_key(|change| change.to);
    let mut rights: BTreeMap<Account, Vec<Right>> = BTreeMap::new();
    for grant in rendered.all.grants() {
        rights.entry(grant.account).or_default().extend(grant.rights);
    }
    let times = seen.calls.values().flatten();
    let report = Report {
        from: times.clone().min().copied(),
        to: times.max().copied(),
        unreadable: seen.unreadable,
        accounts: Vec::new(),
    };
    let accounts = rights.into_iter().map(|(account, rights)| {
        let spans = without_the_charts_rights(&account, rendered, &seen.changes);
        let user = account.user();
        let calls = seen.calls.iter().filter(|(call, _)| call.user == user);
        let at_starts = seen.at_starts.get(&user).copied();
        AccountReport {
            at_starts: at_starts.unwrap_or_default(),
            ..Judge::new(account, rights, spans).all(calls, report.to)
        }
    });
    Report {
        accounts: accounts.collect(),
        ..report
    }
}

/// Judges the calls of one account.
struct Judge {
    spans: Vec<Span>,
    rights: Vec<Right>,
    used: Vec<u64>,
    report: AccountReport,
    refused: BTreeMap<Request, Found>,
    outside: BTreeMap<Request, Found>,
}

impl Judge {
    fn new(account: Account, rights: Vec<Right>, spans: Vec<Span>) -> Self {
        Self {
            spans,
            used: vec![0; rights.len()],
            rights,
            report: AccountReport::of(account),
            refused: BTreeMap::new(),
            outside: BTreeMap::new(),
        }
    }

    fn all<'a>(
        mut self,
        calls: impl Iterator<Item = (&'a Call, &'a Vec<Timestamp>)>,
        end: Option<Timestamp>,
    ) -> AccountReport {
        for (call, times) in calls {
            self.one(call, times);
        }
        let account = self.report.account.clone();
        let rights = self.rights.into_iter().zip(self.used);
        let rights = rights.map(|(right, used)| RightReport {
            exempt: exempt::unused(&account, &right.to_string()),
            right,
            used,
        });
        AccountReport {
            rights: rights.collect(),
            refused: self.refused.into_values().collect(),
            outside: self.outside.into_values().collect(),
            without_rights: self.spans.iter().map(|span| length(span, end)).sum(),
            ..self.report
        }
    }

    fn one(&mut self, call: &Call, times: &[Timestamp]) {
        if program(&self.report.account).is_some_and(|program| program != call.program) {
            self.report.by_others += count(times.len());
            return;
        }
        // What the chart's rights allow has used them as soon as they are there; anything else may be by what was before.
        let is_by_rights = !call.is_refused && self.is_covered(call);
        let is_aside = |at: &&Timestamp| {
            let mut spans = self.spans.iter();
            spans.any(|span| {
                if is_by_rights {
                    span.has(**at)
                } else {
                    span.may_have(**at)
                }
            })
        };
        let (aside, counted): (Vec<&Timestamp>, Vec<_>) = times.iter().partition(is_aside);
        self.report.aside += count(aside.len());
        if call.is_refused {
            self.report.refused_aside += count(aside.len());
        }
        let Some(first) = counted.first() else {
            return;
        };
        let (number, first) = (count(counted.len()), **first);
        self.report.calls += number;
        if is_by_rights {
            self.use_rights(call, number);
        } else if call.is_refused {
            found(&mut self.refused, call, number, first);
        } else {
            found(&mut self.outside, call, number, first);
        }
    }

    /// Whether the chart's rights are enough for a call.
    fn is_covered(&self, call: &Call) -> bool {
        needs(call)
            .iter()
            .all(|request| self.rights.iter().any(|right| right.covers(request)))
    }

    /// Counts the use of every right that covers a call.
    fn use_rights(&mut self, call: &Call, number: u64) {
        let needs = needs(call);
        for (right, used) in self.rights.iter().zip(&mut self.used) {
            if needs.iter().any(|request| right.covers(request)) {
                *used += number;
            }
        }
    }
}

/// What authorization is asked about for a call.
fn needs(call: &Call) -> Vec<Request> {
    let mut needs = vec![call.request.clone()];
    if call.has_created {
        needs.push(call.request.creating());
    }
    needs
}

/// Adds a call to those of the same verb and resource: the names of objects tell nothing more.
fn found(all: &mut BTreeMap<Request, Found>, call: &Call, number: u64, first: Timestamp) {
    let mut request = call.request.clone();
    if let On::Resource { name, .. } = &mut request.on {
        *name = None;
    }
    let entry = all.entry(request.clone()).or_insert_with(|| Found {
        exempt: exempt::of_everybody(&request),
        request,
        times: 0,
        first,
        by: call.by.clone(),
    });
    entry.times += number;
    entry.first = entry.first.min(first);
}

fn length(span: &Span, end: Option<Timestamp>) -> SignedDuration {
    let to = span.to.or(end).unwrap_or(span.from);
    to.duration_since(span.from).max(SignedDuration::ZERO)
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::spans::tests::{change, rendered, second};
    use super::*;
    use crate::rights::Kind;

    fn call(verb: &str, resource: &str, is_refused: bool) -> Call {
        Call {
            user: "system:serviceaccount:trivet-system:trivet-proxy".to_owned(),
            request: Request {
                namespace: Some("trivet-system".to_owned()),
                on: On::Resource {
                    group: String::new(),
                    resource: resource.to_owned(),
                    name: Some("one".to_owned()),
                },
                verb: verb.to_owned(),
            },
            has_created: false,
            is_refused,
            by: None,
            program: "trivet-proxy".to_owned(),
        }
    }

    #[test]
    fn a_right_is_used_as_soon_as_it_is_back() {
        let mut seen = Seen::since(None);
        seen.calls
            .insert(call("get", "configmaps", false), vec![second(12), second(21)]);
        seen.calls
            .insert(call("get", "configmaps", true), vec![second(13), second(21)]);
        let back = serde_json::json!({
            "kind": "ClusterRole", "metadata": { "name": "proxy" },
            "rules": [{ "apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "watch"] }],
        });
        seen.changes = vec![
            change(Kind::ClusterRole, 10, None),
            change(Kind::ClusterRole, 20, Some(back)),
        ];
        let report = judge(&rendered(), seen);
        let account = proxies(&report);
        assert_eq!(
            (account.rights[0].used, account.aside, account.refused_aside),
            (1, 3, 2)
        );
        assert!(account.refused.is_empty());
    }

    #[test]
    fn what_makes_an_object_uses_the_right_to_create_it() {
        let made = Call {
            has_created: true,
            ..call("get", "configmaps", false)
        };
        let report = report(&[(made, &[1])], None);
        // The chart of this test gives nobody the right to create one.
        assert_eq!(proxies(&report).outside.len(), 1);
        assert_eq!(proxies(&report).rights[0].used, 0);
    }

    /// The report on these calls, each made once at each of these seconds.
    fn report(calls: &[(Call, &[u8])], gone_from: Option<u8>) -> Report {
        let mut seen = Seen::since(None);
        for (call, seconds) in calls {
            let times = seconds.iter().map(|at| second(*at)).collect();
            seen.calls.insert(call.clone(), times);
        }
        seen.changes = gone_from
            .map(|from| change(Kind::ClusterRole, from, None))
            .into_iter()
            .collect();
        judge(&rendered(), seen)
    }

    fn proxies(report: &Report) -> &AccountReport {
        report
            .accounts
            .iter()
            .find(|account| account.account == "trivet-proxy")
            .unwrap()
    }

    #[test]
    fn a_right_that_is_not_used_is_named() {
        let report = report(&[(call("get", "configmaps", false), &[1, 2])], None);
        let used: Vec<_> = proxies(&report)
            .rights
            .iter()
            .map(|right| (right.right.to_string(), right.used))
            .collect();
        let expected = [
            ("get configmaps", 2),
            ("watch configmaps", 0),
            ("create tokenreviews.authentication.k8s.io", 0),
        ];
        assert_eq!(used, expected.map(|(right, used)| (right.to_owned(), used)));
        let problems = report.problems();
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(
            problems[0].contains("trivet-proxy never uses its right: watch configmaps"),
            "{problems:?}"
        );
    }

    #[test]
    fn a_refused_call_is_named_unless_the_charts_rights_are_gone_then() {
        let refused = (call("get", "configmaps", true), &[5_u8, 15][..]);
        let found = report(std::slice::from_ref(&refused), None);
        assert_eq!(proxies(&found).refused[0].times, 2);
        let found = report(std::slice::from_ref(&refused), Some(10));
        let account = proxies(&found);
        assert_eq!((account.refused[0].times, account.refused_aside), (1, 1));
        assert_eq!(account.calls, 1);
        let found = report(&[refused], Some(1));
        assert!(proxies(&found).refused.is_empty());
    }

    #[test]
    fn what_is_allowed_by_another_role_is_named_and_what_everybody_may_is_not() {
        let mut version = call("get", "", false);
        version.request.namespace = None;
        version.request.on = On::Path("/version".to_owned());
        let report = report(&[(call("get", "secrets", false), &[1]), (version, &[1])], None);
        let problems = report.problems().join("\n");
        assert!(problems.contains("get secrets in trivet-system"), "{problems}");
        assert!(!problems.contains("/version"), "{problems}");
        assert_eq!(proxies(&report).outside.len(), 2);
    }

    #[test]
    fn what_a_thief_of_the_token_does_is_not_the_accounts() {
        let stolen = Call {
            program: "curl".to_owned(),
            ..call("delete", "secrets", true)
        };
        let report = report(
            &[(stolen, &[1, 2, 3]), (call("get", "configmaps", false), &[1])],
            None,
        );
        let account = proxies(&report);
        assert_eq!((account.by_others, account.calls), (3, 1));
        assert!(account.refused.is_empty());
    }
}
