//! No new connection is lost while any member answers.

use std::{collections::BTreeMap, io::ErrorKind, time::Duration};

use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::support::{
    apiserver::{Apiserver, Mode},
    authority::Authority,
    client::Client,
    node::{Node, Pool, all, node_with, shared},
};

/// Far beyond the two seconds that are promised, so that only a client that is held for ever fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// The lowest limit that a document may set.
const FEWEST_CONNECTIONS: u32 = 64;

#[tokio::test]
async fn held_connections_spread_over_all_members() {
    let (node, _apiservers) = node_with(3).await;
    let mut clients = Vec::new();
    let mut counts = BTreeMap::new();
    for _ in 0..30 {
        let mut client = node.client().await.unwrap();
        *counts.entry(client.who().await.unwrap()).or_insert(0) += 1;
        clients.push(client);
    }
    assert_eq!(counts.len(), 3);
    assert!(
        counts.values().all(|count| (8..=12).contains(count)),
        "{counts:?}"
    );
}

#[tokio::test]
async fn a_killed_member_costs_no_new_connection() {
    let (node, apiservers) = node_with(3).await;
    apiservers[0].set(Mode::Killed);
    for _ in 0..30 {
        assert_ne!(node.who().await.unwrap(), "cp1");
    }
}

#[tokio::test]
async fn a_member_that_closes_before_its_first_byte_costs_no_new_connection() {
    let (node, apiservers) = node_with(3).await;
    apiservers[0].set(Mode::Closing);
    for _ in 0..30 {
        assert_ne!(node.who().await.unwrap(), "cp1");
    }
}

#[tokio::test]
async fn a_hung_member_costs_no_new_connection() {
    let (node, apiservers) = node_with(3).await;
    apiservers[0].set(Mode::Hung);
    // All at once, before any probe can have noticed.
    let mut attempts = JoinSet::new();
    for _ in 0..20 {
        let (proxy, tls) = shared(&node);
        attempts.spawn(async move { Client::connect(proxy, tls).await?.who().await });
    }
    for answer in attempts.join_all().await {
        assert_ne!(answer.unwrap(), "cp1");
    }
}

#[tokio::test]
async fn a_client_is_told_where_one_member_refuses_and_the_others_hang() {
    let (node, apiservers) = node_with(3).await;
    apiservers[0].set(Mode::Killed);
    all(&apiservers[1..], Mode::Hung);
    for hung in &apiservers[1..] {
        node.sees(hung, "Down").await;
    }
    let told = timeout(PATIENCE, node.client())
        .await
        .expect("the client is held");
    assert!(told.is_err());
}

#[tokio::test]
async fn a_client_that_takes_its_time_to_speak_loses_nothing_to_a_hung_member() {
    let (node, apiservers) = node_with(3).await;
    // They say nothing for longer than an open may take.
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(TcpStream::connect(node.proxy).await.unwrap());
    }
    sleep(Duration::from_millis(2500)).await;
    apiservers[0].set(Mode::Hung);
    let mut attempts = JoinSet::new();
    for stream in silent {
        let (_, tls) = shared(&node);
        attempts.spawn(async move { Client::over(stream, tls).await?.who().await });
    }
    let answers = attempts.join_all().await;
    for answer in answers {
        assert_ne!(answer.unwrap(), "cp1");
    }
}

/// Dials that a member has accepted.
async fn dials(node: &Node) -> u64 {
    let mut sum = 0;
    for member in ["cp1", "cp2", "cp3"] {
        let line = format!("trivet_proxy_dial_duration_seconds_count{{member=\"{member}\"}}");
        sum += node.metric(&line).await.unwrap_or_default();
    }
    sum
}

async fn ended(node: &Node, reason: &str) -> u64 {
    let line = format!("trivet_proxy_connections_ended_total{{reason=\"{reason}\"}}");
    node.metric(&line).await.unwrap_or_default()
}

async fn open_clients(node: &Node) -> u64 {
    node.metric("trivet_proxy_client_connections").await.unwrap()
}

#[tokio::test]
async fn a_client_that_says_nothing_costs_no_upstream_connection() {
    let (node, _apiservers) = node_with(3).await;
    crate::support::eventually("ready", async || node.ready().await).await;
    crate::support::eventually("alone", async || open_clients(&node).await == 0).await;
    let (dialled, finished) = (dials(&node).await, ended(&node, "Finished").await);
    for _ in 0..20 {
        drop(TcpStream::connect(node.proxy).await.unwrap());
    }
    crate::support::eventually("all have ended", async || {
        ended(&node, "Finished").await == finished + 20
    })
    .await;
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(TcpStream::connect(node.proxy).await.unwrap());
    }
    crate::support::eventually("accepted", async || open_clients(&node).await == 3).await;
    assert_eq!(dials(&node).await, dialled);
    for stream in silent {
        let mut client = Client::over(stream, node.authority.client()).await.unwrap();
        client.who().await.unwrap();
    }
    assert_eq!(dials(&node).await, dialled + 3);
}

#[tokio::test]
async fn silent_clients_give_their_slots_to_clients_that_speak() {
    let mut node = Node::new();
    let apiserver = Apiserver::start("cp1", node.authority.server());
    node.write(&node.pool().member(&apiserver).max_connections(FEWEST_CONNECTIONS));
    node.start().await;
    node.sees(&apiserver, "Up").await;
    crate::support::eventually("ready", async || node.ready().await).await;
    crate::support::eventually("alone", async || open_clients(&node).await == 0).await;
    let mut silent = Vec::new();
    for count in 1..=u64::from(FEWEST_CONNECTIONS) {
        silent.push(TcpStream::connect(node.proxy).await.unwrap());
        crate::support::eventually("accepted", async || open_clients(&node).await == count).await;
    }
    let mut clients = Vec::new();
    for _ in 0..FEWEST_CONNECTIONS {
        clients.push(node.client().await.unwrap());
    }
    let mut ends = Vec::new();
    for mut stream in silent {
        ends.push(stream.read(&mut [0]).await.unwrap_err().kind());
    }
    assert_eq!(
        ends,
        vec![ErrorKind::ConnectionReset; FEWEST_CONNECTIONS as usize]
    );
    assert_eq!(ended(&node, "ClientSilent").await, u64::from(FEWEST_CONNECTIONS));
    assert_eq!(ended(&node, "Shed").await, 0);
    // All slots are taken by clients that have spoken.
    assert!(node.client().await.is_err());
    for client in &mut clients {
        assert_eq!(client.who().await.unwrap(), "cp1");
    }
    assert_eq!(ended(&node, "Shed").await, 1);
}

#[tokio::test]
async fn two_hung_members_cost_no_new_connection() {
    let (node, apiservers) = node_with(3).await;
    all(&apiservers[..2], Mode::Hung);
    for _ in 0..10 {
        assert_eq!(node.who().await.unwrap(), "cp3");
    }
}

#[tokio::test]
async fn whoever_wins_the_race_for_a_first_flight_the_client_is_served_once_and_whole() {
    const ROUNDS: usize = 40;
    const CLIENTS: usize = 4;
    let (node, apiservers) = node_with(3).await;
    let before: usize = apiservers.iter().map(Apiserver::served).sum();
    let mut chance = StdRng::seed_from_u64(1);
    for round in 0..ROUNDS {
        // Two of three do not answer, or end before they do, and come back about when their flight is sent elsewhere.
        let (sick, well) = apiservers.split_at(2);
        for apiserver in sick {
            apiserver.set([Mode::Hung, Mode::Closing, Mode::Ready][chance.random_range(0..3)]);
        }
        let mut attempts = JoinSet::new();
        for _ in 0..CLIENTS {
            let (proxy, tls) = shared(&node);
            attempts.spawn(async move {
                let mut client = Client::connect(proxy, tls).await?;
                Ok::<_, std::io::Error>([client.who().await?, client.who().await?])
            });
        }
        sleep(Duration::from_millis(chance.random_range(30..150))).await;
        all(sick, Mode::Ready);
        for answer in attempts.join_all().await {
            // A byte lost, doubled or from another server breaks the handshake or its records.
            let [first, second] = answer.unwrap_or_else(|error| panic!("round {round}: {error}"));
            assert_eq!(first, second, "round {round}");
            assert!(
                sick.iter().chain(well).any(|apiserver| apiserver.name == first),
                "{first}"
            );
        }
    }
    let served = apiservers.iter().map(Apiserver::served).sum::<usize>() - before;
    assert_eq!(
        served,
        2 * ROUNDS * CLIENTS,
        "whoever lost the race never saw a request"
    );
    crate::support::eventually("nothing is left of those who lost", async || {
        for apiserver in &apiservers {
            let line = format!(
                "trivet_proxy_upstream_connections{{member=\"{}\"}}",
                apiserver.name
            );
            if node.metric(&line).await != Some(0) {
                return false;
            }
        }
        true
    })
    .await;
}

/// How long it takes until a client that has begun so is reset.
async fn reset_after(mut client: TcpStream) -> Duration {
    let started = Instant::now();
    let error = client.read(&mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    started.elapsed()
}

#[tokio::test]
async fn a_client_is_reset_within_two_seconds_when_nothing_is_usable() {
    let (node, apiservers) = node_with(3).await;
    all(&apiservers, Mode::Killed);
    let mut client = TcpStream::connect(node.proxy).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let after = reset_after(client).await;
    assert!(after < Duration::from_secs(2), "{after:?}");
    for apiserver in &apiservers {
        node.sees(apiserver, "Unready").await;
    }
    // From now on a client need not speak to be told.
    let after = reset_after(TcpStream::connect(node.proxy).await.unwrap()).await;
    assert!(after < Duration::from_secs(2), "{after:?}");
}

#[tokio::test]
async fn the_first_member_back_is_used_at_once() {
    let (node, apiservers) = node_with(3).await;
    all(&apiservers, Mode::Killed);
    assert!(node.who().await.is_err());
    apiservers[1].set(Mode::Ready);
    crate::support::eventually("cp2 serves again", async || node.who().await.is_ok()).await;
}

#[tokio::test]
async fn a_member_of_another_cluster_gets_no_connection_while_a_proven_one_is_left() {
    let mut node = Node::new();
    let ours = Apiserver::start("ours", node.authority.server());
    let foreign = Apiserver::start("foreign", Authority::new().server());
    node.write(&node.pool().member(&ours).member(&foreign));
    node.start().await;
    node.sees(&ours, "Up").await;
    for _ in 0..10 {
        assert_eq!(node.who().await.unwrap(), "ours");
    }
    // Not even to be picked for a moment and left again.
    let line = "trivet_proxy_connections_total{member=\"foreign\"}";
    assert_eq!(node.metric(line).await.unwrap_or_default(), 0);
    node.sees(&foreign, "Unready").await;
}

#[tokio::test]
async fn an_unproven_member_is_the_last_resort() {
    let mut node = Node::new();
    let gone = Apiserver::start("gone", node.authority.server());
    let expired = Apiserver::start("expired", node.authority.expired_server());
    node.write(&node.pool().member(&gone).member(&expired));
    node.start().await;
    node.sees(&gone, "Up").await;
    gone.set(Mode::Killed);
    // Its certificate is no good to this client either; that it was asked is what counts.
    assert!(node.who().await.is_err());
    let line = "trivet_proxy_connections_total{member=\"expired\"}";
    assert_eq!(node.metric(line).await, Some(1));
}

#[tokio::test]
async fn a_client_beyond_the_limit_is_shed_and_the_others_stay() {
    let mut node = Node::new();
    let apiserver = Apiserver::start("cp1", node.authority.server());
    node.write(&node.pool().member(&apiserver).max_connections(FEWEST_CONNECTIONS));
    node.start().await;
    node.sees(&apiserver, "Up").await;
    crate::support::eventually("ready", async || node.ready().await).await;
    let mut clients = Vec::new();
    for _ in 0..FEWEST_CONNECTIONS {
        clients.push(node.client().await.unwrap());
    }
    assert!(node.client().await.is_err());
    for client in &mut clients {
        assert_eq!(client.who().await.unwrap(), "cp1");
    }
    assert_eq!(
        node.metric("trivet_proxy_connections_ended_total{reason=\"Shed\"}")
            .await,
        Some(1)
    );
}

#[tokio::test]
async fn what_is_not_tls_is_forwarded_as_it_is() {
    let (node, _apiservers) = node_with(1).await;
    let mut client = TcpStream::connect(node.proxy).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // A TLS server answers plain text with an alert, and ends.
    client.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer.first(), Some(&21));
}

#[tokio::test]
async fn a_server_that_takes_its_time_to_read_keeps_its_connection() {
    let mut node = Node::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    node.write(&node.pool().impatient_with(listener.local_addr().unwrap()));
    node.start().await;
    crate::support::eventually("listens", async || TcpStream::connect(node.proxy).await.is_ok()).await;
    let mut client = TcpStream::connect(node.proxy).await.unwrap();
    // No TLS: what is written goes to the one member, be it proven or not.
    client.write_all(b"plain").await.unwrap();
    let mut server = loop {
        let (mut accepted, _) = listener.accept().await.unwrap();
        let mut began = [0; 5];
        // The others are probes.
        if accepted.read_exact(&mut began).await.is_ok() && &began == b"plain" {
            break accepted;
        }
    };
    let sent = tokio::spawn(async move {
        client.write_all(&vec![7; 32 << 20]).await?;
        client.shutdown().await
    });
    // Twice as long as the kernel is told to wait for a probe's words.
    sleep(Duration::from_secs(2)).await;
    let mut read = Vec::new();
    server.read_to_end(&mut read).await.unwrap();
    assert_eq!(read.len(), 32 << 20);
    sent.await.unwrap().unwrap();
}

/// A program that listens on the address, with SO_REUSEPORT if it would share it, until it is dropped.
struct Program(std::process::Child);

impl Program {
    fn listening_on(address: std::net::SocketAddr, shares: bool) -> Self {
        let script = format!(
            "import socket, time\n\
             s = socket.socket()\n\
             s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n\
             s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, {})\n\
             s.bind(('{}', {}))\n\
             s.listen()\n\
             print('listening', flush=True)\n\
             time.sleep(1000)\n",
            u8::from(shares),
            address.ip(),
            address.port()
        );
        let mut command = std::process::Command::new("python3");
        let mut child = command
            .args(["-c", &script])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut told = [0; 9];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut told).unwrap();
        Self(child)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[tokio::test]
async fn a_port_is_never_shared_with_another_program_and_that_is_named() {
    for shares in [false, true] {
        let mut node = Node::new();
        let apiserver = Apiserver::start("cp1", node.authority.server());
        let program = Program::listening_on(node.proxy, shares);
        node.write(&Pool::new(&node.authority, node.proxy.port()).member(&apiserver));
        node.start().await;
        let listener = node.proxy;
        let line = format!("trivet_proxy_listener_stranger{{listener=\"{listener}\",program=\"python3\"}}");
        crate::support::eventually("named", async || node.metric(&line).await == Some(1)).await;
        let status = node.status().await;
        let fault = status.listeners[0].fault.clone().unwrap();
        let pid = program.0.id();
        assert!(
            fault.starts_with(&format!("taken by python3 (pid {pid},")),
            "{fault}"
        );
        assert!(status.not_ready_because.unwrap().contains(&fault));
        drop(program);
        crate::support::eventually("ready", async || node.ready().await).await;
        assert_eq!(node.metric(&line).await, None);
        assert_eq!(node.who().await.unwrap(), "cp1");
    }
}

#[tokio::test]
async fn a_program_that_comes_to_share_the_port_makes_the_proxy_unready() {
    let (node, _apiservers) = node_with(1).await;
    crate::support::eventually("ready", async || node.ready().await).await;
    let program = Program::listening_on(node.proxy, true);
    crate::support::eventually("not ready", async || !node.ready().await).await;
    let fault = node.status().await.listeners[0].fault.clone().unwrap();
    assert!(fault.starts_with("shared with python3"), "{fault}");
    drop(program);
    crate::support::eventually("ready again", async || node.ready().await).await;
}

#[tokio::test]
async fn a_proxy_that_holds_only_one_of_its_addresses_serves_there_and_is_not_ready() {
    let (node, apiservers) = node_with(1).await;
    crate::support::eventually("ready", async || node.ready().await).await;
    let second: std::net::SocketAddr = ([127, 0, 0, 2], node.proxy.port()).into();
    let program = Program::listening_on(second, false);
    let pool = node.pool().revision(2).also_listening_on(second.ip());
    node.write(&pool.member(&apiservers[0]));
    let why = async || node.status().await.not_ready_because.unwrap_or_default();
    let told = format!("listener {second}: taken by python3");
    crate::support::eventually("told", async || why().await.starts_with(&told)).await;
    assert!(!node.ready().await);
    assert_eq!(node.who().await.unwrap(), "cp1");
    drop(program);
    crate::support::eventually("ready again", async || node.ready().await).await;
}

#[tokio::test]
async fn the_port_of_a_member_on_this_node_is_left_to_it() {
    let mut node = Node::new();
    let apiserver = Apiserver::start("cp1", node.authority.server());
    let port = apiserver.address.port();
    // Nothing listens there: an apiserver that listens on all addresses would need it when it restarts.
    let free: std::net::SocketAddr = ([127, 0, 0, 2], port).into();
    let pool = Pool::new(&node.authority, port).listening_on(free.ip());
    node.write(&pool.member(&apiserver).at("w1", ""));
    node.start().await;
    node.sees(&apiserver, "Up").await;
    let status = node.status().await;
    assert_eq!(
        status.listeners[0].fault.as_deref(),
        Some("not bound: a member listens on this port of this node")
    );
    assert!(!node.ready().await);
    assert!(TcpStream::connect(free).await.is_err(), "the proxy took it");
}

#[tokio::test]
async fn a_listener_that_serves_stays_when_a_member_is_said_to_be_on_its_port() {
    let mut node = Node::new();
    let apiserver = Apiserver::start("cp1", node.authority.server());
    let port = apiserver.address.port();
    let listener: std::net::SocketAddr = ([127, 0, 0, 2], port).into();
    let pool = || {
        let pool = Pool::new(&node.authority, port).listening_on(listener.ip());
        pool.member(&apiserver)
    };
    node.write(&pool());
    let edited = pool().revision(2).at("w1", "");
    node.start().await;
    node.sees(&apiserver, "Up").await;
    node.write(&edited);
    node.follows(2).await;
    assert_eq!(node.status().await.listeners[0].fault, None);
    TcpStream::connect(listener).await.unwrap();
}

#[tokio::test]
async fn a_taken_port_is_waited_for() {
    let mut node = Node::new();
    let apiserver = Apiserver::start("cp1", node.authority.server());
    let taken = std::net::TcpListener::bind(node.proxy).unwrap();
    node.write(&Pool::new(&node.authority, node.proxy.port()).member(&apiserver));
    node.start().await;
    let line = format!("trivet_proxy_listener_bound{{listener=\"{}\"}}", node.proxy);
    crate::support::eventually("said", async || node.metric(&line).await == Some(0)).await;
    assert!(!node.ready().await);
    drop(taken);
    crate::support::eventually("bound", async || node.metric(&line).await == Some(1)).await;
    assert_eq!(node.who().await.unwrap(), "cp1");
}
