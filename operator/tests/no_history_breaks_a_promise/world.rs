//! A cluster with its operator: passes read what the API has, as `observe` does, and write into it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Node, PodTemplateSpec};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::watcher::Event as Watched;
use serde_json::{Value, json};
use tokio::time::Instant;
use trivet_crds::pool::{ApiserverPool, Discovery, DiscoveryPolicy};
use trivet_crds::{POOL_LABEL, TEMPLATE_LABEL, wire};
use trivet_operator::cli::PullPolicy;
use trivet_operator::health::{Answer, Healths};
use trivet_operator::observe::in_force::current;
use trivet_operator::observe::proxies::Uncounted;
use trivet_operator::observe::rivals::{precedence, rivals, serving};
use trivet_operator::plan::bootstrap::{Availability, BootstrapFacts, Writer};
use trivet_operator::plan::endpoints::{self, Endpoint};
use trivet_operator::plan::facts::Discovered;
use trivet_operator::plan::masters::{Origin, masters};
use trivet_operator::plan::scope::in_place::InPlace;
use trivet_operator::plan::scope::{Placement, Scope};
use trivet_operator::plan::wave::{
    Aside, Newcomer, NodeFacts, Record, Reported, Template as InPlaceTemplate, WaveFacts,
};
use trivet_operator::plan::{Facts, Member, Memory, Plan, document, last_good, members, plan};
use trivet_operator::pools::StoredPool;
use trivet_operator::render::daemon_set::{ROLLOUT, Template};
use trivet_operator::render::{Desired, Settings, bootstrap, render};
use trivet_operator::report::status::{Seen, status};
use trivet_operator::reports::fleet::Fleet;
use trivet_operator::reports::{Reports, told};

use crate::api_server::ApiServer;
use crate::edits::{Field, edit};
use crate::hosts::{Host, PORT, Pod, report, slices};
use crate::names::Names;
use crate::policy::{IMAGE, Policy};

/// Unix seconds of some time in 2026.
const START: u64 = 1_790_000_000;

/// A policy of discovery that no release so far knows.
pub(crate) const UNREADABLE: &str = "Guess";

/// The bundle of the cluster's authorities; nothing here verifies by it.
const AUTHORITIES: &str = "PEM";

const HOSTS: u8 = 6;

/// After so many passes at one moment nothing is left to be written.
const PASSES_TO_REST: usize = 6;

/// The cluster.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fault of its own, and any may come with any other"
)]
pub(crate) struct World {
    pub(crate) api: ApiServer,
    policy: Policy,
    pub(crate) fields: Vec<Field>,
    pub(crate) settings: Settings,
    pub(crate) pool: ApiserverPool,
    /// The pool as it is stored, without its status.
    stored: Value,
    /// Whether the pool as it is stored has a value that this release cannot read.
    pub(crate) is_unreadable: bool,
    pub(crate) others: Vec<StoredPool>,
    pub(crate) map: Option<ConfigMap>,
    pub(crate) daemon_set: Option<DaemonSet>,
    pub(crate) writer: Option<DaemonSet>,
    is_writer_done: bool,
    /// The templates of all generations of the DaemonSet, by hash.
    revisions: BTreeMap<String, PodTemplateSpec>,
    pub(crate) hosts: Vec<Host>,
    pub(crate) resolved: Result<Vec<IpAddr>, String>,
    pub(crate) are_nodes_read: bool,
    pub(crate) are_endpoints_read: bool,
    /// Whether the operator's pod reaches no apiserver but the one that it talks to.
    pub(crate) is_blind: bool,
    reports: Reports,
    pub(crate) now: Instant,
    seconds: u64,
    healths: Healths,
    memory: Memory,
    version: u64,
    names: Names,
}

/// What a pass has seen and done.
pub(crate) struct Passed {
    pub(crate) facts: Facts,
    pub(crate) plan: Plan,
    pub(crate) before: Before,
    /// What it has written.
    pub(crate) wrote: Vec<&'static str>,
}

/// What was stored before a pass.
pub(crate) struct Before {
    pub(crate) daemon_set: Option<DaemonSet>,
    pub(crate) writer: Option<DaemonSet>,
    /// The templates that the proxies have had so far.
    pub(crate) templates: BTreeSet<String>,
    pub(crate) status: Option<trivet_crds::pool::ApiserverPoolStatus>,
}

impl World {
    /// A cluster without a pool's objects, whose pool was created with these edits of the defaults. Those that the API server
    /// refuses were not made.
    pub(crate) fn created(edits: &[(usize, usize, usize)]) -> Self {
        let api = ApiServer::new();
        let fields = crate::edits::fields(&api);
        let pool = |spec: &Value| {
            json!({
                "apiVersion": "trivet.dev/v1alpha1", "kind": "ApiserverPool", "spec": spec,
                "metadata": { "name": "default", "uid": "1", "generation": 1, "creationTimestamp": "2026-09-01T00:00:00Z" },
            })
        };
        let mut spec = json!({});
        for (field, value, entry) in edits {
            let mut edited = spec.clone();
            let field = &fields[field % fields.len()];
            edit(
                &mut edited,
                &field.path,
                &field.values[value % field.values.len()],
                *entry,
            );
            if api.admit(&pool(&edited), None).is_ok() {
                spec = edited;
            }
        }
        let stored = api.admit(&pool(&spec), None).unwrap();
        Self {
            pool: serde_json::from_value(stored.clone()).unwrap(),
            stored,
            api,
            policy: Policy::new(),
            fields,
            settings: settings(),
            is_unreadable: false,
            others: Vec::new(),
            map: None,
            daemon_set: None,
            writer: None,
            is_writer_done: false,
            revisions: BTreeMap::new(),
            hosts: (1..=HOSTS).map(Host::new).collect(),
            resolved: Ok(vec![IpAddr::from([10, 0, 0, 4])]),
            are_nodes_read: true,
            are_endpoints_read: true,
            is_blind: false,
            reports: read_reports(),
            now: Instant::now(),
            seconds: START,
            healths: Healths::default(),
            memory: Memory::default(),
            version: 0,
            names: Names::new(),
        }
    }

    /// Somebody edits the spec. Whether the API server takes it.
    pub(crate) fn edit(&mut self, change: impl FnOnce(&mut Value)) -> bool {
        let mut new = self.stored.clone();
        change(&mut new["spec"]);
        let Ok(mut new) = self.api.admit(&new, Some(&self.stored)) else {
            return false;
        };
        if new["spec"] != self.stored["spec"] {
            let generation = self.pool.metadata.generation.unwrap() + 1;
            new["metadata"]["generation"] = json!(generation);
            self.store(new);
        }
        true
    }

    /// Somebody sets a value that this release cannot read, or takes it away.
    pub(crate) fn set_unreadable(&mut self, is_unreadable: bool) {
        if self.is_unreadable != is_unreadable {
            self.is_unreadable = is_unreadable;
            let mut new = self.stored.clone();
            new["metadata"]["generation"] = json!(self.pool.metadata.generation.unwrap() + 1);
            self.store(new);
        }
    }

    /// A pass over a pool that cannot be read: it says so, and says it once.
    pub(crate) fn tell_unreadable(&mut self) {
        let before = serde_json::to_value(&self.pool.status).unwrap();
        let told = self.patched(&before);
        let mut told = told.unwrap_or_else(|| before.clone());
        assert_eq!(self.patched(&told), None, "it is said twice");
        self.pool.status = serde_json::from_value(told.clone()).unwrap();
        self.memory = std::mem::take(&mut self.memory).after_a_gap();
        let found = self.api.violations_in_status(&told);
        assert!(found.is_empty(), "{found:?}");
        // What else the status says stays.
        for field in ["conditions", "observedGeneration"] {
            told[field] = before[field].clone();
        }
        let changed: Vec<_> = told
            .as_object()
            .unwrap()
            .iter()
            .filter(|(_, value)| !value.is_null())
            .collect();
        let stood = before.as_object().cloned().unwrap_or_default();
        assert_eq!(changed, stood.iter().collect::<Vec<_>>());
    }

    /// The status once it says that the pool cannot be read; none if it says so already.
    fn patched(&self, status: &Value) -> Option<Value> {
        let mut object = self.stored.clone();
        object["spec"]["discovery"]["policy"] = json!(UNREADABLE);
        object["metadata"]["generation"] = json!(self.pool.metadata.generation);
        object["status"] = status.clone();
        let StoredPool::Unreadable(pool) = StoredPool::read(object).unwrap() else {
            panic!("it is read");
        };
        let patch = pool.patch(self.timestamp())?;
        let mut status = status.clone();
        for (field, value) in patch["status"].as_object().unwrap() {
            status[field] = value.clone();
        }
        Some(status)
    }

    /// Sets an annotation of the pool, or removes it.
    pub(crate) fn annotate(&mut self, name: &str, value: Option<String>) {
        let mut new = self.stored.clone();
        let annotations = &mut new["metadata"]["annotations"];
        if annotations.is_null() {
            *annotations = json!({});
        }
        match value {
            Some(value) => annotations[name] = json!(value),
            None => drop(annotations.as_object_mut().unwrap().remove(name)),
        }
        self.store(new);
    }

    fn store(&mut self, new: Value) {
        let status = self.pool.status.take();
        self.pool = serde_json::from_value(new.clone()).unwrap();
        self.pool.status = status;
        self.stored = new;
    }

    /// Another operator goes on: what was in memory only is lost.
    pub(crate) fn restart(&mut self) {
        self.memory = Memory::default();
        self.healths = Healths::default();
        self.names.restart();
        let known: Vec<_> = self.reports.all();
        self.reports = read_reports();
        // The reports are in the API.
        for (_, report) in known {
            let host = self.hosts.iter().position(|host| host.name() == report.node);
            if let Some(host) = host {
                self.report(host);
            }
        }
    }

    /// The proxy of a host reports.
    pub(crate) fn report(&mut self, host: usize) {
        let Some(document) = self.document() else { return };
        let host = &self.hosts[host % self.hosts.len()];
        let observed = self.timestamp().to_string();
        let object = report("default", host, &document, &self.hosts, &observed);
        self.reports
            .observe(Watched::Apply(serde_json::from_value(object).unwrap()));
    }

    /// The DaemonSet controller and kubelet make the next step on a host.
    pub(crate) fn roll(&mut self, host: usize) {
        let Some(daemon_set) = &self.daemon_set else {
            return;
        };
        let hash = template_of(daemon_set);
        let gate = self
            .document()
            .map(|document| document.rollout)
            .unwrap_or_default();
        let scope = Scope::in_force(daemon_set).unwrap();
        let now = i64::try_from(self.seconds).unwrap();
        let count = self.hosts.len();
        let host = &mut self.hosts[host % count];
        if !host.has_node || scope.placement(&host.node()) == Placement::Excluded {
            host.pods.clear();
            return;
        }
        let is_closed = gate.template == hash && gate.is_closed_at(&host.name());
        let has_other = host
            .pods
            .iter()
            .any(|pod| pod.template != hash && pod.ready_at.is_some());
        match host.pods.iter_mut().find(|pod| pod.template == hash) {
            None => host.pods.push(Pod {
                template: hash,
                created: now,
                ready_at: None,
            }),
            Some(pod) if pod.ready_at.is_none() => {
                if !(is_closed && has_other) {
                    pod.ready_at = Some(now);
                }
            }
            Some(_) => host.pods.retain(|pod| pod.template == hash),
        }
    }

    pub(crate) fn finish_writer(&mut self) {
        self.is_writer_done = true;
    }

    pub(crate) fn document(&self) -> Option<wire::Document> {
        current(&self.pool, self.map.as_ref()).document
    }

    /// Lets this time go by.
    pub(crate) fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.seconds += seconds;
    }

    /// Passes at one moment until one of them writes nothing and remembers nothing new: then no later one would, because a pass
    /// depends on nothing else. Returns that one.
    pub(crate) fn settle(&mut self, mut check: impl FnMut(&Self, &Passed)) -> Passed {
        self.probe();
        let mut history = Vec::new();
        for _ in 0..PASSES_TO_REST {
            let memory = self.memory.clone();
            let passed = self.pass();
            check(self, &passed);
            if passed.wrote.is_empty() && memory == self.memory {
                return passed;
            }
            history.push(passed.wrote);
        }
        panic!("writes at rest: {history:?}, {:?}", self.pass().plan);
    }

    /// One pass.
    pub(crate) fn pass(&mut self) -> Passed {
        self.observe_daemon_sets();
        let facts = self.facts();
        let plan = plan(&self.pool, &facts).unwrap();
        let before = Before {
            daemon_set: self.daemon_set.clone(),
            writer: self.writer.clone(),
            templates: self.revisions.keys().cloned().collect(),
            status: self.pool.status.clone(),
        };
        let mut wrote = Vec::new();
        if let Some(rollout) = &plan.rollout {
            let desired = render(rollout, &self.settings).unwrap();
            self.apply(desired, &mut wrote);
        }
        self.memory = plan.memory.clone();
        if self.names.look(&self.pool, &plan, &facts, self.now) {
            wrote.push("names");
        }
        let new = self.status(&plan, &facts);
        if self.pool.status.as_ref() != Some(&new) {
            wrote.push("status");
            self.pool.status = Some(new);
        }
        Passed {
            facts,
            plan,
            before,
            wrote,
        }
    }

    fn apply(&mut self, desired: Desired, wrote: &mut Vec<&'static str>) {
        let Desired {
            config_map,
            daemon_set,
            writer,
        } = desired;
        if let Some(mut map) = config_map {
            let version = self.map.as_ref().and_then(ResourceExt::resource_version);
            assert_eq!(map.metadata.resource_version, version, "an unfenced write");
            self.version += 1;
            map.metadata.resource_version = Some(self.version.to_string());
            let created = self
                .map
                .as_ref()
                .and_then(|map| map.metadata.creation_timestamp.clone());
            let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(self.timestamp());
            map.metadata.creation_timestamp = created.or(Some(now));
            self.map = Some(map);
            wrote.push("ConfigMap");
        }
        if let Some(set) = daemon_set
            && put(&mut self.daemon_set, set)
        {
            let set = self.daemon_set.as_ref().unwrap();
            let template = set.spec.as_ref().unwrap().template.clone();
            admitted(&self.policy, set);
            self.revisions.insert(template_of(set), template);
            wrote.push("DaemonSet");
        }
        if let Some(set) = writer
            && put(&mut self.writer, set)
        {
            admitted(&self.policy, self.writer.as_ref().unwrap());
            self.is_writer_done = false;
            wrote.push("writer");
        }
        self.observe_daemon_sets();
    }

    /// Whether the status tells of names in DNS.
    pub(crate) fn publishes(&self) -> bool {
        self.names.published.is_some()
    }

    /// The DaemonSet controller counts.
    fn observe_daemon_sets(&mut self) {
        let Some(set) = &mut self.daemon_set else { return };
        let hash = template_of(set);
        let scope = Scope::in_force(set).unwrap();
        let placed = |host: &&Host| host.has_node && scope.placement(&host.node()) == Placement::Placed;
        let count = |is_so: &dyn Fn(&Host) -> bool| {
            self.hosts
                .iter()
                .filter(placed)
                .filter(|host| is_so(host))
                .count()
        };
        let ready = count(&|host| host.is_ready && host.has_ready_pod());
        let counts = json!({
            "currentNumberScheduled": count(&|host| !host.pods.is_empty()), "numberMisscheduled": 0,
            "desiredNumberScheduled": count(&|_| true), "numberReady": ready, "numberAvailable": ready,
            "updatedNumberScheduled": count(&|host| host.pods.iter().any(|pod| pod.template == hash)),
            "observedGeneration": set.metadata.generation,
        });
        set.status = Some(serde_json::from_value(counts).unwrap());
    }

    /// Everything that there is to probe is probed often enough to be believed.
    pub(crate) fn probe(&mut self) {
        self.observe_daemon_sets();
        let facts = self.facts();
        let mut sockets: BTreeSet<SocketAddr> = BTreeSet::new();
        let wanted = members::wanted(&self.pool.spec, &facts).members;
        sockets.extend(wanted.iter().flat_map(Member::sockets));
        sockets.extend(last_good::members(&facts).iter().flat_map(Member::sockets));
        sockets.extend(facts.current.members.iter().flat_map(wire::Member::sockets));
        sockets.extend(facts.endpoints.iter().flatten().map(|endpoint| endpoint.socket));
        let ports = [
            self.pool.spec.discovery.port,
            last_good::discovery(&facts.current).port,
        ];
        for (discovered, port) in [&facts.discovered, &facts.discovered_by_last_good]
            .into_iter()
            .zip(ports)
        {
            let Discovered::Masters(masters) = discovered else {
                continue;
            };
            for master in masters {
                let port = match master.origin {
                    Origin::Node => port,
                    Origin::EndpointSlice { port, .. } => port,
                };
                sockets.extend(master.addresses.iter().map(|ip| SocketAddr::new(*ip, port)));
            }
        }
        for socket in sockets {
            // One lost answer is no news, two are.
            for _ in 0..2 {
                self.healths.observe(socket, self.answer(socket), self.now);
            }
        }
    }

    fn answer(&self, socket: SocketAddr) -> Answer {
        if socket.port() != PORT || self.is_blind {
            return Answer::Silent;
        }
        let answer = self.hosts.iter().find_map(|host| host.answer_at(socket.ip()));
        answer.cloned().unwrap_or(Answer::Silent)
    }

    pub(crate) fn timestamp(&self) -> Timestamp {
        Timestamp::from_second(i64::try_from(self.seconds).unwrap()).unwrap()
    }

    fn nodes(&self) -> Vec<Arc<Node>> {
        let hosts = self
            .hosts
            .iter()
            .filter(|host| host.has_node && self.are_nodes_read);
        hosts.map(Host::node).collect()
    }

    fn discovered(discovery: &Discovery, nodes: &[&Node], endpoints: Option<&[Endpoint]>) -> Discovered {
        match discovery.policy {
            DiscoveryPolicy::None => Discovered::Off,
            DiscoveryPolicy::EndpointSlices => endpoints.map_or(Discovered::Unknown, |endpoints| {
                Discovered::Masters(endpoints::masters(endpoints, nodes))
            }),
            DiscoveryPolicy::Nodes if nodes.is_empty() => Discovered::Unknown,
            DiscoveryPolicy::Nodes => {
                Discovered::Masters(masters(nodes.iter().copied(), &discovery.node_selector))
            }
        }
    }

    fn facts(&self) -> Facts {
        let nodes = self.nodes();
        let by_ref: Vec<_> = nodes.iter().map(AsRef::as_ref).collect();
        let mut current = current(&self.pool, self.map.as_ref());
        let reports = self.reports.of("default");
        current.told.extend(told(&reports));
        let last_good = last_good::discovery(&current);
        let has_discovery = [&self.pool.spec.discovery, &last_good]
            .iter()
            .any(|discovery| discovery.policy != DiscoveryPolicy::None);
        let endpoints = (has_discovery && self.are_endpoints_read && !nodes.is_empty())
            .then(|| endpoints::endpoints(&slices(&self.hosts), &by_ref));
        let scope = self.daemon_set.as_ref().and_then(Scope::in_force);
        let placed = |scope: &Scope| {
            let ready = nodes
                .iter()
                .filter(|node| trivet_operator::api::watch::is_ready(node));
            let placed = ready.filter(|node| scope.placement(node) == Placement::Placed);
            placed.map(|node| node.name_any()).collect::<Vec<_>>()
        };
        let ready = scope.as_ref().map(placed).unwrap_or_default();
        let node_count = u32::try_from(nodes.len()).unwrap();
        let fleet = Fleet::of(reports, ready, node_count, self.timestamp());
        let names = [("api.example.com".to_owned(), self.resolved.clone())];
        let listeners = document::listeners(&self.pool.spec).unwrap();
        let in_force = current.document.as_ref();
        let in_force = in_force.map(|document| document.listeners.as_slice());
        let serving = serving(in_force, self.daemon_set.as_ref(), &listeners);
        let others: Vec<_> = self.others.iter().cloned().map(Arc::new).collect();
        let mut healths = self.healths.clone();
        healths.see(self.reports.sightings("default", &fleet, self.now));
        let asked = wire::Tls {
            ca_bundle: AUTHORITIES.to_owned(),
            server_name: self.pool.spec.health_check.tls_server_name.clone(),
        };
        let healths_by_last_good = last_good::other_tls(&asked, &current).map(|_| healths.clone());
        let with_pods = self.hosts.iter().filter(|host| host.has_ready_pod());
        Facts {
            now: self.now,
            unix_seconds: self.seconds,
            discovered: Self::discovered(&self.pool.spec.discovery, &by_ref, endpoints.as_deref()),
            discovered_by_last_good: Self::discovered(&last_good, &by_ref, endpoints.as_deref()),
            endpoints,
            node_count: Some(node_count).filter(|count| *count > 0),
            resolved: names.into(),
            in_place: InPlace {
                scope,
                nodes: self.are_nodes_read.then(|| with_pods.map(Host::name).collect()),
            },
            precedence: precedence(&self.pool),
            serving,
            rivals: rivals(
                &self.pool,
                &others,
                self.map.as_slice(),
                self.daemon_set.as_slice(),
            ),
            authorities: AUTHORITIES.to_owned(),
            hindrances: Vec::new(),
            template: Template::wanted(&self.pool, &self.settings).hash,
            bootstrap: self.bootstrap_facts(),
            waves: self.wave_facts(current.document.as_ref(), &fleet),
            memory: self.memory.clone(),
            healths,
            healths_by_last_good,
            nodes,
            current,
            fleet,
        }
    }

    fn bootstrap_facts(&self) -> BootstrapFacts {
        let writer = self.writer.as_ref().and_then(|set| {
            let (target, template) = bootstrap::in_place(set)?;
            Some(Writer {
                target,
                template,
                is_done: self.is_writer_done,
            })
        });
        let without = self
            .hosts
            .iter()
            .filter(|host| host.has_node && !host.has_ready_pod());
        BootstrapFacts {
            is_allowed: self.settings.has_node_bootstrap,
            has_pull_secrets: !self.settings.pull_secrets.is_empty(),
            soak: self.settings.standby_soak,
            writer,
            proxies: Availability {
                template: self.daemon_set.as_ref().map(template_of).unwrap_or_default(),
                is_complete: self.is_complete(),
                without: Some(without.map(Host::name).collect()),
            },
        }
    }

    /// Whether every Ready node that should have one has an available proxy of the template in place.
    fn is_complete(&self) -> bool {
        let Some(set) = &self.daemon_set else { return false };
        let (hash, scope) = (template_of(set), Scope::in_force(set).unwrap());
        let placed = |host: &&Host| {
            host.has_node && host.is_ready && scope.placement(&host.node()) == Placement::Placed
        };
        let mut placed = self.hosts.iter().filter(placed).peekable();
        placed.peek().is_some() && placed.all(|host| host.is_ready_with(&hash))
    }

    fn wave_facts(&self, document: Option<&wire::Document>, fleet: &Fleet) -> WaveFacts {
        let now = i64::try_from(self.seconds).unwrap();
        let target = document
            .map(|document| document.rollout.clone())
            .unwrap_or_default();
        let blank = WaveFacts {
            now,
            is_blind: !self.are_nodes_read,
            soak: self.settings.rollout_soak_seconds,
            target,
            ..WaveFacts::default()
        };
        let Some(set) = &self.daemon_set else { return blank };
        let hash = template_of(set);
        let rollout = set.annotations().get(ROLLOUT);
        let record: Record = rollout
            .map(|text| serde_json::from_str(text).unwrap())
            .unwrap_or_default();
        let good = self.revisions.get(&record.good).filter(|_| record.good != hash);
        let reports: BTreeMap<_, _> = fleet.reports().map(|report| (&report.node, report)).collect();
        let node = |host: &Host| {
            let newcomer = host.pods.iter().find(|pod| pod.template == hash);
            let mut earlier = host.pods.iter().filter(|pod| pod.template != hash);
            let earlier = earlier.find_map(|pod| pod.ready_at);
            let report = reports.get(&host.name()).map(|report| Reported {
                template: report.template.clone(),
                not_up: report.not_up(),
                is_current: document.is_some_and(|document| document.revision == report.revision),
                connections: report.connections,
                ..Reported::default()
            });
            NodeFacts {
                name: host.name(),
                aside: match (host.has_node, host.is_ready) {
                    (false, _) => Some(Aside::RunsNoPods),
                    (true, false) => Some(Aside::NotReady),
                    (true, true) => None,
                },
                newcomer: newcomer.map(|pod| Newcomer {
                    created_at: Some(pod.created),
                    is_running: true,
                    has_started: true,
                    is_ready: pod.ready_at.is_some(),
                    ready_at: pod.ready_at,
                    ..Newcomer::default()
                }),
                has_earlier: earlier.is_some(),
                earlier_ready_at: earlier,
                report,
            }
        };
        let with_pods = self.hosts.iter().filter(|host| !host.pods.is_empty());
        let desired = set
            .status
            .as_ref()
            .map_or(0, |status| status.desired_number_scheduled);
        WaveFacts {
            desired: u32::try_from(desired).unwrap(),
            in_place: Some(InPlaceTemplate {
                content: Arc::new(set.spec.as_ref().unwrap().template.clone()),
                hash: hash.clone(),
            }),
            good: good.map(|template| Arc::new(template.clone())),
            is_complete: self.is_complete(),
            record,
            nodes: with_pods.map(node).collect(),
            ..blank
        }
    }

    fn status(&self, plan: &Plan, facts: &Facts) -> trivet_crds::pool::ApiserverPoolStatus {
        let lost = self
            .hosts
            .iter()
            .filter(|host| host.has_node && !host.is_ready && !host.pods.is_empty());
        let uncounted: Vec<_> = lost
            .map(|host| Uncounted {
                node: host.name(),
                why: "it is not Ready",
                is_ready: false,
                is_updated: false,
            })
            .collect();
        status(&Seen {
            generation: self.pool.metadata.generation,
            plan,
            server_name: &self.pool.spec.health_check.tls_server_name,
            healths: &facts.healths,
            sightings: facts.healths_in_force().sightings(),
            fleet: &facts.fleet,
            daemon_set: self.daemon_set.as_ref(),
            uncounted: &uncounted,
            failures: &[],
            writer: self.writer.as_ref(),
            writer_failures: &[],
            reported: &[],
            refused: None,
            published: self.names.published.as_ref(),
            previous: self.pool.status.as_ref(),
            now: self.timestamp(),
        })
    }
}

/// Whatever a pool asks for, the chart's policy takes what the operator makes of it, but for images that the chart does not name.
fn admitted(policy: &Policy, set: &DaemonSet) {
    let mut refusals = policy.refusals(set);
    refusals.retain(|refusal| !refusal.starts_with(IMAGE));
    assert!(refusals.is_empty(), "{refusals:?}: {set:?}");
}

/// Applies an object: its generation grows with its spec. Whether something has changed.
fn put(stored: &mut Option<DaemonSet>, rendered: DaemonSet) -> bool {
    assert_eq!(rendered.labels()[POOL_LABEL], "default");
    let is_same = stored.as_ref().is_some_and(|stored| {
        stored.spec == rendered.spec
            && stored.metadata.labels == rendered.metadata.labels
            && stored.metadata.annotations == rendered.metadata.annotations
    });
    if is_same {
        return false;
    }
    let before = stored
        .as_ref()
        .and_then(|stored| stored.metadata.generation)
        .unwrap_or_default();
    let is_edited = stored.as_ref().is_none_or(|stored| stored.spec != rendered.spec);
    let mut rendered = rendered;
    rendered.metadata.generation = Some(before + i64::from(is_edited));
    rendered.status = stored.take().and_then(|stored| stored.status);
    *stored = Some(rendered);
    true
}

/// The hash of the template of a DaemonSet.
pub(crate) fn template_of(set: &DaemonSet) -> String {
    let metadata = set.spec.as_ref().unwrap().template.metadata.as_ref().unwrap();
    metadata.labels.as_ref().unwrap()[TEMPLATE_LABEL].clone()
}

fn read_reports() -> Reports {
    let reports = Reports::default();
    reports.observe(Watched::Init);
    reports.observe(Watched::InitDone);
    reports
}

fn settings() -> Settings {
    Settings {
        namespace: "trivet-system".to_owned(),
        image: "trivet.dev/trivet-proxy:0.1.0".to_owned(),
        pull_policy: PullPolicy::IfNotPresent,
        pull_secrets: Vec::new(),
        service_account: "trivet-proxy".to_owned(),
        has_node_bootstrap: true,
        standby_soak: Duration::from_secs(60),
        rollout_soak_seconds: 30,
        retire_after_seconds: 600,
    }
}
