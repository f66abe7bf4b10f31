//! A node with a proxy, and the pool it serves.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use tempfile::TempDir;
use tokio::{sync::oneshot, task::JoinHandle};
use trivet_crds::wire::{
    API_VERSION, Balancing, Connection, DisabledMember, Document, Gate, HealthCheck, Listener, Locality,
    Member, MemberState, RolloutTarget, Tls,
};
use trivet_proxy::{
    admin,
    app::{self, Config, ExposedMetrics},
    balance::place::Place,
    document::{seed::Seed, watch::ConfigMapTarget},
    handover::{driver, rank::Class},
    status::Status,
    systemd::{Service, sockets::PassedSockets},
};

use super::{
    apiserver::{Apiserver, Mode},
    authority::{Authority, NAME},
    client::Client,
    eventually,
};
use crate::addresses::free_address;

/// A wire document in the making.
#[derive(Clone)]
pub(crate) struct Pool {
    document: Document,
}

impl Pool {
    /// Every time is a fifth of the default, so that tests are quick.
    pub(crate) fn new(authority: &Authority, port: u16) -> Self {
        let document = Document {
            api_version: API_VERSION.to_owned(),
            pool: "default".to_owned(),
            revision: 1,
            hash: String::new(),
            members: Vec::new(),
            disabled_members: Vec::new(),
            further_endpoints: Vec::new(),
            listeners: vec![Listener::apiserver(vec!["127.0.0.1".parse().unwrap()], port)],
            balancing: Balancing::default(),
            rollout: RolloutTarget::default(),
            health_check: HealthCheck {
                period_milliseconds: 250,
                timeout_milliseconds: 250,
                failure_threshold: 2,
                success_threshold: 2,
            },
            connection: Connection {
                connect_timeout_milliseconds: 1000,
                hedge_delay_milliseconds: 50,
                user_timeout_milliseconds: 5000,
                keep_alive_seconds: 5,
                drain_timeout_seconds: 1,
                max_connections: 1000,
            },
            nodes: 5,
            tls: Tls {
                ca_bundle: authority.bundle.clone(),
                server_name: NAME.to_owned(),
            },
        };
        Self { document }
    }

    /// Whose proxies listen on this address instead of 127.0.0.1.
    pub(crate) fn listening_on(mut self, address: IpAddr) -> Self {
        self.document.listeners[0].addresses = vec![address];
        self
    }

    /// Whose proxies listen on this address too.
    pub(crate) fn also_listening_on(mut self, address: IpAddr) -> Self {
        self.document.listeners[0].addresses.push(address);
        self
    }

    pub(crate) fn revision(mut self, revision: u64) -> Self {
        self.document.revision = revision;
        self
    }

    /// Whose proxies of this template should serve.
    pub(crate) fn naming(mut self, template: &str) -> Self {
        template.clone_into(&mut self.document.rollout.template);
        self
    }

    /// Where the proxies of that template may take.
    pub(crate) fn gated(mut self, gate: Gate) -> Self {
        self.document.rollout.gate = gate;
        self
    }

    pub(crate) fn member(mut self, apiserver: &Apiserver) -> Self {
        self.document.members.push(Member {
            name: apiserver.name.clone(),
            addresses: vec![apiserver.address.ip()],
            port: apiserver.address.port(),
            state: MemberState::Active,
            zone: String::new(),
            node_name: String::new(),
        });
        self
    }

    /// A member of which nothing is known but its address, and a kernel that waits a second for it.
    pub(crate) fn impatient_with(mut self, address: SocketAddr) -> Self {
        self.document.connection.user_timeout_milliseconds = 1000;
        self.document.members.push(Member {
            name: "unknown".to_owned(),
            addresses: vec![address.ip()],
            port: address.port(),
            state: MemberState::Active,
            node_name: String::new(),
            zone: String::new(),
        });
        self
    }

    /// A member with a second address, at which nobody listens.
    pub(crate) fn member_with_a_dead_address(mut self, apiserver: &Apiserver) -> Self {
        self = self.member(apiserver);
        let addresses = &mut self.document.members.last_mut().unwrap().addresses;
        addresses.push("127.0.0.2".parse().unwrap());
        self
    }

    /// A member that may be reached at this address too, and is asked there first.
    pub(crate) fn member_also_at(mut self, first: IpAddr, apiserver: &Apiserver) -> Self {
        self = self.member(apiserver);
        self.document
            .members
            .last_mut()
            .unwrap()
            .addresses
            .insert(0, first);
        self
    }

    /// Probes have the time of the defaults.
    pub(crate) fn unhurried(mut self) -> Self {
        self.document.health_check.period_milliseconds = 1000;
        self.document.health_check.timeout_milliseconds = 1000;
        self
    }

    /// The member that was added last runs on this node, in this zone.
    pub(crate) fn at(mut self, node: &str, zone: &str) -> Self {
        let member = self.document.members.last_mut().unwrap();
        node.clone_into(&mut member.node_name);
        zone.clone_into(&mut member.zone);
        self
    }

    pub(crate) fn locality(mut self, locality: Locality) -> Self {
        self.document.balancing.locality = locality;
        self
    }

    pub(crate) fn draining(mut self, apiserver: &Apiserver) -> Self {
        self = self.member(apiserver);
        self.document.members.last_mut().unwrap().state = MemberState::Draining;
        self
    }

    pub(crate) fn disabled(mut self, apiserver: &Apiserver) -> Self {
        self.document.disabled_members.push(DisabledMember {
            name: apiserver.name.clone(),
            sockets: vec![apiserver.address],
        });
        self
    }

    /// Whose proxies have this extra listener too.
    pub(crate) fn extra(mut self, listener: &Listener) -> Self {
        self.document.listeners.push(listener.clone());
        self
    }

    /// Whose document has this entry of a later release too.
    pub(crate) fn text_with_listener(&self, entry: serde_json::Value) -> String {
        let mut value = serde_json::to_value(&self.document).unwrap();
        value["listeners"].as_array_mut().unwrap().push(entry);
        value.as_object_mut().unwrap().remove("hash");
        value.to_string()
    }

    /// Where an apiserver may be that is no member.
    pub(crate) fn endpoint(mut self, apiserver: &Apiserver) -> Self {
        self.document.further_endpoints.push(apiserver.address);
        self
    }

    pub(crate) fn drain_within(mut self, seconds: u32) -> Self {
        self.document.connection.drain_timeout_seconds = seconds;
        self
    }

    pub(crate) fn max_connections(mut self, limit: u32) -> Self {
        self.document.connection.max_connections = limit;
        self
    }

    pub(crate) fn with_authorities(mut self, bundle: &str) -> Self {
        bundle.clone_into(&mut self.document.tls.ca_bundle);
        self
    }

    pub(crate) fn text(&self) -> String {
        self.document.clone().seal().unwrap().to_text().unwrap()
    }
}

/// A node: its disk, its port, its clients, and the proxy while it runs.
pub(crate) struct Node {
    pub(crate) authority: Authority,
    pub(crate) proxy: SocketAddr,
    /// The ConfigMap that the proxy follows from its next start on.
    pub(crate) watch: Option<ConfigMapTarget>,
    /// The document that the proxy has at its next start.
    pub(crate) seed: Option<String>,
    /// The sockets that systemd passes to the proxy at its next start.
    pub(crate) passed: PassedSockets,
    /// Where the proxy serves metrics over TCP, from its next start on.
    pub(crate) metrics_address: Option<SocketAddr>,
    /// Where else, and as whom the API is asked about callers.
    pub(crate) exposed: Option<ExposedMetrics>,
    /// How the proxy hands over, from its next start on.
    pub(crate) handover: Option<driver::Config>,
    disk: TempDir,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

/// A node with a running proxy before this many apiservers, all of them proven and Up.
pub(crate) async fn node_with(apiservers: usize) -> (Node, Vec<Apiserver>) {
    let mut node = Node::new();
    let apiservers: Vec<_> = (1..=apiservers)
        .map(|index| Apiserver::start(&format!("cp{index}"), node.authority.server()))
        .collect();
    node.write(&apiservers.iter().fold(node.pool(), Pool::member));
    node.start().await;
    for apiserver in &apiservers {
        node.sees(apiserver, "Up").await;
    }
    (node, apiservers)
}

impl Node {
    pub(crate) fn new() -> Self {
        Self {
            authority: Authority::new(),
            proxy: free_address(),
            watch: None,
            seed: None,
            passed: PassedSockets::default(),
            metrics_address: None,
            exposed: None,
            handover: None,
            disk: tempfile::tempdir().unwrap(),
            running: None,
        }
    }

    /// The proxy is of this generation of the DaemonSet's template, and hands over.
    pub(crate) fn of_generation(mut self, generation: u64) -> Self {
        let directory = match &self.handover {
            Some(handover) => handover.directory.clone(),
            None => self.path("handover"),
        };
        self.handover = Some(driver::Config {
            directory,
            pool: "default".to_owned(),
            class: Class::DaemonSet,
            template: String::new(),
            generation,
        });
        self
    }

    /// From its next start on the proxy follows a ConfigMap and writes its report, with this token and these authorities.
    pub(crate) fn use_the_api(&mut self, token: &str, authorities: &str) {
        self.write_token(token);
        std::fs::write(self.path("ca.crt"), authorities).unwrap();
        self.watch = Some(ConfigMapTarget {
            namespace: "trivet-system".to_owned(),
            name: "trivet-default".to_owned(),
            token_file: self.path("token"),
            authority_file: self.path("ca.crt"),
        });
    }

    pub(crate) fn pool(&self) -> Pool {
        Pool::new(&self.authority, self.proxy.port())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.disk.path().join(name)
    }

    /// Writes the document as kubelet does: the old one or the new one, never half of it.
    pub(crate) fn write(&self, pool: &Pool) {
        self.write_text(&pool.text());
    }

    pub(crate) fn write_text(&self, text: &str) {
        std::fs::write(self.path("pool.tmp"), text).unwrap();
        std::fs::rename(self.path("pool.tmp"), self.path("pool.json")).unwrap();
    }

    pub(crate) async fn start(&mut self) {
        let config = Config {
            file: Some(self.path("pool.json")),
            seed: self.seed.clone().map(Seed::new),
            cache: Some(self.path("cache")),
            watch: self.watch.clone(),
            token_file: Some(self.path("token")),
            place: Place {
                node: "w1".to_owned(),
                zone: "a".to_owned(),
            },
            socket: Some(self.path("proxy.sock")),
            metrics: self.metrics_address,
            exposed: self.exposed.clone(),
            service: Service {
                sockets: self.passed.clone(),
                ..Service::default()
            },
            handover: self.handover.clone(),
        };
        let bound = app::bind(config, Arc::default()).await.unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(bound.run(async { drop(stopped.await) }));
        self.running = Some((stop, running));
    }

    /// The same node as another process of it sees it: the same port and documents, a socket of its own.
    pub(crate) fn successor(&self) -> Node {
        let successor = self.successor_without_document();
        std::fs::copy(self.path("pool.json"), successor.path("pool.json")).unwrap();
        successor
    }

    /// The same, as a process that nobody gives a document.
    pub(crate) fn successor_without_document(&self) -> Node {
        let disk = tempfile::tempdir().unwrap();
        Node {
            authority: Authority::new(),
            proxy: self.proxy,
            watch: None,
            seed: None,
            passed: PassedSockets::default(),
            metrics_address: None,
            exposed: None,
            handover: self.handover.clone(),
            disk,
            running: None,
        }
    }

    /// Stops the proxy as SIGTERM does, without waiting for its end.
    pub(crate) fn terminate(&mut self) -> JoinHandle<()> {
        let (stop, running) = self.running.take().unwrap();
        stop.send(()).unwrap();
        running
    }

    pub(crate) async fn stop(&mut self) {
        self.terminate().await.unwrap();
    }

    pub(crate) async fn client(&self) -> std::io::Result<Client> {
        Client::connect(self.proxy, self.authority.client()).await
    }

    /// Opens a connection and asks who answers.
    pub(crate) async fn who(&self) -> std::io::Result<String> {
        self.client().await?.who().await
    }

    /// A client that is served by this apiserver.
    pub(crate) async fn client_on(&self, apiserver: &Apiserver) -> Client {
        for _ in 0..20 {
            let mut client = self.client().await.unwrap();
            if client.who().await.unwrap() == apiserver.name {
                return client;
            }
        }
        panic!("no connection to {} in 20", apiserver.name);
    }

    /// Whether the proxy says it is ready.
    pub(crate) async fn ready(&self) -> bool {
        self.ask("/readyz").await.is_some_and(|(ready, _)| ready)
    }

    /// Whether the startup probe succeeds.
    pub(crate) async fn started(&self) -> bool {
        self.ask("/startupz").await.is_some_and(|(started, _)| started)
    }

    /// What the proxy tells about itself.
    pub(crate) async fn status(&self) -> Status {
        let (known, text) = self.ask("/status").await.unwrap();
        assert!(known, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    /// All metrics; nothing where the proxy does not answer.
    pub(crate) async fn metrics(&self) -> String {
        let (_, metrics) = self.ask("/metrics").await.unwrap_or_default();
        metrics
    }

    /// The value of one line of the metrics.
    pub(crate) async fn metric(&self, line: &str) -> Option<u64> {
        let metrics = self.metrics().await;
        let value = metrics
            .lines()
            .find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
        value.map(|value| value.parse().unwrap())
    }

    /// The same as a fraction.
    pub(crate) async fn metric_f64(&self, line: &str) -> f64 {
        let metrics = self.metrics().await;
        let value = metrics
            .lines()
            .find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Writes the proxy's token as kubelet does, as a whole.
    pub(crate) fn write_token(&self, token: &str) {
        std::fs::write(self.path("token.tmp"), token).unwrap();
        std::fs::rename(self.path("token.tmp"), self.path("token")).unwrap();
    }

    /// Waits until the proxy sees this apiserver in this state.
    pub(crate) async fn sees(&self, apiserver: &Apiserver, state: &str) {
        let line = format!(
            "trivet_proxy_upstream_state{{member=\"{}\",state=\"{state}\"}}",
            apiserver.name
        );
        eventually(&line, async || self.metric(&line).await == Some(1)).await;
    }

    /// Waits until the proxy follows this revision.
    pub(crate) async fn follows(&self, revision: u64) {
        let line = "trivet_proxy_document_revision";
        eventually(line, async || self.metric(line).await == Some(revision)).await;
    }

    async fn ask(&self, path: &str) -> Option<(bool, String)> {
        admin::ask(self.path("proxy.sock"), path, Duration::from_secs(5))
            .await
            .ok()
    }
}

/// Makes all of them sick in the same way.
pub(crate) fn all(apiservers: &[Apiserver], mode: Mode) {
    for apiserver in apiservers {
        apiserver.set(mode);
    }
}

/// The same clients' configuration for many tasks.
pub(crate) fn shared(node: &Node) -> (SocketAddr, Arc<rustls::ClientConfig>) {
    (node.proxy, node.authority.client())
}
