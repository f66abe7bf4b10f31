//! Extra listeners: other servers of the members, each with a health of its own, and no client of them at an apiserver.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use trivet_crds::wire::{Listener, ListenerBalancing, ListenerHealthCheck, ListenerKind};
use trivet_proxy::status::{Status, UpstreamStatus};

use crate::{
    addresses::free_address,
    pairs::{SOON, connections, taken},
    support::{
        apiserver::{Apiserver, Mode},
        authority::{Authority, demanding_server},
        client::Client,
        eventually,
        node::{Node, Pool},
    },
};

/// Three masters with an apiserver and another server each, and a node with a proxy.
struct Site {
    node: Node,
    apiservers: [Apiserver; 3],
    /// Their certificates are of another authority than the apiservers'.
    servers: [Apiserver; 3],
    authority: Authority,
    listener: Listener,
}

const NAMES: [&str; 3] = ["cp1", "cp2", "cp3"];

/// Each master has an address of its own, because its other server has the same port as those of all others.
fn master(index: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 1, index], port))
}

fn at_each(port: u16, authority: &Authority) -> [Apiserver; 3] {
    let at = |index: u8| {
        let name = NAMES[usize::from(index - 1)];
        Apiserver::start_at(master(index, port), name, authority.server())
    };
    [1, 2, 3].map(at)
}

impl Site {
    /// The proxy is not started yet.
    fn new() -> Self {
        let node = Node::new();
        let authority = Authority::new();
        let (local, of_members) = (free_address(), free_address());
        let listener = Listener {
            name: "konnectivity".to_owned(),
            kind: ListenerKind::Tls,
            member_port: Some(of_members.port()),
            balancing: ListenerBalancing::Spread,
            ..Listener::apiserver(vec![local.ip()], local.port())
        };
        Self {
            apiservers: at_each(0, &node.authority),
            servers: at_each(of_members.port(), &authority),
            authority,
            listener,
            node,
        }
    }

    /// With the extra listener, changed by this.
    async fn with(change: impl FnOnce(&mut Listener)) -> Self {
        let mut site = Self::new();
        change(&mut site.listener);
        site.start(|pool| pool).await;
        site
    }

    async fn start(&mut self, change: impl FnOnce(Pool) -> Pool) {
        self.node.write(&change(self.pool()));
        self.node.start().await;
        eventually("ready", async || self.node.ready().await).await;
        for name in NAMES {
            self.sees(name, "Up").await;
        }
    }

    fn without_listener(&self) -> Pool {
        self.apiservers.iter().fold(self.node.pool(), Pool::member)
    }

    fn pool(&self) -> Pool {
        self.without_listener().extra(&self.listener)
    }

    fn address(&self) -> SocketAddr {
        self.listener.sockets().next().unwrap()
    }

    /// A client of the extra listener.
    async fn client(&self) -> std::io::Result<Client> {
        Client::connect(self.address(), self.authority.client()).await
    }

    async fn who(&self) -> std::io::Result<String> {
        self.client().await?.who().await
    }

    async fn client_on(&self, name: &str) -> Client {
        for _ in 0..20 {
            let mut client = self.client().await.unwrap();
            if client.who().await.unwrap() == name {
                return client;
            }
        }
        panic!("no connection to {name} in 20");
    }

    /// Waits until the proxy sees the other server of this member in this state.
    async fn sees(&self, name: &str, state: &str) {
        sees(&self.node, name, state).await;
    }

    fn server(&self, name: &str) -> &Apiserver {
        self.servers.iter().find(|server| server.name == name).unwrap()
    }
}

async fn sees(node: &Node, name: &str, state: &str) {
    let line = format!(
        "trivet_proxy_listener_upstream_state{{listener=\"konnectivity\",member=\"{name}\",state=\"{state}\"}}"
    );
    eventually(&line, async || node.metric(&line).await == Some(1)).await;
}

fn of<'a>(status: &'a Status, name: &str) -> &'a UpstreamStatus {
    let mut upstreams = status.extra_listeners[0].upstreams.iter();
    upstreams.find(|upstream| upstream.member == name).unwrap()
}

/// How often each was named.
fn counted(names: Vec<String>) -> BTreeMap<String, usize> {
    names.into_iter().fold(BTreeMap::new(), |mut counted, name| {
        *counted.entry(name).or_default() += 1;
        counted
    })
}

#[tokio::test]
async fn successive_connections_reach_every_server_evenly_whatever_others_hold() {
    let site = Site::with(|_| {}).await;
    let held = site.client_on("cp2").await;
    let more = site.client_on("cp2").await;
    let mut names = Vec::new();
    for _ in 0..9 {
        names.push(site.who().await.unwrap());
    }
    let counted = counted(names);
    // A hedge on a busy machine takes a turn.
    let is_even = NAMES.map(|name| counted.get(name).is_some_and(|count| (2..=4).contains(count)));
    assert_eq!(is_even, [true; 3], "{counted:?}");
    drop((held, more));
    let clients = site.apiservers.iter().map(Apiserver::served).sum::<usize>();
    assert_eq!(clients, 0, "no client of the listener is an apiserver's");
    site.node.who().await.unwrap();
    let clients = site.apiservers.iter().map(Apiserver::served).sum::<usize>();
    assert_eq!(clients, 1, "and an apiserver's client is one");
}

#[tokio::test]
async fn with_least_connections_a_busy_server_gets_no_more() {
    let site = Site::with(|listener| listener.balancing = ListenerBalancing::LeastConnections).await;
    let mut held = Vec::new();
    for _ in 0..6 {
        let mut client = site.client().await.unwrap();
        let name = client.who().await.unwrap();
        held.push((client, name));
    }
    held.retain(|(_, name)| name != "cp3");
    eventually("cp3 has no connection left", async || {
        let status = site.node.status().await;
        of(&status, "cp3").connections == 0
    })
    .await;
    assert_eq!(site.who().await.unwrap(), "cp3");
    assert_eq!(site.who().await.unwrap(), "cp3", "the others have two each");
}

#[tokio::test]
async fn a_hung_server_costs_no_new_connection_and_loses_its_own() {
    let site = Site::with(|_| {}).await;
    let mut client = site.client_on("cp1").await;
    let mut of_apiserver = site.node.client_on(&site.apiservers[0]).await;
    site.server("cp1").set(Mode::Hung);
    for _ in 0..6 {
        assert_ne!(timeout(SOON, site.who()).await.unwrap().unwrap(), "cp1");
    }
    timeout(SOON, client.end()).await.unwrap();
    site.sees("cp1", "Down").await;
    assert_eq!(of_apiserver.who().await.unwrap(), "cp1", "its apiserver is well");
    let status = site.node.status().await;
    assert!(status.upstreams.iter().all(|upstream| upstream.state == "Up"));
    assert_eq!(of(&status, "cp1").reason, "Silent");
    site.server("cp1").set(Mode::Ready);
    site.sees("cp1", "Up").await;
}

#[tokio::test]
async fn a_dead_server_costs_no_new_connection_and_cuts_nothing() {
    let site = Site::with(|_| {}).await;
    let mut other = site.client_on("cp2").await;
    site.server("cp1").set(Mode::Killed);
    for _ in 0..6 {
        assert_ne!(site.who().await.unwrap(), "cp1");
    }
    site.sees("cp1", "Unready").await;
    assert_eq!(other.who().await.unwrap(), "cp2");
    site.server("cp1").set(Mode::Ready);
    site.sees("cp1", "Up").await;
}

#[tokio::test]
async fn when_no_server_answers_clients_are_told_at_once_and_the_apiservers_serve() {
    let site = Site::with(|_| {}).await;
    for server in &site.servers {
        server.set(Mode::Killed);
    }
    let refused = timeout(Duration::from_secs(4), site.who()).await.unwrap();
    assert!(refused.is_err(), "{refused:?}");
    assert!(site.node.ready().await);
    site.node.who().await.unwrap();
    eventually("it is told", async || {
        let status = site.node.status().await;
        status
            .warnings
            .iter()
            .any(|warning| warning.reason == "NoServerAnswers")
    })
    .await;
}

#[tokio::test]
async fn an_https_server_that_is_not_well_gets_no_new_connection_and_keeps_its_own() {
    let site = Site::with(|listener| {
        listener.kind = ListenerKind::Https;
        listener.health_check = Some(ListenerHealthCheck {
            path: "/readyz".to_owned(),
        });
    })
    .await;
    let mut client = site.client_on("cp1").await;
    // An apiserver that withholds its readiness counts as ready; another server does not.
    for mode in [Mode::NotReady, Mode::Status(403)] {
        site.server("cp1").set(mode);
        site.sees("cp1", "Unready").await;
        for _ in 0..6 {
            assert_ne!(site.who().await.unwrap(), "cp1");
        }
        assert_eq!(client.who().await.unwrap(), "cp1");
        site.server("cp1").set(Mode::Ready);
        site.sees("cp1", "Up").await;
    }
    site.server("cp1").set(Mode::Starved(Duration::ZERO));
    site.sees("cp1", "Unready").await;
    let status = site.node.status().await;
    assert_eq!(of(&status, "cp1").reason, "Late", "it completes handshakes");
    assert_eq!(client.who().await.unwrap(), "cp1");
}

#[tokio::test]
async fn a_server_is_used_once_its_members_apiserver_has_proved_itself() {
    let mut site = Site::new();
    // Another cluster's master has got the address.
    site.apiservers[0] = Apiserver::start_at(master(1, 0), "cp1", site.authority.server());
    site.node.write(&site.pool());
    site.node.start().await;
    eventually("ready", async || site.node.ready().await).await;
    for name in ["cp1", "cp2", "cp3"] {
        site.sees(name, "Up").await;
    }
    for _ in 0..6 {
        assert_ne!(site.who().await.unwrap(), "cp1");
    }
    let status = site.node.status().await;
    assert_eq!(NAMES.map(|name| of(&status, name).proven), [false, true, true]);
}

#[tokio::test]
async fn a_server_that_wants_a_certificate_of_its_clients_is_alive() {
    let mut site = Site::new();
    let port = site.listener.member_port.unwrap();
    for (index, version) in [(0, &rustls::version::TLS12), (1, &rustls::version::TLS13)] {
        let tls = demanding_server(&site.authority, version);
        let name = site.servers[index].name.clone();
        let address = site.servers[index].address;
        site.servers[index].set(Mode::Killed);
        eventually("its port is free", async || {
            TcpListener::bind(address).await.is_ok()
        })
        .await;
        site.servers[index] = Apiserver::start_at(address, &name, tls);
        assert_eq!(address.port(), port);
    }
    site.start(|pool| pool).await;
}

#[tokio::test]
async fn a_member_that_drains_does_so_at_every_listener() {
    let site = Site::with(|_| {}).await;
    let mut client = site.client_on("cp1").await;
    let [drains, others @ ..] = &site.apiservers;
    let pool = others.iter().fold(site.node.pool(), Pool::member);
    site.node
        .write(&pool.clone().draining(drains).extra(&site.listener).revision(2));
    timeout(SOON, client.end()).await.unwrap();
    for _ in 0..6 {
        assert_ne!(site.who().await.unwrap(), "cp1");
    }
    site.node
        .write(&pool.disabled(drains).extra(&site.listener).revision(3));
    site.node.follows(3).await;
    eventually("it is gone", async || {
        let status = site.node.status().await;
        let mut upstreams = status.extra_listeners[0].upstreams.iter();
        !upstreams.any(|upstream| upstream.member == "cp1")
    })
    .await;
}

#[tokio::test]
async fn a_removed_listener_ends_gently_and_none_of_its_clients_reaches_an_apiserver() {
    let site = Site::with(|_| {}).await;
    let mut client = site.client_on("cp1").await;
    let mut of_apiserver = site.node.client_on(&site.apiservers[1]).await;
    let served = || site.apiservers.iter().map(Apiserver::served).sum::<usize>();
    let before = served();
    site.node.write(&site.without_listener().revision(2));
    eventually("the port is closed", async || {
        TcpStream::connect(site.address()).await.is_err()
    })
    .await;
    timeout(SOON, client.end()).await.unwrap();
    let line = "trivet_proxy_connections_ended_total{reason=\"MemberDrained\"}";
    assert_eq!(site.node.metric(line).await, Some(1));
    assert_eq!(served(), before);
    assert_eq!(of_apiserver.who().await.unwrap(), "cp2");
    eventually("nothing is left of it", async || {
        let status = site.node.status().await;
        status.extra_listeners.is_empty() && !site.node.metrics().await.contains("listener=\"konnectivity\"")
    })
    .await;
    // It may come back.
    site.node.write(&site.pool().revision(3));
    for name in NAMES {
        site.sees(name, "Up").await;
    }
    assert_eq!(site.client_on("cp1").await.who().await.unwrap(), "cp1");
}

#[tokio::test]
async fn a_port_that_another_program_has_costs_the_apiservers_clients_nothing() {
    let mut site = Site::new();
    let _stranger = TcpListener::bind(site.address()).await.unwrap();
    site.node.write(&site.pool());
    site.node.start().await;
    eventually("ready", async || site.node.ready().await).await;
    let status = site.node.status().await;
    let listener = status
        .listeners
        .iter()
        .find(|listener| listener.name == "konnectivity")
        .unwrap();
    assert!(!listener.bound);
    assert!(listener.fault.as_ref().unwrap().contains("taken"), "{listener:?}");
    site.node.who().await.unwrap();
}

#[tokio::test]
async fn a_listener_of_an_unknown_kind_is_left_out_and_told() {
    let mut site = Site::new();
    let port = free_address().port();
    let entry = json!({ "name": "dns", "kind": "UDP", "addresses": ["127.0.0.1"], "port": port });
    site.node.write_text(&site.pool().text_with_listener(entry));
    site.node.start().await;
    eventually("ready", async || site.node.ready().await).await;
    let status = site.node.status().await;
    let is_told = |status: &Status| {
        let mut warnings = status.warnings.iter();
        warnings.any(|warning| warning.reason == "ListenerKindUnknown")
    };
    assert!(is_told(&status), "{:?}", status.warnings);
    let mut told = status.warnings.iter();
    assert!(told.any(|warning| warning.message.contains("dns of kind UDP")));
    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err());
    site.node.write(&site.pool().revision(2));
    eventually("it is over", async || !is_told(&site.node.status().await)).await;
}

/// The next proxy of the node, which has taken over.
async fn successor(node: &Node, generation: u64, document: Option<&Pool>) -> Node {
    let mut next = node.successor().of_generation(generation);
    if let Some(document) = document {
        next.write(document);
    }
    next.start().await;
    eventually("the next proxy is ready", async || next.ready().await).await;
    next
}

/// A site whose proxy hands over.
async fn that_hands_over() -> Site {
    let mut site = Site::new();
    site.node = std::mem::replace(&mut site.node, Node::new()).of_generation(1);
    site.start(|pool| pool.drain_within(60)).await;
    site
}

#[tokio::test]
async fn connections_and_sockets_of_an_extra_listener_go_on_in_the_next_proxy() {
    let mut site = that_hands_over().await;
    let mut clients = Vec::new();
    for name in NAMES {
        clients.push((site.client_on(name).await, name));
    }
    let mut of_apiserver = site.node.client_on(&site.apiservers[2]).await;
    eventually("the others have left", async || {
        connections(&site.node).await == 4
    })
    .await;
    // One that is being opened.
    let silent = TcpStream::connect(site.address()).await.unwrap();
    eventually("it is admitted", async || connections(&site.node).await == 5).await;
    let next = successor(&site.node, 2, None).await;
    for name in NAMES {
        sees(&next, name, "Up").await;
    }
    timeout(SOON, site.node.stop()).await.unwrap();
    assert_eq!(taken(&next).await, 5);
    for (client, name) in &mut clients {
        assert_eq!(client.who().await.unwrap(), *name);
        let line = format!(
            "trivet_proxy_listener_upstream_connections{{listener=\"konnectivity\",member=\"{name}\"}}"
        );
        assert_eq!(next.metric(&line).await, Some(1), "{line}");
    }
    assert_eq!(of_apiserver.who().await.unwrap(), "cp3");
    let mut late = Client::over(silent, site.authority.client()).await.unwrap();
    assert!(NAMES.contains(&late.who().await.unwrap().as_str()));
    site.who().await.unwrap();
    // The next proxy judges what it took.
    site.server("cp1").set(Mode::Hung);
    timeout(SOON, clients[0].0.end()).await.unwrap();
}

#[tokio::test]
async fn what_a_proxy_takes_of_a_listener_that_its_document_lacks_drains_and_reaches_no_apiserver() {
    let mut site = that_hands_over().await;
    let mut client = site.client_on("cp1").await;
    eventually("the others have left", async || {
        connections(&site.node).await == 1
    })
    .await;
    let silent = TcpStream::connect(site.address()).await.unwrap();
    eventually("it is admitted", async || connections(&site.node).await == 2).await;
    let served = site.apiservers.iter().map(Apiserver::served).sum::<usize>();
    let later = site.without_listener().drain_within(6).revision(2);
    let next = successor(&site.node, 2, Some(&later)).await;
    eventually("the port is closed", async || {
        TcpStream::connect(site.address()).await.is_err()
    })
    .await;
    timeout(SOON, site.node.stop()).await.unwrap();
    assert_eq!(taken(&next).await, 2);
    timeout(SOON, client.end()).await.unwrap();
    let refused = timeout(SOON, async {
        Client::over(silent, site.node.authority.client())
            .await?
            .who()
            .await
    });
    let refused = refused.await.unwrap();
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(
        site.apiservers.iter().map(Apiserver::served).sum::<usize>(),
        served
    );
}

#[tokio::test]
async fn the_status_tells_the_connections_of_a_members_servers_apart() {
    let site = Site::with(|_| {}).await;
    let _client = site.client_on("cp2").await;
    let status = site.node.status().await;
    let upstream = of(&status, "cp2");
    assert_eq!(
        (upstream.connections, upstream.listener.as_str()),
        (1, "konnectivity")
    );
    let of_apiserver = status.upstreams.iter().find(|upstream| upstream.member == "cp2");
    assert_eq!(of_apiserver.unwrap().connections, 0);
}
