//! Whether operator and proxies have the rights that the chart gives them, by its roles and bindings. Another role may give them
//! the same; then the finding is wrong, and says which role it looked for.

use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef, Subject};
use kube::ResourceExt;

use super::expected::{Holder, RIGHTS, Right};
use super::finding::Finding;
use super::kind::Kind;
use crate::read::{Facts, Rights};

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let Some(rights) = &facts.rights else {
        return Vec::new();
    };
    let found = RIGHTS.iter().filter_map(|right| {
        let why = wrong(right, rights, &facts.namespace)?;
        let kind = match right.holder {
            Holder::Operator => Kind::OperatorRights,
            Holder::Proxy => Kind::ProxyRights,
        };
        Some(Finding::at(kind, place(right, &facts.namespace), why))
    });
    found.collect()
}

fn place(right: &Right, home: &str) -> String {
    match right.namespace(home) {
        None => format!("ClusterRole {}", right.role),
        Some(namespace) => format!("Role {} in {namespace}", right.role),
    }
}

/// What is wrong with a right, if anything.
fn wrong(right: &Right, rights: &Rights, home: &str) -> Option<String> {
    let account = right.holder.account();
    let Some(rules) = rules(right, rights, home) else {
        return Some("there is no such role".to_owned());
    };
    let missing: Vec<_> = right
        .needs
        .iter()
        .filter(|need| !rules.iter().any(|rule| allows(rule, **need)))
        .map(|(_, resource, verb)| format!("{verb} {resource}"))
        .collect();
    if !missing.is_empty() {
        return Some(format!("it does not allow {}", missing.join(", ")));
    }
    (!is_bound(right, rights, home))
        .then(|| format!("no binding of this name gives it to ServiceAccount {account}"))
}

fn rules(right: &Right, rights: &Rights, home: &str) -> Option<Vec<PolicyRule>> {
    let rules = match right.namespace(home) {
        None => {
            let mut roles = rights.cluster_roles.iter();
            roles.find(|role| role.name_any() == right.role)?.rules.clone()
        }
        Some(namespace) => {
            let mut roles = rights.roles.iter();
            let is_it =
                |name: &str, of: Option<String>| name == right.role && of.as_deref() == Some(namespace);
            roles
                .find(|role| is_it(&role.name_any(), role.namespace()))?
                .rules
                .clone()
        }
    };
    Some(rules.unwrap_or_default())
}

fn allows(rule: &PolicyRule, (group, resource, verb): (&str, &str, &str)) -> bool {
    let has = |list: Option<&Vec<String>>, word: &str| {
        list.is_some_and(|list| list.iter().any(|item| item == word || item == "*"))
    };
    has(rule.api_groups.as_ref(), group)
        && has(rule.resources.as_ref(), resource)
        && has(Some(&rule.verbs), verb)
        && rule.resource_names.as_ref().is_none_or(Vec::is_empty)
}

fn is_bound(right: &Right, rights: &Rights, home: &str) -> bool {
    let gives = |role: &RoleRef, subjects: Option<&Vec<Subject>>| {
        let is_holder = |subject: &Subject| {
            subject.kind == "ServiceAccount"
                && subject.name == right.holder.account()
                && subject.namespace.as_deref() == Some(home)
        };
        role.name == right.role && subjects.is_some_and(|subjects| subjects.iter().any(is_holder))
    };
    match right.namespace(home) {
        None => {
            let mut bindings = rights.cluster_role_bindings.iter();
            bindings.any(|binding| gives(&binding.role_ref, binding.subjects.as_ref()))
        }
        Some(namespace) => {
            let mut bindings = rights.role_bindings.iter();
            bindings.any(|binding| {
                binding.namespace().as_deref() == Some(namespace)
                    && gives(&binding.role_ref, binding.subjects.as_ref())
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::tests::{facts, kinds};

    #[test]
    fn the_rights_of_the_chart_are_in_order_and_those_that_were_not_read_are_not_judged() {
        let mut facts = facts();
        assert_eq!(check(&facts), []);
        facts.rights = None;
        assert_eq!(check(&facts), []);
    }

    #[test]
    fn a_role_that_is_gone_is_named() {
        let mut facts = facts();
        facts.rights.as_mut().unwrap().roles.clear();
        let found = check(&facts);
        let expected = [
            Kind::OperatorRights,
            Kind::OperatorRights,
            Kind::OperatorRights,
            Kind::ProxyRights,
        ];
        assert_eq!(kinds(&found), expected);
        assert_eq!(found[1].place, "Role trivet-operator-endpoints in default");
    }

    #[test]
    fn a_binding_that_is_gone_or_of_somebody_else_is_named() {
        let mut facts = facts();
        let rights = facts.rights.as_mut().unwrap();
        rights
            .cluster_role_bindings
            .retain(|binding| binding.name_any() != "trivet-proxy");
        let subjects = rights.role_bindings[0].subjects.as_mut().unwrap();
        subjects[0].namespace = Some("elsewhere".to_owned());
        let found = check(&facts);
        assert_eq!(kinds(&found), [Kind::OperatorRights, Kind::ProxyRights]);
        assert!(
            found[1].message.contains("ServiceAccount trivet-proxy"),
            "{found:?}"
        );
    }

    #[test]
    fn a_rule_that_is_gone_is_named_by_verb_and_resource() {
        let mut facts = facts();
        let rights = facts.rights.as_mut().unwrap();
        let role = rights
            .cluster_roles
            .iter_mut()
            .find(|role| role.name_any() == "trivet-proxy")
            .unwrap();
        for rule in role.rules.as_mut().unwrap() {
            rule.verbs = vec!["get".to_owned()];
        }
        let found = check(&facts);
        assert_eq!(
            found[0].message,
            "it does not allow create proxyreports, patch proxyreports"
        );
        // Everything is enough, and one object of a kind is not.
        let role = |verbs: &[&str], names: Option<Vec<String>>| PolicyRule {
            api_groups: Some(vec!["*".to_owned()]),
            resources: Some(vec!["*".to_owned()]),
            verbs: verbs.iter().map(ToString::to_string).collect(),
            resource_names: names,
            ..PolicyRule::default()
        };
        assert!(allows(&role(&["*"], None), ("apps", "daemonsets", "patch")));
        assert!(!allows(
            &role(&["*"], Some(vec!["one".to_owned()])),
            ("apps", "daemonsets", "patch")
        ));
    }
}
