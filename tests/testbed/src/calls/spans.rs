//! When an account had other rights than the chart of this tree gives it: scenarios remove roles, and install other releases.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::changes::{Change, Now};
use crate::rights::{Account, Grant, Id, Object, Rendered, Right};

/// How long an apiserver may go on deciding by the roles before a change: it learns of changes by a watch, from an etcd that a
/// fault may have slowed down.
const LEARNT: SignedDuration = SignedDuration::from_secs(5);

/// A span of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) from: Timestamp,
    /// None while it lasts.
    pub(crate) to: Option<Timestamp>,
}

impl Span {
    pub(crate) fn has(&self, at: Timestamp) -> bool {
        self.from <= at && self.to.is_none_or(|to| at < to)
    }

    /// Whether an apiserver may still have decided by the roles of this span.
    pub(crate) fn may_have(&self, at: Timestamp) -> bool {
        self.from <= at && self.to.is_none_or(|to| at.duration_since(to) < LEARNT)
    }
}

/// The spans in which a role or a binding of the account was not the chart's. What the log does not tell is taken for the
/// chart's. Changes are in the order of time.
pub(crate) fn without_the_charts_rights(
    account: &Account,
    rendered: &Rendered,
    changes: &[Change],
) -> Vec<Span> {
    let grants = rendered.all.grants();
    let grants: Vec<_> = grants.iter().filter(|grant| grant.account == *account).collect();
    let mut is_right: BTreeMap<&Id, bool> = BTreeMap::new();
    let mut spans: Vec<Span> = Vec::new();
    for change in changes {
        for grant in &grants {
            if change.of.concerns(&grant.role) {
                is_right.insert(&grant.role, is_role(grant, rendered, &change.now));
            }
            if change.of.concerns(&grant.binding) {
                is_right.insert(&grant.binding, is_binding(grant, &change.now));
            }
        }
        let are_all = is_right.values().all(|is_right| *is_right);
        match spans.last_mut().filter(|span| span.to.is_none()) {
            Some(open) if are_all => open.to = Some(change.to),
            None if !are_all => spans.push(Span {
                from: change.from,
                to: None,
            }),
            Some(_) | None => {}
        }
    }
    spans
}

/// At least what the chart gives usually, and nothing that it never gives.
fn is_role(grant: &Grant, rendered: &Rendered, now: &Now) -> bool {
    let namespace = grant.binding.namespace.as_deref();
    match now {
        Now::Gone => false,
        Now::There(None) => true,
        Now::There(Some(role)) => {
            let has = role.rights(namespace);
            let usual = rendered.usual.rights(&grant.role, namespace);
            are_in(&usual, &has) && are_in(&has, &grant.rights)
        }
    }
}

fn are_in(few: &[Right], many: &[Right]) -> bool {
    few.iter().all(|right| many.contains(right))
}

fn is_binding(grant: &Grant, now: &Now) -> bool {
    let gives = |binding: &Object| {
        binding.role().as_ref() == Some(&grant.role) && binding.accounts().contains(&grant.account)
    };
    match now {
        Now::Gone => false,
        Now::There(binding) => binding.as_ref().is_none_or(gives),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::calls::changes::Changed;
    use crate::rights::{Kind, Roles};

    pub(in crate::calls) const PROXY: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: proxy}
rules: [{apiGroups: [''], resources: [configmaps], verbs: [get, watch]}, MORE]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: proxy}
roleRef: {kind: ClusterRole, name: proxy}
subjects: [{kind: ServiceAccount, name: trivet-proxy, namespace: trivet-system}]
";

    /// A chart whose proxies may also review tokens, with a value.
    pub(in crate::calls) fn rendered() -> Rendered {
        let of = |more: &str| Roles::parse(&PROXY.replace("MORE", more)).unwrap();
        Rendered {
            usual: of(""),
            all: of("{apiGroups: [authentication.k8s.io], resources: [tokenreviews], verbs: [create]}"),
        }
    }

    pub(in crate::calls) fn second(second: u8) -> Timestamp {
        format!("2026-01-01T00:00:{second:02}Z").parse().unwrap()
    }

    pub(in crate::calls) fn change(kind: Kind, at: u8, now: Option<Value>) -> Change {
        Change {
            from: second(at),
            to: second(at),
            of: Changed::One(Id {
                kind,
                namespace: None,
                name: "proxy".to_owned(),
            }),
            now: now.map_or(Now::Gone, |now| Now::There(Some(Object::parse(now).unwrap()))),
        }
    }

    fn role(verbs: &[&str]) -> Value {
        json!({
            "kind": "ClusterRole", "metadata": { "name": "proxy" },
            "rules": [{ "apiGroups": [""], "resources": ["configmaps"], "verbs": verbs }],
        })
    }

    fn binding(name: &str) -> Value {
        json!({
            "kind": "ClusterRoleBinding", "metadata": { "name": "proxy" },
            "roleRef": { "kind": "ClusterRole", "name": "proxy" },
            "subjects": [{ "kind": "ServiceAccount", "name": name, "namespace": "trivet-system" }],
        })
    }

    fn spans(changes: &[Change]) -> Vec<(Timestamp, Option<Timestamp>)> {
        let account = Account {
            namespace: "trivet-system".to_owned(),
            name: "trivet-proxy".to_owned(),
        };
        let spans = without_the_charts_rights(&account, &rendered(), changes);
        spans.iter().map(|span| (span.from, span.to)).collect()
    }

    #[test]
    fn a_span_lasts_until_role_and_binding_are_back() {
        let changes = [
            change(Kind::ClusterRoleBinding, 10, None),
            change(Kind::ClusterRole, 11, None),
            change(Kind::ClusterRoleBinding, 20, Some(binding("trivet-proxy"))),
            change(Kind::ClusterRole, 21, Some(role(&["get", "watch"]))),
            change(Kind::ClusterRole, 40, None),
        ];
        assert_eq!(
            spans(&changes),
            [(second(10), Some(second(21))), (second(40), None)]
        );
    }

    #[test]
    fn apiservers_may_decide_by_a_span_for_some_seconds_longer() {
        let span = Span {
            from: second(10),
            to: Some(second(11)),
        };
        let may = |at| (span.has(second(at)), span.may_have(second(at)));
        assert_eq!(
            [9, 10, 11, 15, 16].map(may),
            [
                (false, false),
                (true, true),
                (false, true),
                (false, true),
                (false, false)
            ]
        );
    }

    #[test]
    fn roles_with_other_rules_and_bindings_of_others_are_not_the_charts() {
        for other in [
            change(Kind::ClusterRole, 10, Some(role(&["get"]))),
            change(Kind::ClusterRole, 10, Some(role(&["get", "watch", "list"]))),
            change(Kind::ClusterRoleBinding, 10, Some(binding("other"))),
        ] {
            assert_eq!(
                spans(std::slice::from_ref(&other)),
                [(second(10), None)],
                "{other:?}"
            );
        }
        let mut all = role(&["get", "watch"]);
        let review = json!({ "apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"] });
        all["rules"].as_array_mut().unwrap().push(review);
        for charts in [role(&["get", "watch"]), all] {
            assert_eq!(spans(&[change(Kind::ClusterRole, 10, Some(charts))]), []);
        }
    }
}
