//! Whether something takes over on a node when its proxy ends.
//!
//! Only a kubelet's kubeconfig on the node says which API server it uses. What is known is whether any client of the node is
//! connected through its proxy.

use kube::ResourceExt;
use trivet_crds::pool::{ApiserverPool, BootstrapPolicy};
use trivet_crds::report::{ProxyReport, StandbyState};

use super::finding::Finding;
use super::kind::Kind;
use crate::output::text::counted;
use crate::read::Facts;

pub(super) fn check(facts: &Facts, pool: &ApiserverPool, reports: &[&ProxyReport]) -> Vec<Finding> {
    let name = pool.name_any();
    let bootstrap = &pool.spec.node_bootstrap;
    let is_wanted = bootstrap.policy == BootstrapPolicy::StaticPod;
    let in_state = |state| {
        reports
            .iter()
            .filter(move |report| report.content.standby == state)
    };
    let node = |report: &ProxyReport| report.content.node_name.clone();
    let without = in_state(StandbyState::Absent)
        .filter(|report| is_wanted || report.content.connections > 0)
        .map(|report| {
            let clients = report.content.connections.try_into().unwrap_or(usize::MAX);
            (node(report), counted(clients, "connection"))
        });
    let stale = in_state(StandbyState::Stale).map(|report| (node(report), String::new()));
    let unwanted = in_state(StandbyState::Ready).filter(|_| !is_wanted);
    let unwanted = unwanted.map(|report| (node(report), String::new()));
    let elsewhere = facts.static_pod_paths.iter().filter(|(_, path)| {
        is_wanted && path.trim_end_matches('/') != bootstrap.manifest_path.trim_end_matches('/')
    });
    let elsewhere = elsewhere.map(|(node, path)| {
        let path = if path.is_empty() { "none" } else { path };
        (node.clone(), format!("reads {path}"))
    });
    [
        Finding::on(Kind::NoStandby, &name, without.collect()),
        Finding::on(Kind::StandbyStale, &name, stale.collect()),
        Finding::on(Kind::StandbyNotWanted, &name, unwanted.collect()),
        Finding::on(Kind::StaticPodPath, &name, elsewhere.collect()),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::tests::{facts, kinds, pool};

    fn facts_with(state: StandbyState, connections: u32) -> Facts {
        let mut facts = facts();
        let report = facts.reports.as_mut().unwrap().last_mut().unwrap();
        report.content.standby = state;
        report.content.connections = connections;
        facts
    }

    fn checked(facts: &Facts, policy: BootstrapPolicy) -> Vec<Finding> {
        let mut pool = pool();
        pool.spec.node_bootstrap.policy = policy;
        check(facts, &pool, &facts.fresh_reports("default"))
    }

    #[test]
    fn a_standby_on_every_node_is_in_order() {
        assert_eq!(checked(&facts(), BootstrapPolicy::StaticPod), []);
    }

    #[test]
    fn a_node_whose_clients_have_no_standby_is_named_and_an_unused_one_is_not() {
        let found = checked(&facts_with(StandbyState::Absent, 3), BootstrapPolicy::StaticPod);
        assert_eq!(kinds(&found), [Kind::NoStandby]);
        assert_eq!(found[0].message, "w2 (3 connections)");
        let unused = facts_with(StandbyState::Absent, 0);
        let none = |policy| kinds(&checked(&unused, policy)).contains(&Kind::NoStandby);
        assert!(none(BootstrapPolicy::StaticPod), "it is wanted");
        assert!(!none(BootstrapPolicy::None));
    }

    #[test]
    fn a_standby_that_is_stale_or_not_wanted_is_named() {
        let found = checked(&facts_with(StandbyState::Stale, 3), BootstrapPolicy::StaticPod);
        assert_eq!(kinds(&found), [Kind::StandbyStale]);
        let found = checked(&facts(), BootstrapPolicy::None);
        assert_eq!(kinds(&found), [Kind::StandbyNotWanted]);
    }

    #[test]
    fn a_kubelet_that_reads_another_directory_is_named() {
        let mut facts = facts();
        for (node, path) in [
            ("w1", "/etc/kubelet.d"),
            ("w2", ""),
            ("cp1", "/etc/kubernetes/manifests/"),
        ] {
            facts.static_pod_paths.insert(node.to_owned(), path.to_owned());
        }
        let found = checked(&facts, BootstrapPolicy::StaticPod);
        assert_eq!(kinds(&found), [Kind::StaticPodPath]);
        assert_eq!(found[0].message, "w1 (reads /etc/kubelet.d), w2 (reads none)");
    }
}
