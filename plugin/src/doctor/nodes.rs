//! What is wrong with the proxies of some nodes, by what they report.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use trivet_crds::pool::ApiserverPool;
use trivet_crds::report::{ListenerState, ProxyReport};

use super::finding::Finding;
use super::kind::Kind;
use crate::output::text::span;
use crate::read::Facts;

/// How long proxies may take to follow: a change takes seconds, the mounted ConfigMap of a proxy without a watch a minute.
const FOLLOWED_WITHIN_SECONDS: i64 = 120;

/// No host whose clock is synchronised is off by this; a report is written within seconds of the time that it names.
const SKEW_SECONDS: i64 = 60;

pub(super) fn check(facts: &Facts, pool: &ApiserverPool, reports: &[&ProxyReport]) -> Vec<Finding> {
    let name = pool.name_any();
    let mut found: Vec<_> = [
        Finding::on(Kind::NotReporting, &name, silent(facts, &name, reports)),
        Finding::on(Kind::RevisionBehind, &name, behind(facts, pool, reports)),
        Finding::on(Kind::ClockSkew, &name, skewed(facts, &name)),
        Finding::on(Kind::ProxyUnused, &name, unused(reports)),
    ]
    .into_iter()
    .flatten()
    .collect();
    found.extend(ports(&name, reports));
    found.extend(warnings(&name, reports));
    found
}

/// Ready nodes with a proxy and without a fresh report. Where no report can be read, nothing is known of any.
fn silent(facts: &Facts, pool: &str, reports: &[&ProxyReport]) -> Vec<(String, String)> {
    let Some(all) = &facts.reports else {
        return Vec::new();
    };
    let silent = facts.nodes_of(pool).into_iter().filter(|node| {
        let mut fresh = reports.iter();
        !fresh.any(|report| report.content.node_name == *node)
    });
    silent
        .map(|node| {
            let mut stale = all.iter();
            let last =
                stale.find(|report| report.content.pool_name == pool && report.content.node_name == node);
            let last = last.and_then(|report| facts.age(report));
            let words = last.map_or_else(
                || "no report".to_owned(),
                |age| format!("last report {} ago", span(age)),
            );
            (node, words)
        })
        .collect()
}

fn behind(facts: &Facts, pool: &ApiserverPool, reports: &[&ProxyReport]) -> Vec<(String, String)> {
    let revision = pool
        .status
        .as_ref()
        .and_then(|status| status.config_revision)
        .unwrap_or_default();
    // A revision is the time of its writing, or later.
    if facts.now.saturating_sub(revision) <= FOLLOWED_WITHIN_SECONDS {
        return Vec::new();
    }
    let revision = u64::try_from(revision).unwrap_or_default();
    let behind = reports.iter().filter(|report| report.content.revision < revision);
    behind
        .map(|report| {
            let words = match report.content.revision {
                0 => format!("it tells none; the pool's is {revision}"),
                told => format!("{told} instead of {revision}"),
            };
            (report.content.node_name.clone(), words)
        })
        .collect()
}

/// The API server notes when it took each report; the proxy says when it wrote it. An old report tells as much.
fn skewed(facts: &Facts, pool: &str) -> Vec<(String, String)> {
    let reports = facts.reports.iter().flatten();
    let of_pool = reports.filter(|report| report.content.pool_name == pool);
    of_pool
        .filter_map(|report| {
            let observed: Timestamp = report.content.observed_time.parse().ok()?;
            let writes = report.metadata.managed_fields.iter().flatten();
            let taken = writes
                .filter_map(|entry| entry.time.as_ref())
                .map(|time| time.0)
                .max()?;
            let ahead = observed.as_second().saturating_sub(taken.as_second());
            let words = match ahead {
                SKEW_SECONDS.. => format!("{} ahead", span(ahead)),
                ahead if ahead <= -SKEW_SECONDS => format!("{} behind", span(-ahead)),
                _ => return None,
            };
            Some((report.content.node_name.clone(), words))
        })
        .collect()
}

fn unused(reports: &[&ProxyReport]) -> Vec<(String, String)> {
    let unused = reports.iter().filter(|report| report.content.connections == 0);
    unused
        .map(|report| (report.content.node_name.clone(), String::new()))
        .collect()
}

/// One finding for each address.
fn ports(pool: &str, reports: &[&ProxyReport]) -> Vec<Finding> {
    let mut by_address: BTreeMap<&str, Vec<(String, String)>> = BTreeMap::new();
    for report in reports {
        for listener in &report.content.listeners {
            if listener.state == ListenerState::Failed {
                let nodes = by_address.entry(&listener.address).or_default();
                nodes.push((report.content.node_name.clone(), listener.message.clone()));
            }
        }
    }
    named(Kind::PortTaken, pool, by_address)
}

/// One finding for each reason.
fn warnings(pool: &str, reports: &[&ProxyReport]) -> Vec<Finding> {
    let mut by_reason: BTreeMap<&str, Vec<(String, String)>> = BTreeMap::new();
    for report in reports {
        for warning in &report.content.warnings {
            let nodes = by_reason.entry(&warning.reason).or_default();
            nodes.push((report.content.node_name.clone(), warning.message.clone()));
        }
    }
    named(Kind::ProxyWarns, pool, by_reason)
}

fn named(kind: Kind, pool: &str, by_name: BTreeMap<&str, Vec<(String, String)>>) -> Vec<Finding> {
    let findings = by_name.into_iter().filter_map(|(name, nodes)| {
        let finding = Finding::on(kind, pool, nodes)?;
        let message = format!("{name}: {}", finding.message);
        Some(Finding { message, ..finding })
    });
    findings.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::doctor::tests::{facts, kinds, pool};

    /// What is found after a change of w1's report.
    fn checked(change: impl FnOnce(&mut ProxyReport)) -> Vec<Finding> {
        let mut facts = facts();
        let mut reports = facts.reports.as_mut().unwrap().iter_mut();
        change(reports.find(|report| report.content.node_name == "w1").unwrap());
        check(&facts, &pool(), &facts.fresh_reports("default"))
    }

    #[test]
    fn nodes_in_order_have_no_finding() {
        assert_eq!(checked(|_| {}), []);
    }

    #[test]
    fn a_port_that_is_taken_is_named_with_address_and_program() {
        let found = checked(|report| {
            let failed = json!({ "address": "127.0.0.1:7443", "state": "Failed", "message": "taken by nginx, pid 812" });
            report.content.listeners = vec![serde_json::from_value(failed).unwrap()];
        });
        assert_eq!(kinds(&found), [Kind::PortTaken]);
        assert_eq!(found[0].place, "pool default, 1 node");
        assert_eq!(found[0].message, "127.0.0.1:7443: w1 (taken by nginx, pid 812)");
    }

    #[test]
    fn a_warning_is_named_with_its_reason() {
        let found = checked(|report| {
            let warning = json!({ "reason": "CacheUnwritable", "message": "no space left" });
            report.content.warnings = vec![serde_json::from_value(warning).unwrap()];
        });
        assert_eq!(kinds(&found), [Kind::ProxyWarns]);
        assert_eq!(found[0].message, "CacheUnwritable: w1 (no space left)");
    }

    #[test]
    fn a_node_without_a_fresh_report_is_named_and_one_that_is_not_ready_is_not() {
        let mut facts = facts();
        facts
            .reports
            .as_mut()
            .unwrap()
            .retain(|report| report.content.node_name != "w1");
        let found = |facts: &Facts| check(facts, &pool(), &facts.fresh_reports("default"));
        assert_eq!(kinds(&found(&facts)), [Kind::NotReporting]);
        assert_eq!(found(&facts)[0].message, "w1 (no report)");
        let nodes = facts.nodes.as_mut().unwrap();
        let w1 = nodes.iter_mut().find(|node| node.name_any() == "w1").unwrap();
        w1.status.as_mut().unwrap().conditions.as_mut().unwrap()[0].status = "Unknown".to_owned();
        assert_eq!(found(&facts), []);
        facts.reports = None;
        assert_eq!(found(&facts), [], "what was not read is not judged");
    }

    #[test]
    fn an_old_report_says_only_how_old_it_is() {
        let mut facts = facts();
        facts.now += 901;
        let found = check(&facts, &pool(), &facts.fresh_reports("default"));
        assert_eq!(kinds(&found), [Kind::NotReporting]);
        assert!(found[0].message.starts_with("cp1 (last report 15m"), "{found:?}");
    }

    #[test]
    fn a_node_that_does_not_follow_is_named_once_it_should_have() {
        let mut facts = facts();
        let mut pool = pool();
        pool.status.as_mut().unwrap().config_revision = Some(facts.now);
        assert_eq!(check(&facts, &pool, &facts.fresh_reports("default")), []);
        facts.now += FOLLOWED_WITHIN_SECONDS + 1;
        let found = check(&facts, &pool, &facts.fresh_reports("default"));
        assert_eq!(kinds(&found), [Kind::RevisionBehind]);
    }

    #[test]
    fn a_clock_that_differs_from_the_api_servers_is_named_either_way() {
        for (observed, words) in [
            ("2026-11-29T12:00:59Z", None),
            ("2026-11-29T12:01:00Z", Some("w1 (1m ahead)")),
            ("2026-11-29T11:30:00Z", Some("w1 (30m behind)")),
        ] {
            let found = checked(|report| {
                report.content.observed_time = observed.to_owned();
                let taken = json!([{ "manager": "trivet-proxy", "time": "2026-11-29T12:00:00Z" }]);
                report.metadata.managed_fields = serde_json::from_value(taken).unwrap();
            });
            let skewed = found.iter().find(|finding| finding.kind == Kind::ClockSkew);
            assert_eq!(skewed.map(|finding| finding.message.as_str()), words);
        }
    }

    #[test]
    fn a_proxy_that_nobody_uses_is_a_note() {
        let found = checked(|report| report.content.connections = 0);
        assert_eq!(kinds(&found), [Kind::ProxyUnused]);
        assert_eq!(found[0].message, "w1");
    }
}
