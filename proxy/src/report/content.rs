//! What a report says, and which of it counts as a change. Pure.

use std::collections::{BTreeMap, BTreeSet};

use trivet_crds::report::{
    CertificateState, LastAnswer, ListenerState, MAX_LISTENERS, MAX_WARNINGS, ProxyRole, ReportContent,
    ReportedHealth, ReportedListener, ReportedMember, ReportedStanding, ReportedWarning, StandbyState,
};

use super::{
    bounds::{count, short},
    elsewhere::Held,
    idle::rests,
    members::{members, overview, summary},
    usage::{Marks, Usage},
};
use crate::status::{ListenerStatus, Status};

/// What a report says about the process besides its status.
#[derive(Clone, Debug)]
pub(super) struct Process {
    /// Whether it is the one that serves.
    pub(super) serves: bool,
    /// Whether another one can take over.
    pub(super) standby: StandbyState,
    /// The hash of its template.
    pub(super) template: String,
}

impl Default for Process {
    /// One that serves alone.
    fn default() -> Self {
        Self {
            serves: true,
            standby: StandbyState::Absent,
            template: String::new(),
        }
    }
}

/// The report; none while another process serves, or before the first document. `elsewhere` are the connections that other
/// processes of the node have, and those of extra listeners. The time is added when it is written.
pub(super) fn content(
    status: &Status,
    process: &Process,
    usage: Usage,
    elsewhere: &[Held],
) -> Option<ReportContent> {
    let document = status.document.as_ref().filter(|_| process.serves)?;
    let members = members(&status.upstreams, elsewhere);
    let mut told = BTreeSet::new();
    Some(ReportContent {
        pool_name: document.pool.clone(),
        node_name: status.node.clone(),
        proxy_version: status.version.clone(),
        template: process.template.clone(),
        revision: document.revision,
        role: ProxyRole::Serving,
        standby: process.standby,
        listeners: status
            .listeners
            .iter()
            .filter(|listener| !is_skipped(listener))
            .take(MAX_LISTENERS)
            .map(listener)
            .collect(),
        members_summary: summary(&members),
        members_overview: overview(&members),
        members,
        connections: count(status.clients.open),
        // Of more than one look.
        idle_seconds: 0,
        open_files: usage.open_files,
        memory_mebibytes: usage.memory_mebibytes,
        warnings: status
            .warnings
            .iter()
            // The API knows one warning for each reason.
            .filter(|warning| told.insert(warning.reason.as_str()))
            .take(MAX_WARNINGS)
            .map(|warning| ReportedWarning {
                reason: warning.reason.clone(),
                message: short(&warning.message),
            })
            .collect(),
        observed_time: String::new(),
    })
}

/// What makes a report worth writing: all but the counts, the messages of members, the durations and the time. Of files and
/// memory only what connections do not explain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gist {
    document: (String, u64),
    standby: StandbyState,
    /// With the message: a port is at first not bound yet, and then taken by a program that is to be named soon.
    listeners: BTreeMap<String, (ListenerState, String)>,
    members: BTreeMap<String, GistOfMember>,
    members_summary: String,
    /// With the message, which changes when the cause does, as from a full disk to one that is read-only.
    warnings: Vec<(String, String)>,
    /// Whether it has had no client for a while.
    rests: bool,
    marks: Marks,
}

/// The gist of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
struct GistOfMember {
    health: ReportedHealth,
    standing: Option<ReportedStanding>,
    last_answer: Option<LastAnswer>,
    has_connections: bool,
    has_leaving: bool,
    /// With the end of its validity: a new one has another.
    certificate: Option<(CertificateState, String, Vec<String>)>,
}

impl GistOfMember {
    fn of(member: &ReportedMember) -> Self {
        Self {
            health: member.health,
            standing: member.standing,
            last_answer: member.last_answer,
            has_connections: member.connections > 0,
            has_leaving: member.leaving_connections > 0,
            certificate: member.certificate.as_ref().map(|certificate| {
                let uncovered = certificate.uncovered_addresses.clone();
                (certificate.state, certificate.not_after.clone(), uncovered)
            }),
        }
    }
}

/// The gist of a report.
pub(super) fn gist(report: &ReportContent, marks: Marks) -> Gist {
    Gist {
        marks,
        document: (report.pool_name.clone(), report.revision),
        standby: report.standby,
        rests: rests(report.idle_seconds),
        listeners: report
            .listeners
            .iter()
            .map(|listener| {
                let state = (listener.state, listener.message.clone());
                (listener.address.clone(), state)
            })
            .collect(),
        members: report
            .members
            .iter()
            .map(|member| (member.name.clone(), GistOfMember::of(member)))
            .collect(),
        members_summary: report.members_summary.clone(),
        warnings: report
            .warnings
            .iter()
            .map(|warning| (warning.reason.clone(), warning.message.clone()))
            .collect(),
    }
}

/// Whether the proxy skips this listener, because the node lacks its address: no client can connect there.
fn is_skipped(listener: &ListenerStatus) -> bool {
    !listener.bound && listener.fault.is_none()
}

fn listener(listener: &ListenerStatus) -> ReportedListener {
    ReportedListener {
        address: listener.address.clone(),
        listener_name: listener.name.clone(),
        state: if listener.fault.is_none() {
            ListenerState::Listening
        } else {
            ListenerState::Failed
        },
        message: listener.fault.as_deref().map(short).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use trivet_crds::report::MAX_MESSAGE;

    use super::*;

    fn upstream(member: &str, state: &str, connections: u64, standing: &str) -> Value {
        json!({
            "member": member, "address": "10.0.0.1:6443", "addresses": ["10.0.0.1:6443"], "state": state,
            "reason": "Silent", "reasonMeans": "", "stateMilliseconds": 1, "connections": connections,
            "standing": standing, "proven": true, "suspect": false, "effect": "", "wayBack": "", "goodAnswers": 0,
            "goodAnswersWanted": 1, "silentQuestions": 0, "silentQuestionsTolerated": 1, "holdDownMilliseconds": 0,
            "evidence": [],
        })
    }

    fn status(upstreams: Value) -> Status {
        serde_json::from_value(json!({
            "version": "0.1.0", "node": "w1",
            "document": { "pool": "default", "revision": 7, "hash": "", "source": "Watch", "ageMilliseconds": 1 },
            "listeners": [
                { "address": "127.0.0.1:7443", "bound": true },
                { "address": "[::1]:7443", "bound": false, "fault": "haproxy has the port" },
            ],
            "warnings": [{ "reason": "CacheUnwritable", "message": "m".repeat(2000), "ageMilliseconds": 1 }],
            "clients": { "open": 5, "limit": 100 },
            "upstreams": upstreams,
        }))
        .unwrap()
    }

    fn report(upstreams: Value) -> ReportContent {
        content(&status(upstreams), &Process::default(), Usage::default(), &[]).unwrap()
    }

    #[test]
    fn a_report_says_what_the_node_reaches_and_what_is_wrong() {
        let report = report(json!([
            upstream("cp1", "Up", 3, "Active"),
            upstream("cp2", "Down", 0, "Active"),
            upstream("cp3", "Up", 1, "Removed"),
        ]));
        assert_eq!(report.members_summary, "1/2");
        assert_eq!(report.connections, 5);
        let errors: Vec<_> = report
            .members
            .iter()
            .map(|member| member.last_error.as_str())
            .collect();
        assert_eq!(errors, ["", "Silent", ""]);
        let listeners: Vec<_> = report.listeners.iter().map(|listener| listener.state).collect();
        assert_eq!(listeners, [ListenerState::Listening, ListenerState::Failed]);
        assert_eq!(report.listeners[1].message, "haproxy has the port");
        assert_eq!(report.warnings[0].message.len(), MAX_MESSAGE);
    }

    #[test]
    fn who_does_not_serve_or_has_no_document_reports_nothing() {
        let standby = Process {
            serves: false,
            ..Process::default()
        };
        assert!(content(&status(json!([])), &standby, Usage::default(), &[]).is_none());
        let mut without = status(json!([]));
        without.document = None;
        assert!(content(&without, &Process::default(), Usage::default(), &[]).is_none());
    }

    #[test]
    fn a_listener_whose_address_the_node_lacks_is_not_reported_as_listening() {
        let mut lacking = status(json!([]));
        lacking.listeners[1].fault = None;
        let report = content(&lacking, &Process::default(), Usage::default(), &[]).unwrap();
        let addresses: Vec<_> = report
            .listeners
            .iter()
            .map(|listener| listener.address.as_str())
            .collect();
        assert_eq!(addresses, ["127.0.0.1:7443"]);
    }

    #[test]
    fn a_count_is_no_change_but_the_first_connection_is() {
        let with = |state, connections| {
            gist(
                &report(json!([upstream("cp1", state, connections, "Active")])),
                Marks::default(),
            )
        };
        assert_eq!(with("Up", 3), with("Up", 9));
        assert_ne!(with("Up", 0), with("Up", 1));
        assert_ne!(with("Up", 1), with("Unready", 1));
        let ready = Process {
            standby: StandbyState::Ready,
            ..Process::default()
        };
        let mut named = report(json!([]));
        named.listeners[1].message = "another program has the port".to_owned();
        assert_ne!(
            gist(&named, Marks::default()),
            gist(&report(json!([])), Marks::default())
        );
        let idle = |idle_seconds| {
            let report = ReportContent {
                idle_seconds,
                ..report(json!([]))
            };
            gist(&report, Marks::default())
        };
        assert_ne!(idle(59), idle(60));
        assert_eq!(idle(60), idle(900));
        let other = content(&status(json!([])), &ready, Usage::default(), &[]).unwrap();
        assert_ne!(
            gist(&other, Marks::default()),
            gist(&report(json!([])), Marks::default())
        );
        let mut later = report(json!([]));
        later.revision += 1;
        assert_ne!(
            gist(&later, Marks::default()),
            gist(&report(json!([])), Marks::default())
        );
        let mut more = report(json!([]));
        (more.open_files, more.memory_mebibytes) = (900, 100);
        assert_eq!(
            gist(&more, Marks::default()),
            gist(&report(json!([])), Marks::default())
        );
    }
}
