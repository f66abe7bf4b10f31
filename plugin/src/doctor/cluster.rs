//! What is wrong outside of the pools: rights to read, releases, the namespace, the operator, kube-proxy.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt;
use trivet_crds::{POOL_LABEL, data_plane_name};

use super::expected::POLICIES;
use super::finding::Finding;
use super::images;
use super::kind::Kind;
use crate::read::{Facts, OPERATOR};

/// The oldest minor release of Kubernetes 1 that Trivet supports, as Cargo.toml has it for k8s-openapi.
const OLDEST_MINOR: u32 = 33;

/// The label by which a namespace enforces a Pod Security level.
const ENFORCE: &str = "pod-security.kubernetes.io/enforce";

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let mut found = unread(facts);
    found.extend(version(facts));
    found.extend(pod_security(facts));
    found.extend(operator(facts));
    found.extend(images::of_operator(facts));
    found.extend(policies(facts));
    found.extend(kube_proxy(facts));
    found.extend(left_over(facts));
    if facts.pools.as_ref().is_some_and(Vec::is_empty) && facts.unreadable_pools.is_empty() {
        found.push(Finding::at(Kind::NoPool, "cluster", "there is no ApiserverPool"));
    }
    found
}

/// What could not be read.
pub(super) fn unread(facts: &Facts) -> Vec<Finding> {
    let unread = facts.unread.iter();
    unread
        .map(|unread| Finding::at(Kind::CannotRead, unread.what.clone(), unread.why.clone()))
        .collect()
}

fn version(facts: &Facts) -> Option<Finding> {
    let version = facts.version.as_ref()?;
    let mut parts = version.trim_start_matches('v').split('.');
    let major: u32 = parts.next()?.parse().ok()?;
    // Some vendors write 33+.
    let minor: u32 = parts.next()?.trim_end_matches('+').parse().ok()?;
    ((major, minor) < (1, OLDEST_MINOR))
        .then(|| Finding::at(Kind::KubernetesTooOld, "API server", format!("it is {version}")))
}

fn pod_security(facts: &Facts) -> Option<Finding> {
    let home = facts.home.as_ref()?;
    let place = format!("namespace {}", facts.namespace);
    let Some(home) = home else {
        let message = "it does not exist; --namespace names the one that Trivet is installed in";
        return Some(Finding::at(Kind::OperatorAbsent, place, message));
    };
    let level = home.labels().get(ENFORCE)?;
    (level != "privileged").then(|| {
        let message = format!("{ENFORCE} is {level}: pods that run stay, and none that is new starts");
        Finding::at(Kind::PodSecurity, place, message)
    })
}

fn operator(facts: &Facts) -> Option<Finding> {
    let place = format!("Deployment {OPERATOR} in {}", facts.namespace);
    let Some(deployment) = facts.operator.as_ref()? else {
        // That the namespace is absent says it already.
        let has_home = facts.home.as_ref().is_none_or(Option::is_some);
        return has_home.then(|| Finding::at(Kind::OperatorAbsent, place, "there is none"));
    };
    let available = available(deployment);
    let wanted = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1);
    (available == 0).then(|| {
        let message = format!("0 of {wanted} replicas are available");
        Finding::at(Kind::OperatorAbsent, place, message)
    })
}

fn available(deployment: &Deployment) -> i32 {
    let status = deployment.status.as_ref();
    status
        .and_then(|status| status.available_replicas)
        .unwrap_or_default()
}

fn policies(facts: &Facts) -> Vec<Finding> {
    let (Some(policies), Some(bindings)) = (&facts.policies, &facts.bindings) else {
        return Vec::new();
    };
    let wrong = |name: &str| {
        if !policies.iter().any(|policy| policy.name_any() == name) {
            return Some("there is no such ValidatingAdmissionPolicy");
        }
        let Some(binding) = bindings.iter().find(|binding| binding.name_any() == name) else {
            return Some("no ValidatingAdmissionPolicyBinding of this name puts it into force");
        };
        let spec = binding.spec.as_ref();
        let mut actions = spec
            .iter()
            .flat_map(|spec| spec.validation_actions.iter().flatten());
        (!actions.any(|action| action == "Deny")).then_some("its binding does not have the action Deny")
    };
    let names = POLICIES.into_iter();
    names
        .filter_map(|name| Some(Finding::at(Kind::PolicyMissing, name, wrong(name)?)))
        .collect()
}

/// Only where a pool has a listener that could be used instead.
fn kube_proxy(facts: &Facts) -> Option<Finding> {
    let server = facts.kube_proxy.as_ref()?.as_ref()?;
    let pools = facts.pools.iter().flatten();
    let endpoints: BTreeSet<_> = pools
        .filter_map(|pool| pool.status.as_ref())
        .flat_map(|status| &status.endpoints)
        .map(|endpoint| endpoint.trim_end_matches('/'))
        .collect();
    if endpoints.is_empty() || endpoints.contains(server.trim_end_matches('/')) {
        return None;
    }
    let listeners: Vec<_> = endpoints.into_iter().collect();
    let message = format!(
        "its server is {server}; the listener is {}",
        listeners.join(" or ")
    );
    Some(Finding::at(
        Kind::KubeProxyBypasses,
        "ConfigMap kube-proxy in kube-system",
        message,
    ))
}

fn left_over(facts: &Facts) -> Vec<Finding> {
    let Some(pools) = &facts.pools else {
        return Vec::new();
    };
    let sets = facts.daemon_sets.iter().flatten();
    let of_gone = sets.filter_map(|set| {
        let pool = set.labels().get(POOL_LABEL)?;
        let is_there =
            pools.iter().any(|other| other.name_any() == *pool) || facts.unreadable_pools.contains(pool);
        let is_gone = set.name_any() == data_plane_name(pool) && !is_there;
        let ready = set.status.as_ref().map_or(0, |status| status.number_ready);
        let message = format!("pool {pool} is deleted, and {ready} of its proxies are ready");
        is_gone.then(|| Finding::at(Kind::LeftOver, format!("DaemonSet {}", set.name_any()), message))
    });
    of_gone.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::doctor::tests::{facts, kinds};

    #[test]
    fn a_cluster_in_order_has_no_finding() {
        assert_eq!(check(&facts()), []);
    }

    #[test]
    fn what_may_not_be_read_is_named() {
        let mut facts = facts();
        let status = kube::core::Status::failure("no", "Forbidden").with_code(403);
        let error = kube::Error::Api(status.boxed());
        facts.unread = vec![crate::read::Unread::new("nodes", error)];
        let found = check(&facts);
        assert_eq!(kinds(&found), [Kind::CannotRead]);
        assert_eq!(found[0].place, "nodes");
    }

    #[test]
    fn a_release_below_the_oldest_supported_one_is_named() {
        for (version, is_told) in [
            ("v1.32.9", true),
            ("v1.33.0", false),
            ("v1.33+", false),
            ("1.29.1-gke.5", true),
            ("v2.0.0", false),
            ("unknown", false),
        ] {
            let mut facts = facts();
            facts.version = Some(version.to_owned());
            assert_eq!(!check(&facts).is_empty(), is_told, "{version}");
        }
    }

    #[test]
    fn a_namespace_that_forbids_the_host_network_is_named() {
        for (labels, is_told) in [
            (json!({}), false),
            (json!({ ENFORCE: "privileged" }), false),
            (json!({ ENFORCE: "baseline" }), true),
            (json!({ ENFORCE: "restricted" }), true),
        ] {
            let mut facts = facts();
            facts.home = Some(serde_json::from_value(json!({ "metadata": { "labels": labels } })).unwrap());
            assert_eq!(kinds(&check(&facts)) == [Kind::PodSecurity], is_told, "{labels}");
        }
    }

    #[test]
    fn an_operator_that_is_not_there_or_not_available_is_named_once() {
        let mut facts = facts();
        facts.operator = Some(
            serde_json::from_value(json!({ "spec": { "replicas": 0, "selector": {}, "template": {} } }))
                .unwrap(),
        );
        assert_eq!(check(&facts)[0].message, "0 of 0 replicas are available");
        facts.operator = Some(None);
        assert_eq!(kinds(&check(&facts)), [Kind::OperatorAbsent]);
        facts.home = Some(None);
        let found = check(&facts);
        assert_eq!(kinds(&found), [Kind::OperatorAbsent]);
        assert!(found[0].message.contains("--namespace"), "{found:?}");
        facts.home = None;
        facts.operator = None;
        assert_eq!(check(&facts), [], "what was not read is not judged");
    }

    #[test]
    fn a_policy_that_is_absent_unbound_or_does_not_deny_is_named() {
        let mut facts = facts();
        facts.policies.as_mut().unwrap().remove(0);
        let bindings = facts.bindings.as_mut().unwrap();
        bindings.remove(1);
        bindings[1].spec.as_mut().unwrap().validation_actions = Some(vec!["Audit".to_owned()]);
        let found = check(&facts);
        assert_eq!(kinds(&found), [Kind::PolicyMissing; 3]);
        let places: Vec<_> = found.iter().map(|finding| finding.place.as_str()).collect();
        assert_eq!(places, &POLICIES[..3]);
    }

    #[test]
    fn a_kube_proxy_that_uses_one_apiserver_is_named() {
        let mut facts = facts();
        let mut told = |server: Option<&str>| {
            facts.kube_proxy = Some(server.map(str::to_owned));
            kinds(&check(&facts)) == [Kind::KubeProxyBypasses]
        };
        assert!(told(Some("https://10.0.0.11:6443")));
        assert!(!told(Some("https://127.0.0.1:7443")));
        assert!(!told(Some("https://[::1]:7443/")));
        assert!(!told(None), "no kube-proxy as kubeadm makes it");
        facts.pools = Some(Vec::new());
        facts.daemon_sets = Some(Vec::new());
        facts.kube_proxy = Some(Some("https://10.0.0.11:6443".to_owned()));
        assert_eq!(
            kinds(&check(&facts)),
            [Kind::NoPool],
            "there is nothing to use instead"
        );
    }

    #[test]
    fn proxies_of_a_pool_that_is_gone_are_named() {
        let mut facts = facts();
        facts.pools.as_mut().unwrap()[0].metadata.name = Some("other".to_owned());
        let found = check(&facts);
        assert_eq!(kinds(&found), [Kind::LeftOver]);
        assert!(found[0].message.contains("pool default is deleted"), "{found:?}");
    }
}
