//! What the proxies report, and what follows from it. Pure; [`crate::gather`] reads it.

pub mod fleet;
pub mod members;
pub mod standbys;
pub mod troubles;
pub mod vanished;
pub mod words;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{DeleteParams, Preconditions};
use kube::runtime::watcher::Event;
use tokio::time::Instant;
use trivet_crds::report::{ProxyReport, STALE_AFTER_INTERVALS, StandbyState, interval_seconds};

use self::fleet::Fleet;
use self::members::SeenMember;
use self::troubles::{Kind, Trouble};
use crate::health::sighting::{Sighting, Sightings};

/// How long a verified answer that a proxy told of is remembered: longer than any removal delay.
const ANSWERS_KEPT: Duration = Duration::from_secs(2 * 24 * 60 * 60);

/// The part of a report that the operator uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeReport {
    /// The version of the object, for which alone a deletion of it is meant.
    pub version: Option<String>,
    /// The pool.
    pub pool: String,
    /// The node.
    pub node: String,
    /// The revision of the document that its proxy follows.
    pub revision: u64,
    /// The hash of the template of the proxy that serves.
    pub template: String,
    /// The members as the node reaches them.
    pub members: Vec<SeenMember>,
    /// The open files of its proxy.
    pub open_files: u32,
    /// The memory of its proxy in MiB; 0 if that is not known.
    pub memory_mebibytes: u32,
    /// That of the last proxy of another template on the node, as far as it was seen; 0 if that is not known.
    pub earlier_mebibytes: u32,
    /// The connections of its clients.
    pub connections: u32,
    /// How long there has been none, in seconds.
    pub idle_seconds: u32,
    /// Whether a standby takes over.
    pub standby: StandbyState,
    /// What is wrong on the node.
    pub troubles: Vec<Trouble>,
    /// When it was written, if that can be read.
    pub observed: Option<Timestamp>,
}

impl From<ProxyReport> for NodeReport {
    fn from(report: ProxyReport) -> Self {
        let content = report.content;
        Self {
            version: report.metadata.resource_version,
            troubles: troubles::of(&content),
            pool: content.pool_name,
            node: content.node_name,
            revision: content.revision,
            template: content.template,
            members: content.members.into_iter().map(SeenMember::from).collect(),
            open_files: content.open_files,
            memory_mebibytes: content.memory_mebibytes,
            earlier_mebibytes: 0,
            connections: content.connections,
            idle_seconds: content.idle_seconds,
            standby: content.standby,
            observed: content.observed_time.parse().ok(),
        }
    }
}

impl NodeReport {
    /// How its object is deleted: only as long as nobody has written it since.
    pub fn deletion(&self) -> DeleteParams {
        DeleteParams {
            preconditions: Some(Preconditions {
                uid: None,
                resource_version: self.version.clone(),
            }),
            ..DeleteParams::default()
        }
    }

    /// Whether it is young enough to mean something. The clock of a node may be ahead of this one.
    pub fn is_fresh(&self, node_count: u32, now: Timestamp) -> bool {
        let longest = interval_seconds(node_count).saturating_mul(STALE_AFTER_INTERVALS);
        let longest = i64::try_from(longest).unwrap_or(i64::MAX);
        let age = |observed: Timestamp| now.as_second().saturating_sub(observed.as_second());
        self.observed.is_some_and(|observed| age(observed) <= longest)
    }

    /// Remembers of the report that it replaces what a new template is compared with, and the words with which a member's
    /// fault began: they may change from probe to probe, and a status must not be written for that.
    fn replace(&mut self, before: Option<&Self>) {
        self.earlier_mebibytes = before.map_or(0, |before| {
            if before.template == self.template {
                before.earlier_mebibytes
            } else {
                before.memory_mebibytes
            }
        });
        for member in &mut self.members {
            let mut earlier = before.iter().flat_map(|before| &before.members);
            if let Some(earlier) = earlier.find(|earlier| earlier.says_the_same(member)) {
                member.last_error.clone_from(&earlier.last_error);
            }
        }
    }

    /// Whether a proxy says that this is wrong.
    pub fn warns_of(&self, reason: &str) -> bool {
        self.troubles.iter().any(|trouble| match &trouble.kind {
            Kind::Warning(warned) => warned == reason,
            Kind::NotListening(_) => false,
        })
    }

    /// The active members that are not Up on the node.
    pub fn not_up(&self) -> BTreeSet<String> {
        let ailing = self.members.iter().filter(|member| member.is_ailing());
        ailing.map(|member| member.name.clone()).collect()
    }

    /// Whether the pool's status says the same of both.
    fn says_the_same(&self, other: &Self) -> bool {
        let same_members = self.members.len() == other.members.len()
            && self
                .members
                .iter()
                .zip(&other.members)
                .all(|(one, other)| one.says_the_same(other));
        same_members && (self.standby, &self.troubles) == (other.standby, &other.troubles)
    }
}

/// All reports, by object name.
#[derive(Debug, Default)]
pub struct Reports(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Shared with the passes: a copy of each report would cost a pass over a large cluster more than all else.
    reports: BTreeMap<String, Arc<NodeReport>>,
    relisted: BTreeMap<String, NodeReport>,
    /// The revision of the document in force, by pool, as the last pass has left it.
    in_force: BTreeMap<String, u64>,
    /// When a proxy last told of a verified answer, by pool and address.
    answered: BTreeMap<(String, SocketAddr), Instant>,
    has_read: bool,
    is_failing: bool,
}

impl Known {
    /// Whether this report starts a pass: the pool's status has something else to say, or the proxy has come to follow the
    /// document in force, or a later one, as after a restore from a backup.
    fn is_news(&self, before: Option<&NodeReport>, report: &NodeReport) -> bool {
        let in_force = self.in_force.get(&report.pool);
        let has_arrived = in_force.is_some_and(|in_force| report.revision >= *in_force);
        before.is_none_or(|before| {
            !report.says_the_same(before) || has_arrived && report.revision != before.revision
        })
    }
}

impl Reports {
    /// Folds one event of the watch in. Returns whether it starts a pass over the pools. Counts, times and revisions below
    /// the one in force are no reason for one.
    pub fn observe(&self, event: Event<ProxyReport>) -> bool {
        let mut known = self.lock();
        match event {
            Event::Init => {
                known.relisted.clear();
                false
            }
            Event::InitApply(report) => {
                known.relisted.insert(report.name_any(), report.into());
                false
            }
            Event::InitDone => {
                let mut relisted = std::mem::take(&mut known.relisted);
                for (name, report) in &mut relisted {
                    report.replace(known.reports.get(name).map(Arc::as_ref));
                }
                let relisted = relisted
                    .into_iter()
                    .map(|(name, report)| (name, Arc::new(report)));
                let before = std::mem::replace(&mut known.reports, relisted.collect());
                known.has_read = true;
                let earlier = |name| before.get(name).map(Arc::as_ref);
                let mut reports = known.reports.iter();
                let is_news = reports.any(|(name, report)| known.is_news(earlier(name), report));
                is_news || before.len() != known.reports.len()
            }
            Event::Apply(report) => {
                let (name, mut report) = (report.name_any(), NodeReport::from(report));
                let before = known.reports.get(&name).map(Arc::as_ref);
                report.replace(before);
                let is_news = known.is_news(before, &report);
                known.reports.insert(name, Arc::new(report));
                is_news
            }
            Event::Delete(report) => known.reports.remove(&report.name_any()).is_some(),
        }
    }

    /// Records the revision of the document in force for this pool.
    pub fn set_in_force(&self, pool: &str, revision: u64) {
        self.lock().in_force.insert(pool.to_owned(), revision);
    }

    /// Forgets what is in force for a pool that no longer exists.
    pub fn forget(&self, pool: &str) {
        let mut known = self.lock();
        known.in_force.remove(pool);
        known.answered.retain(|(of, _), _| of != pool);
    }

    /// What the nodes of this fleet see of each apiserver at the time `now`.
    pub fn sightings(&self, pool: &str, fleet: &Fleet, now: Instant) -> Sightings {
        let mut seen: BTreeMap<SocketAddr, Sighting> = BTreeMap::new();
        for report in fleet.of_ready_nodes() {
            for member in &report.members {
                let Some(address) = member.address else { continue };
                let sighting = seen.entry(address).or_default();
                sighting.note(
                    &report.node,
                    member.health,
                    member.is_verified(),
                    &member.last_error,
                );
            }
        }
        let mut known = self.lock();
        for (address, _) in seen.iter().filter(|(_, sighting)| sighting.reachable > 0) {
            known.answered.insert((pool.to_owned(), *address), now);
        }
        known
            .answered
            .retain(|_, at| now.saturating_duration_since(*at) < ANSWERS_KEPT);
        for ((of, address), at) in &known.answered {
            if of == pool {
                seen.entry(*address).or_default().verified_at = Some(*at);
            }
        }
        Sightings::new(seen)
    }

    /// Records that the watch works or fails. Returns whether that is news.
    pub fn set_failing(&self, is_failing: bool) -> bool {
        std::mem::replace(&mut self.lock().is_failing, is_failing) != is_failing
    }

    /// Whether the reports have been read once. An absent one means nothing before.
    pub fn has_read(&self) -> bool {
        self.lock().has_read
    }

    /// The reports of this pool.
    pub fn of(&self, pool: &str) -> Vec<Arc<NodeReport>> {
        let known = self.lock();
        let of_pool = known.reports.values().filter(|report| report.pool == pool);
        of_pool.cloned().collect()
    }

    /// All reports with the names of their objects.
    pub fn all(&self) -> Vec<(String, Arc<NodeReport>)> {
        let known = self.lock();
        let all = known.reports.iter();
        all.map(|(name, report)| (name.clone(), Arc::clone(report)))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The revisions that proxies follow, each with the node that tells it; one node for each revision.
pub fn told(reports: &[Arc<NodeReport>]) -> Vec<(Cow<'static, str>, u64)> {
    let by_revision: BTreeMap<_, _> = reports
        .iter()
        .rev()
        .map(|report| (report.revision, &report.node))
        .collect();
    by_revision
        .into_iter()
        .map(|(revision, node)| (format!("the report of node {node}").into(), revision))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report(node: &str) -> ProxyReport {
        serde_json::from_value(json!({
            "metadata": { "name": format!("default.{node}") },
            "poolName": "default", "nodeName": node, "revision": 7, "standby": "Ready",
            "observedTime": "2026-11-29T00:00:00Z",
        }))
        .unwrap()
    }

    fn nodes(reports: &Reports) -> Vec<String> {
        reports
            .of("default")
            .into_iter()
            .map(|report| report.node.clone())
            .collect()
    }

    #[test]
    fn a_list_replaces_what_was_known_and_events_change_it() {
        let reports = Reports::default();
        assert!(!reports.has_read());
        reports.observe(Event::Init);
        reports.observe(Event::InitApply(report("w1")));
        assert!(nodes(&reports).is_empty());
        reports.observe(Event::InitDone);
        assert!(reports.has_read());
        reports.observe(Event::Apply(report("w2")));
        assert_eq!(nodes(&reports), ["w1", "w2"]);
        reports.observe(Event::Delete(report("w1")));
        assert_eq!(nodes(&reports), ["w2"]);
        reports.observe(Event::Init);
        reports.observe(Event::InitDone);
        assert!(nodes(&reports).is_empty());
        assert!(reports.of("other").is_empty());
    }

    #[test]
    fn only_what_a_status_says_is_news() {
        let reports = Reports::default();
        let apply = |change: serde_json::Value| {
            let mut changed = serde_json::to_value(report("w1")).unwrap();
            let fields = changed.as_object_mut().unwrap();
            fields.extend(change.as_object().unwrap().clone());
            reports.observe(Event::Apply(serde_json::from_value(changed).unwrap()))
        };
        assert!(apply(json!({})));
        assert!(!apply(
            json!({ "revision": 8, "connections": 3, "observedTime": "2026-11-29T00:01:00Z" })
        ));
        assert!(apply(json!({ "standby": "Absent" })));
        let warning = json!({ "reason": "CacheUnwritable", "message": "full" });
        assert!(apply(json!({ "standby": "Absent", "warnings": [warning] })));
        assert!(!apply(json!({ "standby": "Absent", "warnings": [warning] })));
        assert!(apply(json!({ "standby": "Absent" })));

        // A list after a watch that was broken.
        let relist = |listed: &[&str]| {
            assert!(!reports.observe(Event::Init));
            for node in listed {
                assert!(!reports.observe(Event::InitApply(report(node))));
            }
            reports.observe(Event::InitDone)
        };
        assert!(relist(&["w1"]), "its standby is Ready again");
        assert!(!relist(&["w1"]));
        assert!(relist(&["w1", "w2"]));
        assert!(reports.observe(Event::Delete(report("w2"))));
        assert!(!reports.observe(Event::Delete(report("w2"))));
    }

    #[test]
    fn a_revision_above_the_one_in_force_starts_a_pass_once() {
        let reports = Reports::default();
        let of = |revision: u64| {
            let mut changed = serde_json::to_value(report("w1")).unwrap();
            changed["revision"] = revision.into();
            serde_json::from_value::<ProxyReport>(changed).unwrap()
        };
        let pool = NodeReport::from(report("w1")).pool;
        reports.observe(Event::Apply(of(3)));
        assert!(
            !reports.observe(Event::Apply(of(9))),
            "what is in force is not known"
        );
        reports.set_in_force(&pool, 7);
        assert!(!reports.observe(Event::Apply(of(9))), "it is no change");
        assert!(!reports.observe(Event::Apply(of(6))));
        assert!(reports.observe(Event::Apply(of(8))));
        assert!(!reports.observe(Event::Apply(of(8))));
        reports.observe(Event::Init);
        reports.observe(Event::InitApply(of(9)));
        assert!(reports.observe(Event::InitDone));
    }

    #[test]
    fn a_proxy_that_comes_to_follow_the_document_in_force_starts_a_pass_once() {
        let reports = Reports::default();
        let of = |revision: u64| {
            let mut changed = serde_json::to_value(report("w1")).unwrap();
            changed["revision"] = revision.into();
            serde_json::from_value::<ProxyReport>(changed).unwrap()
        };
        reports.set_in_force("default", 9);
        reports.observe(Event::Apply(of(7)));
        assert!(!reports.observe(Event::Apply(of(8))));
        assert!(reports.observe(Event::Apply(of(9))));
        assert!(!reports.observe(Event::Apply(of(9))));
    }

    #[test]
    fn what_changes_of_a_member_starts_a_pass_and_counts_do_not() {
        let reports = Reports::default();
        let apply = |change: serde_json::Value| {
            let mut changed = serde_json::to_value(report("w1")).unwrap();
            let mut member = json!({
                "name": "cp1", "address": "10.0.0.1:6443", "health": "Up", "standing": "Draining",
                "lastAnswer": "Verified", "connections": 3, "leavingConnections": 3,
            });
            let fields = change.as_object().unwrap().clone();
            member.as_object_mut().unwrap().extend(fields);
            changed["members"] = json!([member]);
            reports.observe(Event::Apply(serde_json::from_value(changed).unwrap()))
        };
        apply(json!({}));
        assert!(!apply(
            json!({ "connections": 2, "leavingConnections": 2, "lastProbeMilliseconds": 7 })
        ));
        assert!(apply(json!({ "health": "Down" })));
        assert!(apply(json!({})));
        assert!(apply(json!({ "connections": 0, "leavingConnections": 0 })));
        assert!(apply(json!({})));
        assert!(apply(json!({ "standing": "Active", "leavingConnections": 0 })));
        apply(json!({ "health": "Down", "lastError": "no answer" }));
        assert!(!apply(json!({ "health": "Down", "lastError": "no route" })));
        let words = || reports.of("default")[0].members[0].last_error.clone();
        assert_eq!(words(), "no answer", "the status stays as it is");
        apply(json!({ "health": "Unready", "lastError": "refused" }));
        assert_eq!(words(), "refused");
        let certificate = json!({ "state": "Verified", "notAfter": "2027-01-01T00:00:00Z" });
        assert!(apply(json!({ "certificate": certificate })));
        assert!(!apply(json!({ "certificate": certificate, "connections": 4 })));
    }

    #[test]
    fn an_answer_to_a_proxy_is_remembered_once_no_report_tells_of_it_any_more() {
        let reports = Reports::default();
        let answered = |answer: &str| {
            let mut told = serde_json::to_value(report("w1")).unwrap();
            told["members"] = json!([
                { "name": "cp1", "address": "10.0.0.1:6443", "health": "Unready", "lastAnswer": answer },
            ]);
            reports.observe(Event::Apply(serde_json::from_value(told).unwrap()));
        };
        let start = Instant::now();
        let address = SocketAddr::from(([10, 0, 0, 1], 6443));
        let look = |seconds| {
            let fleet = Fleet::of(
                reports.of("default"),
                vec!["w1".to_owned()],
                3,
                "2026-11-29T00:00:01Z".parse().unwrap(),
            );
            let seen = reports.sightings("default", &fleet, start + Duration::from_secs(seconds));
            seen.of(&[address.ip()], address.port())
        };
        answered("Verified");
        assert_eq!((look(0).reachable, look(0).verified_at), (1, Some(start)));
        answered("NoAnswer");
        assert_eq!((look(60).reachable, look(60).verified_at), (0, Some(start)));
        reports.forget("default");
        assert_eq!(look(60).verified_at, None);
    }

    #[test]
    fn a_report_of_an_earlier_release_is_read_and_what_a_later_one_adds_is_left() {
        let text = json!({
            "metadata": { "name": "default.w1" },
            "poolName": "default", "nodeName": "w1", "revision": 5, "observedTime": "2026-11-29T00:00:00Z",
            "aFieldOfALaterRelease": { "a": [1] },
        });
        let report = NodeReport::from(serde_json::from_value::<ProxyReport>(text).unwrap());
        assert_eq!((report.revision, report.template.as_str()), (5, ""));
        assert_eq!(report.standby, StandbyState::Absent);
        assert!(report.members.is_empty() && report.troubles.is_empty());
    }

    #[test]
    fn each_revision_is_told_once_with_a_node() {
        let of = |node: &str, revision| {
            Arc::new(NodeReport {
                revision,
                ..report(node).into()
            })
        };
        let told = told(&[of("w1", 7), of("w2", 7), of("w3", 9)]);
        let expected = [
            ("the report of node w1".into(), 7),
            ("the report of node w3".into(), 9),
        ];
        assert_eq!(told, expected);
    }
}
