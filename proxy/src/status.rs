//! The status of the proxy: one JSON resource, from which `trivet-proxy status` and `trivet-proxy explain` make their
//! tables.
//!
//! Within a major release fields are only added. The texts of `reasonMeans`, `effect` and `wayBack` are for people and
//! may change.

mod account;
mod layout;
mod overview;
mod prose;

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use trivet_crds::{
    report::{CertificateState, MAX_UNCOVERED, ReportedCertificate},
    wire::Member,
};

pub use self::{account::account, overview::overview};
use crate::{
    balance::{
        self, Standing, View,
        health::State,
        place::{self, Distance},
    },
    clock,
    document::{Documents, InForce},
    handover::inquiry::Processes,
    listener::{Listeners, holding::Holding},
    readiness::Readiness,
    settings::Settings,
    trust::{CertificateStatus, Dates},
    upstream::{Origin, Run, Shown, Upstreams},
    warnings::Warnings,
};

/// A proxy at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The version of this program.
    pub version: String,
    /// The name of its node.
    pub node: String,
    /// The zone of its node; empty if unknown.
    #[serde(default)]
    pub zone: String,
    /// Why it is not ready; absent if it is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_ready_because: Option<String>,
    /// Lasting problems that an administrator should repair, such as a cache that cannot be written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<WarningStatus>,
    /// The document in force; absent until there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<DocumentStatus>,
    /// The addresses of the document's listeners, and whether they are bound.
    pub listeners: Vec<ListenerStatus>,
    /// Which process of the node serves and which stand by. The command asks the one that serves, so it is absent in the
    /// proxy's own answer, and where no process does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handover: Option<Processes>,
    /// Its clients.
    pub clients: ClientsStatus,
    /// Its upstreams.
    pub upstreams: Vec<UpstreamStatus>,
    /// The extra listeners with the servers behind them, those too that have left the document and whose connections drain.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extra_listeners: Vec<ExtraListenerStatus>,
}

/// An extra listener: other servers of the members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExtraListenerStatus {
    /// Its name.
    pub name: String,
    /// TLS or HTTPS; absent once it has left the document.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Its servers, each as the upstream of its member.
    pub upstreams: Vec<UpstreamStatus>,
}

/// A lasting problem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WarningStatus {
    /// One word: CacheUnreadable, CacheUnwritable, NoMemberAnswers, SocketNotInDocument, MetricsUnavailable, FilesExhausted, ConfigMapDenied, NoServerAnswers, ListenerKindUnknown, OlderRevision, SameRevision or OtherAuthority.
    pub reason: String,
    /// What is wrong, and the remedy; for people.
    pub message: String,
    /// How long it has lasted.
    pub age_milliseconds: u64,
}

/// The document in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DocumentStatus {
    /// The name of its pool.
    pub pool: String,
    /// Its revision.
    pub revision: u64,
    /// The hash of its content.
    pub hash: String,
    /// Which members it prefers among those in the same state: PreferLocal, PreferSameZone or Any.
    #[serde(default)]
    pub locality: String,
    /// The template of the pods that wait on this node until the rollout reaches it; absent if none do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_template: Option<String>,
    /// What brought it: File, Cache, Watch or Seed.
    pub source: String,
    /// How long it has been in force in this process.
    pub age_milliseconds: u64,
}

/// An address of a listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerStatus {
    /// IP and port.
    pub address: String,
    /// Its name in the document.
    #[serde(default)]
    pub name: String,
    /// Whether the proxy listens on it.
    pub bound: bool,
    /// What is wrong with it, if anything, such as the program that has taken it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// The clients of the proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientsStatus {
    /// Connections that are open or being opened.
    pub open: u64,
    /// The most there may be at once.
    pub limit: u64,
}

/// One upstream. Its state is that of its best path; its connections are those of all its paths.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpstreamStatus {
    /// The member's name.
    pub member: String,
    /// The name of the extra listener whose server of the member this is; absent for its apiserver.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub listener: String,
    /// The address of its best path.
    pub address: String,
    /// All its addresses. One that has left the document stays until its last connection has ended.
    pub addresses: Vec<String>,
    /// Its paths: for each address its health and its connections.
    #[serde(default)]
    pub paths: Vec<PathStatus>,
    /// Up, Unready or Down.
    pub state: String,
    /// Why, in one word.
    pub reason: String,
    /// Why, in a sentence.
    pub reason_means: String,
    /// How long it has been in this state.
    pub state_milliseconds: u64,
    /// Its connections, attempts included.
    pub connections: u64,
    /// Active, Draining, Removed, LastResort or Disabled.
    pub standing: String,
    /// Local (on this node), SameZone or Elsewhere. The document's locality says whether it matters.
    #[serde(default)]
    pub distance: String,
    /// Whether this node has had a verified answer from it.
    pub proven: bool,
    /// Whether a client waited too long for it since its last good answer.
    pub suspect: bool,
    /// What its state means for connections.
    pub effect: String,
    /// What would change its state.
    pub way_back: String,
    /// Good answers in a row so far.
    pub good_answers: u32,
    /// Good answers in a row that make it Up again.
    pub good_answers_wanted: u32,
    /// Silent probes in a row so far.
    pub silent_questions: u32,
    /// Silent probes in a row that make it Down.
    pub silent_questions_tolerated: u32,
    /// The rest of its hold-down, during which good answers do not make it Up.
    pub hold_down_milliseconds: u64,
    /// The outcome of its last probe; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_probe: Option<Observation>,
    /// The certificate that its best path has shown last; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<ReportedCertificate>,
    /// The latest outcomes of probes and clients, the latest first.
    pub evidence: Vec<Observation>,
}

/// One path: an address of a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PathStatus {
    /// IP and port.
    pub address: String,
    /// Up, Unready or Down.
    pub state: String,
    /// Why, in one word.
    pub reason: String,
    /// How long it has been in this state.
    pub state_milliseconds: u64,
    /// Its connections, attempts included.
    pub connections: u64,
    /// Active, Draining, Removed, LastResort or Disabled.
    pub standing: String,
    /// Whether this node has had a verified answer from it.
    pub proven: bool,
    /// Whether a client waited too long for it since its last good answer.
    pub suspect: bool,
    /// The outcome of its last probe; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_probe: Option<Observation>,
}

/// An outcome, once or several times in a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Observation {
    /// The address that it is about.
    #[serde(default)]
    pub address: String,
    /// What brought it: Probe or Client.
    pub origin: String,
    /// The outcome, in one word.
    pub outcome: String,
    /// The outcome in detail; empty if it is good.
    pub detail: String,
    /// How many times in a row.
    pub times: u32,
    /// Time since the first of them.
    pub first_milliseconds_ago: u64,
    /// Time since the last of them.
    pub last_milliseconds_ago: u64,
    /// The duration of the last one, if it had an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_microseconds: Option<u64>,
}

/// The parts of a running proxy that make up its status.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The documents.
    pub documents: Arc<Documents>,
    /// The upstreams.
    pub upstreams: Arc<Upstreams>,
    /// The listeners.
    pub listeners: Arc<Listeners>,
    /// Its readiness.
    pub readiness: Arc<Readiness>,
    /// The lasting problems.
    pub warnings: Arc<Warnings>,
}

impl Subject {
    /// The proxy as it is now.
    pub fn status(&self) -> Status {
        let now = Instant::now();
        let place = self.upstreams.place();
        let in_force = self.documents.in_force();
        let settings = in_force.as_ref().map(|in_force| in_force.settings.as_ref());
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: place.node.clone(),
            zone: place.zone.clone(),
            not_ready_because: self.readiness.objection(),
            warnings: self.warnings(now),
            document: in_force
                .as_ref()
                .map(|in_force| DocumentStatus::new(in_force, &place.node, now)),
            listeners: self.listeners(settings),
            handover: None,
            clients: ClientsStatus {
                open: count(self.listeners.connections()),
                limit: self.listeners.limit().into(),
            },
            upstreams: settings.map_or_else(Vec::new, |settings| upstreams(&self.upstreams, settings, now)),
            extra_listeners: settings.map_or_else(Vec::new, |settings| self.extra_listeners(settings, now)),
        }
    }

    fn extra_listeners(&self, settings: &Settings, now: Instant) -> Vec<ExtraListenerStatus> {
        let extras = self.listeners.extras().upstreams().into_iter();
        let told = extras.map(|(name, of_listener)| ExtraListenerStatus {
            kind: settings
                .extra_listener(&name)
                .map(|listener| listener.kind.as_str().to_owned())
                .unwrap_or_default(),
            upstreams: upstreams(&of_listener, settings, now),
            name,
        });
        told.collect()
    }

    fn warnings(&self, now: Instant) -> Vec<WarningStatus> {
        let warnings = self.warnings.all().into_iter();
        let told = warnings.map(|warning| WarningStatus {
            reason: warning.reason.to_owned(),
            message: warning.message,
            age_milliseconds: milliseconds(now.saturating_duration_since(warning.since)),
        });
        told.collect()
    }

    fn listeners(&self, settings: Option<&Settings>) -> Vec<ListenerStatus> {
        let holdings = self.listeners.holdings();
        let wanted = settings
            .into_iter()
            .flat_map(|settings| &settings.document.listeners);
        wanted
            .flat_map(|listener| listener.sockets().map(move |address| (listener, address)))
            .map(|(listener, address)| ListenerStatus {
                address: address.to_string(),
                name: listener.name.clone(),
                bound: holdings.get(&address).is_some_and(Holding::is_bound),
                fault: holdings.get(&address).and_then(Holding::fault),
            })
            .collect()
    }
}

/// The upstreams as this proxy sees them, each with its paths.
fn upstreams(of_listener: &Upstreams, settings: &Settings, now: Instant) -> Vec<UpstreamStatus> {
    let mut members: Vec<Vec<(View, Vec<Run>)>> = Vec::new();
    for path in of_listener.with_evidence() {
        let is_of_member = |paths: &&mut Vec<(View, Vec<Run>)>| {
            paths
                .first()
                .is_some_and(|(first, _)| first.key.member == path.0.key.member)
        };
        match members.iter_mut().find(is_of_member) {
            Some(paths) => paths.push(path),
            None => members.push(vec![path]),
        }
    }
    let answers = |(view, _): &(View, Vec<Run>)| {
        view.standing == Standing::Active && view.progress.passes > 0 && view.state != State::Down
    };
    let certificates = of_listener.certificates();
    let told = members.iter().enumerate().filter_map(|(index, paths)| {
        let view = balance::best(paths.iter().map(|(view, _)| view))?;
        let mut others = members.iter().enumerate().filter(|(other, _)| *other != index);
        let scene = prose::Scene {
            view,
            policy: settings.policy,
            other_answers: others.any(|(_, paths)| paths.iter().any(answers)),
            now,
        };
        Some(UpstreamStatus {
            listener: of_listener.listener_name().unwrap_or_default().to_owned(),
            certificate: certificates.get(&view.id).map(certificate),
            ..UpstreamStatus::new(&scene, distance(of_listener, settings, view), paths)
        })
    });
    told.collect()
}

/// The distance of a member of the document; Elsewhere for one that is no longer in it.
fn distance(of_listener: &Upstreams, settings: &Settings, view: &View) -> Distance {
    let mut members = settings.document.members.iter();
    let is_at = |member: &Member| member.addresses.contains(&view.key.address.ip());
    let member = members.find(|member| member.name == view.key.member && is_at(member));
    member
        .map(|member| of_listener.place().distance(member))
        .unwrap_or_default()
}

impl DocumentStatus {
    fn new(in_force: &InForce, node: &str, now: Instant) -> Self {
        let document = &in_force.settings.document;
        let target = &document.rollout;
        Self {
            pool: document.pool.clone(),
            revision: document.revision,
            hash: document.hash.clone(),
            locality: place::locality_as_str(document.balancing.locality).to_owned(),
            waiting_template: target.is_closed_at(node).then(|| target.template.clone()),
            source: in_force.source.as_str().to_owned(),
            age_milliseconds: milliseconds(now.saturating_duration_since(in_force.since)),
        }
    }
}

impl UpstreamStatus {
    fn new(scene: &prose::Scene<'_>, distance: Distance, paths: &[(View, Vec<Run>)]) -> Self {
        let prose::Scene {
            view, policy, now, ..
        } = scene;
        let best = PathStatus::new(view, runs_of(paths, view), *now);
        let mut by_preference: Vec<_> = paths.iter().collect();
        by_preference.sort_by_key(|(path, _)| (path.id != view.id, path.preference));
        let paths: Vec<_> = by_preference
            .iter()
            .map(|(path, runs)| PathStatus::new(path, runs, *now))
            .collect();
        let mut evidence: Vec<_> = by_preference
            .iter()
            .flat_map(|(path, runs)| runs.iter().map(|run| Observation::new(path, run, *now)))
            .collect();
        evidence.sort_by_key(|found| found.last_milliseconds_ago);
        let progress = &view.progress;
        Self {
            member: view.key.member.clone(),
            listener: String::new(),
            address: best.address,
            addresses: paths.iter().map(|path| path.address.clone()).collect(),
            connections: paths.iter().map(|path| path.connections).sum(),
            paths,
            state: best.state,
            reason: best.reason,
            reason_means: prose::reason(view.reason).to_owned(),
            state_milliseconds: best.state_milliseconds,
            standing: best.standing,
            distance: distance.as_str().to_owned(),
            proven: best.proven,
            suspect: best.suspect,
            effect: scene.effect(),
            way_back: scene.way_back(),
            good_answers: progress.passes,
            good_answers_wanted: policy.success_threshold,
            silent_questions: progress.silent,
            silent_questions_tolerated: policy.failure_threshold,
            hold_down_milliseconds: milliseconds(scene.held()),
            last_probe: best.last_probe,
            certificate: None,
            evidence,
        }
    }
}

fn certificate(shown: &Shown) -> ReportedCertificate {
    let Shown { status, certificate } = shown;
    ReportedCertificate {
        state: match status {
            CertificateStatus::Verified => CertificateState::Verified,
            CertificateStatus::OutOfDate(Dates::Expired) => CertificateState::Expired,
            CertificateStatus::OutOfDate(Dates::NotYetValid) => CertificateState::NotYetValid,
            CertificateStatus::Untrusted(_) => CertificateState::Untrusted,
        },
        not_after: certificate.not_after.map(clock::rfc3339).unwrap_or_default(),
        uncovered_addresses: certificate
            .uncovered
            .iter()
            .take(MAX_UNCOVERED)
            .map(ToString::to_string)
            .collect(),
    }
}

fn runs_of<'a>(paths: &'a [(View, Vec<Run>)], view: &View) -> &'a [Run] {
    let found = paths.iter().find(|(path, _)| path.id == view.id);
    found.map_or(&[], |(_, runs)| runs)
}

impl PathStatus {
    fn new(view: &View, runs: &[Run], now: Instant) -> Self {
        let last_probe = runs.iter().find(|run| run.origin == Origin::Probe);
        Self {
            address: view.key.address.to_string(),
            state: view.state.as_str().to_owned(),
            reason: view.reason.as_str().to_owned(),
            state_milliseconds: milliseconds(now.saturating_duration_since(view.progress.since)),
            connections: count(view.connections),
            standing: view.standing.as_str().to_owned(),
            proven: view.proven,
            suspect: view.suspect,
            last_probe: last_probe.map(|run| Observation::new(view, run, now)),
        }
    }
}

impl Observation {
    fn new(view: &View, run: &Run, now: Instant) -> Self {
        let ago = |then: Instant| milliseconds(now.saturating_duration_since(then));
        let microseconds = |latency: Duration| u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        Self {
            address: view.key.address.to_string(),
            origin: run.origin.as_str().to_owned(),
            outcome: run.outcome.to_owned(),
            detail: run.detail.clone(),
            times: run.times,
            first_milliseconds_ago: ago(run.first),
            last_milliseconds_ago: ago(run.last),
            latency_microseconds: run.latency.map(microseconds),
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
