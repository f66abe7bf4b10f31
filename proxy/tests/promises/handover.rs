//! A proxy takes the listeners over from another one of its node, and no client notices.

use std::{
    process::{Child, Command},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    sync::oneshot,
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep, timeout},
};
use trivet_crds::wire::Gate;
use trivet_proxy::handover::inquiry;

use crate::support::{
    apiserver::Apiserver,
    client::Client,
    eventually,
    node::{Node, shared},
};

/// New connections, begun every few milliseconds whether the last ones were answered or not.
struct Attempts {
    stop: oneshot::Sender<()>,
    made: JoinHandle<Vec<Attempt>>,
}

/// One of them.
#[derive(Debug)]
struct Attempt {
    begun: Instant,
    took: Duration,
    answer: std::io::Result<String>,
}

impl Attempts {
    fn start(node: &Node) -> Self {
        let (proxy, tls) = shared(node);
        let (stop, mut stopped) = oneshot::channel();
        let made = tokio::spawn(async move {
            let mut made = JoinSet::new();
            while stopped.try_recv().is_err() {
                let tls = tls.clone();
                made.spawn(async move {
                    let begun = Instant::now();
                    let answer = async { Client::connect(proxy, tls).await?.who().await }.await;
                    Attempt {
                        begun,
                        took: begun.elapsed(),
                        answer,
                    }
                });
                sleep(BETWEEN).await;
            }
            made.join_all().await
        });
        Self { stop, made }
    }

    async fn finish(self) -> Vec<Attempt> {
        self.stop.send(()).unwrap();
        self.made.await.unwrap()
    }

    /// Fails unless all were answered.
    async fn all_succeeded(self) {
        for attempt in self.finish().await {
            assert!(attempt.answer.is_ok(), "{attempt:?}");
        }
    }

    /// Fails unless all were answered that began after this moment. Returns the longest time that one took.
    async fn all_succeeded_since(self, moment: Instant) -> Duration {
        let made = self.finish().await.into_iter();
        let since: Vec<_> = made.filter(|attempt| attempt.begun > moment).collect();
        assert!(since.len() >= 20, "{}", since.len());
        for attempt in &since {
            assert!(attempt.answer.is_ok(), "{attempt:?}");
        }
        since.iter().map(|attempt| attempt.took).max().unwrap()
    }
}

/// The pause between two attempts.
const BETWEEN: Duration = Duration::from_millis(10);

/// How long a process may take to end, which is less than the 30 s for which it waits for another that hands over.
const END_LIMIT: Duration = Duration::from_secs(20);

/// A proxy that serves alone looks for others every 25 to 35 s.
const MEET_LIMIT: Duration = Duration::from_secs(60);

/// The program as a process of its own, which can be killed and stopped.
pub(crate) struct Process {
    child: Child,
    /// Its disk.
    pub(crate) node: Node,
}

impl Process {
    /// A process of the same node.
    pub(crate) fn start(node: &Node, class: &str, generation: u64) -> Self {
        Self::of_template(node, class, generation, "")
    }

    /// A process whose pod has this template.
    fn of_template(node: &Node, class: &str, generation: u64, template: &str) -> Self {
        Self::run(node, |command| {
            command
                .env("TRIVET_HANDOVER_DIR", node.path("handover"))
                .env("TRIVET_CLASS", class)
                .env("TRIVET_TEMPLATE", template)
                .env("TRIVET_TEMPLATE_GENERATION", generation.to_string());
        })
    }

    /// A process that shares its port, as a release does that knows no hand-over.
    fn without_hand_over(node: &Node) -> Self {
        Self::run(node, |_command| {})
    }

    /// A static pod whose cache is empty, and which nobody gives a document.
    fn static_without_document(node: &Node) -> Self {
        Self::start_in(node.successor_without_document(), |command| {
            command
                .env("TRIVET_HANDOVER_DIR", node.path("handover"))
                .env("TRIVET_CLASS", "Static");
        })
    }

    fn run(node: &Node, set: impl FnOnce(&mut Command)) -> Self {
        Self::start_in(node.successor(), set)
    }

    fn start_in(own: Node, set: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trivet-proxy"));
        command
            .args(["run", "--log-level", "error", "--node-name", "w1", "--config"])
            .arg(own.path("pool.json"))
            .arg("--cache-dir")
            .arg(own.path("cache"))
            .arg("--socket")
            .arg(own.path("proxy.sock"));
        set(&mut command);
        let child = command.spawn().unwrap();
        Self { child, node: own }
    }

    /// Waits until it has ended.
    async fn ended(&mut self) {
        let deadline = Instant::now() + END_LIMIT;
        while self.child.try_wait().unwrap().is_none() {
            assert!(
                Instant::now() < deadline,
                "not within {END_LIMIT:?}: it has ended"
            );
            sleep(BETWEEN).await;
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap());
        kill(pid, signal).unwrap();
    }

    /// Serves clients of this node for some seconds.
    async fn serves_in(&self, node: &Node) {
        let before = served(&self.node).await;
        for _ in 0..30 {
            assert_eq!(node.who().await.unwrap(), "cp1");
            sleep(BETWEEN * 10).await;
        }
        assert!(served(&self.node).await >= before + 30);
    }

    async fn serves(&self) {
        let before = served(&self.node).await;
        eventually("it serves", async || served(&self.node).await >= before + 20).await;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended.
        drop(self.child.kill());
        self.child.wait().unwrap();
    }
}

/// A node with a document, on which nothing runs yet.
fn node() -> (Node, Apiserver) {
    let node = Node::new();
    let apiserver = Apiserver::start("cp1", node.authority.server());
    node.write(&node.pool().member(&apiserver));
    (node, apiserver)
}

/// A pod of the DaemonSet that serves, and a standby that is warm.
async fn pod_and_standby(node: &Node) -> (Process, Process) {
    let serving = Process::start(node, "DaemonSet", 1);
    eventually("ready", async || serving.node.ready().await).await;
    let standby = Process::start(node, "Static", 0);
    eventually("the standby is ready", async || standby.node.ready().await).await;
    (serving, standby)
}

async fn serving(generation: u64) -> (Node, Apiserver) {
    let mut node = Node::new().of_generation(generation);
    let apiserver = Apiserver::start("cp1", node.authority.server());
    node.write(&node.pool().member(&apiserver));
    node.start().await;
    eventually("ready", async || node.ready().await).await;
    (node, apiserver)
}

/// How many clients' connections have ended at this proxy.
async fn served(node: &Node) -> u64 {
    let metrics = node.metrics().await;
    let ended = metrics
        .lines()
        .filter(|line| line.starts_with("trivet_proxy_connections_ended_total{"));
    ended
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

#[tokio::test]
async fn a_newer_proxy_takes_over_and_no_client_is_refused() {
    let (mut old, _apiserver) = serving(1).await;
    let attempts = Attempts::start(&old);
    let mut new = old.successor().of_generation(2);
    new.start().await;
    eventually("the newer one is ready", async || new.ready().await).await;
    assert!(old.ready().await, "one that has given stays ready");
    let before = served(&old).await;
    eventually("it serves", async || served(&new).await >= 20).await;
    assert!(served(&old).await <= before + 1, "both accept");
    old.stop().await;
    let before = served(&new).await;
    eventually("it goes on", async || served(&new).await >= before + 20).await;
    attempts.all_succeeded().await;
}

#[tokio::test]
async fn a_proxy_that_ends_gives_to_any_other_that_holds_its_listeners() {
    let (mut old, _apiserver) = serving(2).await;
    let attempts = Attempts::start(&old);
    // Its rank is lower: it would never take from one that stays.
    let mut other = old.successor().of_generation(1);
    other.start().await;
    eventually("it holds the listener", async || {
        other.metrics().await.contains("trivet_proxy_document_revision 1")
    })
    .await;
    assert!(!other.ready().await);
    old.stop().await;
    eventually("it serves", async || served(&other).await >= 20).await;
    eventually("it is ready", async || other.ready().await).await;
    attempts.all_succeeded().await;
}

#[tokio::test]
async fn the_one_that_gave_takes_back_when_the_other_ends() {
    let (old, _apiserver) = serving(1).await;
    let attempts = Attempts::start(&old);
    let mut new = old.successor().of_generation(2);
    new.start().await;
    eventually("the newer one is ready", async || new.ready().await).await;
    new.stop().await;
    let before = served(&old).await;
    eventually("the older one serves again", async || {
        served(&old).await >= before + 20
    })
    .await;
    assert!(old.ready().await);
    attempts.all_succeeded().await;
}

#[tokio::test]
async fn a_proxy_without_a_directory_serves_alone() {
    let mut node = Node::new().of_generation(1);
    let apiserver = Apiserver::start("cp1", node.authority.server());
    node.write(&node.pool().member(&apiserver));
    // A file is in the place of the directory.
    std::fs::write(node.path("handover"), "").unwrap();
    node.start().await;
    eventually("ready", async || node.ready().await).await;
    assert_eq!(node.who().await.unwrap(), "cp1");
    node.stop().await;
}

#[tokio::test]
async fn proxies_that_serve_alone_meet_once_they_can_and_no_client_is_refused() {
    let (node, _apiserver) = node();
    let directory = node.path("handover");
    std::fs::write(&directory, "").unwrap();
    let both = [1, 2].map(|generation| Process::start(&node, "DaemonSet", generation));
    for process in &both {
        eventually("it serves alone", async || process.node.ready().await).await;
    }
    std::fs::remove_file(&directory).unwrap();
    let have_met = async || {
        let processes = inquiry::ask(&directory, END_LIMIT).await;
        processes.is_ok_and(|found| found.holder.rank.generation == 2 && found.peers.len() == 1)
    };
    let until_then = async {
        while !have_met().await {
            assert_eq!(node.who().await.unwrap(), "cp1");
            sleep(BETWEEN * 10).await;
        }
    };
    timeout(MEET_LIMIT, until_then).await.unwrap();
    assert!(both[0].node.ready().await && both[1].node.ready().await);
    let [old, new] = both;
    // They cannot meet any more, and the one that serves goes on.
    std::fs::remove_dir_all(&directory).unwrap();
    std::fs::write(&directory, "").unwrap();
    new.serves_in(&node).await;
    // The other one goes on alone.
    drop(new);
    eventually("the other one serves", async || node.who().await.is_ok()).await;
    assert!(old.node.ready().await);
}

#[tokio::test]
async fn a_standby_goes_on_when_the_proxy_that_serves_is_killed() {
    let (node, _apiserver) = node();
    let (serving, standby) = pod_and_standby(&node).await;
    let attempts = Attempts::start(&node);
    serving.serves().await;
    serving.signal(Signal::SIGKILL);
    let killed = Instant::now();
    standby.serves().await;
    println!(
        "the slowest took {:?}",
        attempts.all_succeeded_since(killed).await
    );
}

#[tokio::test]
async fn a_standby_accepts_beside_a_proxy_that_hangs_until_it_runs_again() {
    let (node, _apiserver) = node();
    let (serving, standby) = pod_and_standby(&node).await;
    let attempts = Attempts::start(&node);
    serving.serves().await;
    serving.signal(Signal::SIGSTOP);
    let stopped = Instant::now();
    standby.serves().await;
    serving.signal(Signal::SIGCONT);
    eventually("only one accepts", async || {
        let before = served(&standby.node).await;
        serving.serves().await;
        served(&standby.node).await == before
    })
    .await;
    println!(
        "the slowest took {:?}",
        attempts.all_succeeded_since(stopped).await
    );
}

/// It answers all that it has, but cannot accept. One client is enough: a long queue would be noticed anyway.
#[tokio::test]
async fn a_standby_accepts_beside_a_proxy_without_files_until_it_has_some_again() {
    let (node, _apiserver) = node();
    let (serving, _standby) = pod_and_standby(&node).await;
    limit_files(&serving, 1);
    let limited = Instant::now();
    assert_eq!(node.who().await.unwrap(), "cp1");
    let took = limited.elapsed();
    println!("it took {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    limit_files(&serving, 1024);
    let before = served(&serving.node).await;
    eventually("it accepts again", async || {
        assert_eq!(node.who().await.unwrap(), "cp1");
        served(&serving.node).await > before
    })
    .await;
}

/// Lets a process open no more files than this.
pub(crate) fn limit_files(process: &Process, files: usize) {
    let limited = Command::new("prlimit")
        .args(["--pid", &process.id().to_string(), &format!("--nofile={files}:")])
        .status();
    assert!(limited.unwrap().success());
}

/// On a node that is new, the static pod may be the first to start.
#[tokio::test]
async fn a_standby_without_a_document_leaves_the_node_to_a_proxy_that_has_one() {
    let (node, _apiserver) = node();
    let standby = Process::static_without_document(&node);
    eventually("it runs", async || !standby.node.metrics().await.is_empty()).await;
    let pod = Process::start(&node, "DaemonSet", 1);
    eventually("the pod is ready", async || pod.node.ready().await).await;
    assert_eq!(node.who().await.unwrap(), "cp1");
    eventually("the standby is warm", async || standby.node.ready().await).await;
    // It has learned the document and holds the listener.
    drop(pod);
    eventually("the standby serves", async || node.who().await.is_ok()).await;
}

#[tokio::test]
async fn a_pod_of_the_daemon_set_takes_over_from_a_standby_that_serves() {
    let (node, _apiserver) = node();
    let standby = Process::start(&node, "Static", 0);
    eventually("it serves alone", async || standby.node.ready().await).await;
    let attempts = Attempts::start(&node);
    let pod = Process::start(&node, "DaemonSet", 1);
    eventually("the pod is ready", async || pod.node.ready().await).await;
    pod.serves().await;
    assert!(standby.node.ready().await);
    attempts.all_succeeded().await;
}

#[tokio::test]
async fn a_release_without_hand_over_is_replaced_and_comes_back_and_no_client_is_refused() {
    let (node, _apiserver) = node();
    let mut old = Process::without_hand_over(&node);
    eventually("the old one is ready", async || old.node.ready().await).await;
    let attempts = Attempts::start(&node);
    let mut new = Process::start(&node, "DaemonSet", 1);
    eventually("the new one is ready", async || new.node.ready().await).await;
    old.signal(Signal::SIGTERM);
    old.ended().await;
    new.serves().await;
    let back = Process::without_hand_over(&node);
    eventually("it is ready again", async || back.node.ready().await).await;
    new.signal(Signal::SIGTERM);
    new.ended().await;
    back.serves().await;
    attempts.all_succeeded().await;
}

#[tokio::test]
async fn a_release_without_hand_over_joins_the_port_of_a_proxy_that_ends_and_has_no_peer() {
    let (node, _apiserver) = node();
    let mut new = Process::start(&node, "DaemonSet", 1);
    eventually("ready", async || new.node.ready().await).await;
    let attempts = Attempts::start(&node);
    let back = Process::without_hand_over(&node);
    new.serves().await;
    assert!(!back.node.ready().await, "the port is closed to others");
    new.signal(Signal::SIGTERM);
    new.ended().await;
    back.serves().await;
    eventually("it is ready", async || back.node.ready().await).await;
    attempts.all_succeeded().await;
}

#[tokio::test]
async fn a_proxy_of_the_template_that_the_document_names_again_takes_back() {
    let (node, apiserver) = node();
    let pool = |revision, template| node.pool().member(&apiserver).revision(revision).naming(template);
    node.write(&pool(1, "a"));
    let former = Process::of_template(&node, "DaemonSet", 1, "a");
    eventually("ready", async || former.node.ready().await).await;
    let attempts = Attempts::start(&node);
    node.write(&pool(2, "b"));
    let latter = Process::of_template(&node, "DaemonSet", 2, "b");
    eventually("the latter is ready", async || latter.node.ready().await).await;
    latter.serves().await;
    assert!(former.node.ready().await);
    // The former gets it with the snapshot.
    latter.node.write(&pool(3, "a"));
    former.serves().await;
    assert!(former.node.ready().await);
    assert!(latter.node.ready().await, "one that has given stays ready");
    let before = served(&latter.node).await;
    former.serves().await;
    assert!(served(&latter.node).await <= before + 1, "both accept");
    attempts.all_succeeded().await;
}

#[tokio::test]
async fn a_proxy_of_a_new_template_waits_unready_until_the_gate_opens_on_its_node() {
    let (node, apiserver) = node();
    let pool = |revision, template| node.pool().member(&apiserver).revision(revision).naming(template);
    node.write(&pool(1, "a"));
    let former = Process::of_template(&node, "DaemonSet", 1, "a");
    eventually("ready", async || former.node.ready().await).await;
    let attempts = Attempts::start(&node);
    former.node.write(&pool(2, "b").gated(Gate::of_node("w2")));
    former.node.follows(2).await;
    // It starts with the document of before, in which its template has no gate.
    let latter = Process::of_template(&node, "DaemonSet", 2, "b");
    latter.node.follows(2).await;
    let waits = async || {
        let status = latter.node.status().await;
        let waits = status
            .not_ready_because
            .is_some_and(|why| why.contains("waiting until the rollout reaches this node"));
        waits
            && status
                .document
                .is_some_and(|document| document.waiting_template.as_deref() == Some("b"))
    };
    eventually("it waits", waits).await;
    former.serves().await;
    assert!(former.node.ready().await && !latter.node.ready().await);
    // The latter gets it with the snapshot.
    former.node.write(&pool(3, "b").gated(Gate::of_node("w1")));
    latter.serves().await;
    eventually("the latter is ready", async || latter.node.ready().await).await;
    assert!(former.node.ready().await, "one that has given stays ready");
    attempts.all_succeeded().await;
}
