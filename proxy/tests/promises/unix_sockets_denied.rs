//! A node that denies unix sockets: the proxy serves alone, and exec probes read its answers from a file.
//!
//! Here the sockets fail because their paths are too long, which needs no right and no other program.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::support::{apiserver::Apiserver, eventually, node::Node};

const PROGRAM: &str = env!("CARGO_BIN_EXE_trivet-proxy");

/// A proxy as a process, which ends with the test.
struct Proxy {
    child: Child,
    socket: PathBuf,
}

impl Proxy {
    fn start(node: &Node) -> Self {
        fs::create_dir_all(Self::directory(node)).unwrap();
        Self::start_as_it_is(node)
    }

    fn directory(node: &Node) -> PathBuf {
        node.path(&"x".repeat(120))
    }

    fn start_as_it_is(node: &Node) -> Self {
        let directory = Self::directory(node);
        let socket = directory.join("proxy.sock");
        let child = Command::new(PROGRAM)
            .args(["run", "--log-level", "error", "--node-name", "w1", "--config"])
            .arg(node.path("pool.json"))
            .arg("--socket")
            .arg(&socket)
            .env("TRIVET_HANDOVER_DIR", directory.join("handover"))
            .spawn()
            .unwrap();
        Self { child, socket }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap());
        kill(pid, signal).unwrap();
    }

    fn probe(&self, question: &str) -> Output {
        probe(question, &self.socket)
    }

    fn agrees(&self, question: &str) -> bool {
        self.probe(question).status.success()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended.
        drop(self.child.kill());
        self.child.wait().unwrap();
    }
}

fn probe(question: &str, socket: &Path) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(["probe", question, "--socket"]).arg(socket);
    command.output().unwrap()
}

fn told(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[tokio::test]
async fn the_proxy_serves_and_answers_its_probes() {
    let node = Node::new();
    let apiserver = Apiserver::start("cp1", node.authority.server());
    node.write(&node.pool().member(&apiserver));
    let proxy = Proxy::start(&node);
    eventually("ready", async || proxy.agrees("ready")).await;
    assert!(proxy.agrees("startup") && proxy.agrees("live"));
    assert_eq!(node.who().await.unwrap(), "cp1");
}

/// As on a full disk: neither the socket nor the file can be made.
#[tokio::test]
async fn a_proxy_that_cannot_answer_its_probes_serves_and_answers_once_it_can() {
    let node = Node::new();
    let apiserver = Apiserver::start("cp1", node.authority.server());
    node.write(&node.pool().member(&apiserver));
    fs::write(Proxy::directory(&node), "").unwrap();
    let proxy = Proxy::start_as_it_is(&node);
    eventually("it serves", async || node.who().await.is_ok()).await;
    assert!(!proxy.agrees("live"));
    fs::remove_file(Proxy::directory(&node)).unwrap();
    fs::create_dir_all(Proxy::directory(&node)).unwrap();
    eventually("it answers", async || proxy.agrees("ready")).await;
}

#[tokio::test]
async fn a_proxy_without_a_member_is_alive_and_not_ready() {
    let node = Node::new();
    node.write_text("{}");
    let proxy = Proxy::start(&node);
    eventually("alive", async || proxy.agrees("live")).await;
    let ready = proxy.probe("ready");
    assert_eq!(ready.status.code(), Some(1));
    let words = String::from_utf8(ready.stdout).unwrap();
    assert!(words.starts_with("this proxy is "), "{words}");
}

#[tokio::test]
async fn a_proxy_whose_event_loop_stops_is_not_alive_until_it_goes_on() {
    let node = Node::new();
    node.write_text("{}");
    let proxy = Proxy::start(&node);
    eventually("alive", async || proxy.agrees("live")).await;
    proxy.signal(Signal::SIGSTOP);
    eventually("not alive", async || !proxy.agrees("live")).await;
    let told = told(&proxy.probe("live"));
    assert!(told.contains("event loop has not turned"), "{told}");
    proxy.signal(Signal::SIGCONT);
    eventually("alive again", async || proxy.agrees("live")).await;
}

#[test]
fn a_probe_without_a_proxy_and_its_file_says_where_it_asked() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("proxy.sock");
    let output = probe("live", &socket);
    assert_eq!(output.status.code(), Some(1));
    let told = told(&output);
    assert!(told.contains(&format!("{}", socket.display())), "{told}");
}

#[test]
fn the_runtime_makes_no_pair_of_unix_sockets() {
    let manifest = include_str!("../../Cargo.toml");
    let mut lines = manifest.lines().filter(|line| line.starts_with("tokio = "));
    // In the image the program has the features of this line alone.
    assert!(lines.all(|line| !line.contains("\"signal\"") && !line.contains("\"process\"")));
}
