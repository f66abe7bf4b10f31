//! A proxy that systemd runs: it uses the sockets that it is given, and says when it listens.

use std::{
    io::{ErrorKind, Read},
    net::{IpAddr, SocketAddr, TcpListener},
    os::{
        fd::OwnedFd,
        unix::net::{UnixDatagram, UnixListener},
    },
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{io::AsyncReadExt, net::TcpStream, task::spawn_blocking, time::timeout};
use trivet_proxy::systemd::sockets::PassedSockets;

use crate::{
    addresses::free_address,
    support::{
        apiserver::Apiserver,
        client::Client,
        eventually,
        node::{Node, shared},
    },
};

/// Becomes the proxy, with standard input as the passed socket. A descriptor above 2 does not survive `exec` from Rust,
/// and the shell's own process id is that of the proxy.
const ACTIVATE: &str =
    "exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=api exec \"$0\" \"$@\"";

/// Becomes the proxy as it is.
const PLAIN: &str = "exec \"$0\" \"$@\"";

/// The program, started as a unit.
struct Unit(Child);

impl Unit {
    fn start(node: &Node, script: &str, passed: impl Into<Stdio>, notify: Option<&str>) -> Self {
        let mut command = Command::new("sh");
        command
            .args(["-c", script, env!("CARGO_BIN_EXE_trivet-proxy"), "run"])
            .args(["--log-level", "error", "--node-name", "w1", "--config"])
            .arg(node.path("pool.json"))
            .arg("--cache-dir")
            .arg(node.path("cache"))
            .arg("--socket")
            .arg(node.path("proxy.sock"))
            .stdin(passed)
            .stderr(Stdio::piped());
        if let Some(notify) = notify {
            command.env("NOTIFY_SOCKET", notify);
        }
        Self(command.spawn().unwrap())
    }

    fn terminate(&self) {
        let killed = Command::new("kill").arg(self.0.id().to_string()).status();
        assert!(killed.unwrap().success());
    }

    async fn end(self) {
        self.terminate();
        self.ended().await;
    }

    /// Waits for the end that was asked for before: a second signal would be an abort.
    async fn ended(mut self) {
        spawn_blocking(move || assert!(self.0.wait().unwrap().success()))
            .await
            .unwrap();
    }

    /// Waits until it fails, and returns its exit code and what it said.
    async fn failed(mut self) -> (Option<i32>, String) {
        spawn_blocking(move || {
            let mut said = String::new();
            self.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            (self.0.wait().unwrap().code(), said)
        })
        .await
        .unwrap()
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        // It may have ended.
        drop(self.0.kill());
        self.0.wait().unwrap();
    }
}

/// The socket of systemd that hears the unit.
struct Manager(tokio::net::UnixDatagram);

impl Manager {
    fn new(path: &str) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self(tokio::net::UnixDatagram::from_std(socket).unwrap())
    }

    async fn hears(&self) -> String {
        let mut message = [0; 4096];
        let heard = timeout(Duration::from_secs(20), self.0.recv(&mut message)).await;
        String::from_utf8_lossy(&message[..heard.unwrap().unwrap()]).into_owned()
    }

    /// Waits for a message with this text; none before it says `READY=1`.
    async fn hears_before_ready(&self, text: &str) {
        loop {
            let message = self.hears().await;
            assert!(!message.contains("READY=1"), "{message}");
            if message.contains(text) {
                return;
            }
        }
    }

    async fn hears_of(&self, text: &str) -> String {
        loop {
            let message = self.hears().await;
            if message.contains(text) {
                return message;
            }
        }
    }
}

/// A socket as a socket unit makes it.
fn socket_unit(address: SocketAddr) -> TcpListener {
    TcpListener::bind(address).unwrap()
}

fn passed(listener: &TcpListener) -> Stdio {
    OwnedFd::from(listener.try_clone().unwrap()).into()
}

fn node_before(apiserver: &Apiserver, node: Node) -> Node {
    node.write(&node.pool().member(apiserver));
    node
}

#[tokio::test]
async fn systemd_hears_that_the_proxy_has_started_once_it_listens_and_not_before() {
    let node = Node::new();
    // No apiserver runs there: to have started means to listen, not to have an upstream.
    node.write(&node.pool().impatient_with(free_address()));
    let stranger = socket_unit(node.proxy);
    let path = node.path("notify");
    let manager = Manager::new(path.to_str().unwrap());
    let unit = Unit::start(&node, PLAIN, Stdio::null(), path.to_str());
    manager.hears_before_ready("taken by").await;
    drop(stranger);
    let started = manager.hears_of("READY=1").await;
    let status = format!("STATUS=listening on {}; 0 of 1 members are Up", node.proxy);
    assert!(started.contains(&status), "{started}");
    // Without an upstream its clients are reset, some before they know that they are connected.
    let refused = TcpStream::connect(node.proxy)
        .await
        .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused);
    assert!(!refused);
    unit.terminate();
    manager.hears_of("STOPPING=1").await;
    unit.ended().await;
}

#[tokio::test]
async fn a_restart_of_the_unit_refuses_nobody() {
    let node = Node::new();
    let apiserver = Apiserver::start("cp1", node.authority.server());
    let node = node_before(&apiserver, node);
    let held = socket_unit(node.proxy);
    let mut unit = Unit::start(&node, ACTIVATE, passed(&held), None);
    node.sees(&apiserver, "Up").await;
    let done = Arc::new(AtomicBool::new(false));
    let (proxy, tls) = shared(&node);
    let clients = tokio::spawn({
        let done = Arc::clone(&done);
        async move {
            let mut served = 0;
            while !done.load(Ordering::Relaxed) {
                let mut client = Client::connect(proxy, Arc::clone(&tls)).await.unwrap();
                assert_eq!(client.who().await.unwrap(), "cp1");
                served += 1;
            }
            served
        }
    });
    for _ in 0..3 {
        // A client that stays keeps the proxy in its drain, during which others come.
        let mut staying = node.client().await.unwrap();
        assert_eq!(staying.who().await.unwrap(), "cp1");
        unit.end().await;
        unit = Unit::start(&node, ACTIVATE, passed(&held), None);
        assert_eq!(node.who().await.unwrap(), "cp1");
    }
    done.store(true, Ordering::Relaxed);
    assert!(clients.await.unwrap() > 3);
}

#[tokio::test]
async fn a_socket_of_systemd_still_listens_when_the_proxy_has_ended() {
    let node = Node::new();
    let apiserver = Apiserver::start("cp1", node.authority.server());
    let node = node_before(&apiserver, node);
    let held = socket_unit(node.proxy);
    let unit = Unit::start(&node, ACTIVATE, passed(&held), None);
    assert_eq!(node.who().await.unwrap(), "cp1");
    unit.end().await;
    let client = TcpStream::connect(node.proxy).await.unwrap();
    held.set_nonblocking(true).unwrap();
    let (_, peer) = held.accept().unwrap();
    assert_eq!(peer, client.local_addr().unwrap());
}

#[tokio::test]
async fn an_address_that_systemd_did_not_pass_is_bound() {
    let node = Node::new();
    let apiserver = Apiserver::start("cp1", node.authority.server());
    let other: IpAddr = "127.0.0.2".parse().unwrap();
    node.write(&node.pool().also_listening_on(other).member(&apiserver));
    let held = socket_unit(node.proxy);
    let _unit = Unit::start(&node, ACTIVATE, passed(&held), None);
    for address in [node.proxy, SocketAddr::new(other, node.proxy.port())] {
        eventually("served", async || {
            let client = Client::connect(address, node.authority.client()).await;
            client.is_ok_and(|_| true)
        })
        .await;
    }
    let status = node.status().await;
    assert!(
        status.listeners.iter().all(|listener| listener.bound),
        "{status:?}"
    );
}

#[tokio::test]
async fn a_socket_that_is_no_listener_of_the_document_resets_its_clients_and_is_named() {
    let mut node = Node::new();
    let apiserver = Apiserver::start("cp1", node.authority.server());
    let stray = SocketAddr::new("127.0.0.2".parse().unwrap(), node.proxy.port());
    node.passed = PassedSockets::new([
        ("api".to_owned(), socket_unit(node.proxy)),
        ("stray.socket".to_owned(), socket_unit(stray)),
    ])
    .unwrap();
    node.start().await;
    // Without a document nothing is served, and nobody waits.
    assert_eq!(end_of(node.proxy).await, ErrorKind::ConnectionReset);
    node.write(&node.pool().member(&apiserver));
    node.sees(&apiserver, "Up").await;
    assert_eq!(node.who().await.unwrap(), "cp1");
    assert_eq!(end_of(stray).await, ErrorKind::ConnectionReset);
    let warnings = node.status().await.warnings;
    assert_eq!(warnings[0].reason, "SocketNotInDocument");
    let named = format!("{stray} (stray.socket)");
    assert!(warnings[0].message.contains(&named), "{warnings:?}");
    // An edit of the document makes it a listener, and the first one no longer.
    node.write(
        &node
            .pool()
            .listening_on(stray.ip())
            .member(&apiserver)
            .revision(2),
    );
    node.follows(2).await;
    let client = Client::connect(stray, node.authority.client()).await;
    assert_eq!(client.unwrap().who().await.unwrap(), "cp1");
    assert_eq!(end_of(node.proxy).await, ErrorKind::ConnectionReset);
    node.stop().await;
}

/// How a connection to this address ends that nobody writes to.
async fn end_of(address: SocketAddr) -> ErrorKind {
    let mut client = TcpStream::connect(address).await.unwrap();
    let read = timeout(Duration::from_secs(5), client.read(&mut [0])).await;
    read.unwrap().unwrap_err().kind()
}

#[tokio::test]
async fn what_is_no_listening_tcp_socket_ends_the_proxy_with_64_and_is_named() {
    let node = Node::new();
    node.write(&node.pool().impatient_with(free_address()));
    let local = UnixListener::bind(node.path("unit.sock")).unwrap();
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for wrong in [
        Stdio::from(OwnedFd::from(local)),
        OwnedFd::from(udp).into(),
        std::fs::File::open(node.path("pool.json")).unwrap().into(),
    ] {
        let unit = Unit::start(&node, ACTIVATE, wrong, None);
        let (code, said) = unit.failed().await;
        assert_eq!(code, Some(64), "{said}");
        assert!(
            said.contains("file descriptor 3 (\"api\") of systemd must be a listening TCP socket"),
            "{said}"
        );
    }
}
