//! The proxy's program, and what the kernel says of its process.

use std::{
    collections::BTreeSet,
    fs, io,
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::Arc,
    time::Duration,
};

use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::spawn_blocking,
    time::{Instant, sleep},
};
use trivet_crds::wire::{
    API_VERSION, Balancing, Connection, Document, HealthCheck, Listener, Member, MemberState, RolloutTarget,
    Tls,
};
use trivet_proxy::admin;

use crate::{addresses::free_address, echo::Echo};

/// The name of the file with the document.
const CONFIG: &str = "pool.json";

/// Becomes the proxy.
const PLAIN: &str = "exec \"$0\" \"$@\"";

/// Before it becomes one that hands over.
const HANDS_OVER: &str = "export TRIVET_CLASS=DaemonSet TRIVET_HANDOVER_DIR=\"$DISK/handover\"";

/// For the start on a machine that does much else.
const START: Duration = Duration::from_secs(20);

/// A running proxy before one upstream.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    /// Where it serves its metrics.
    pub(crate) metrics: SocketAddr,
    process: Child,
    node: Arc<Node>,
    socket: PathBuf,
}

/// What the proxies of a node share.
struct Node {
    address: SocketAddr,
    upstream: Echo,
    disk: TempDir,
}

impl Proxy {
    /// With as many files as may be.
    pub(crate) async fn start() -> Self {
        let proxy = Self::launch(PLAIN, "error", Stdio::inherit()).await;
        proxy.raise_own_files();
        proxy
    }

    /// With no more than so many files, for good.
    pub(crate) async fn start_with_files(files: usize) -> Self {
        let script = format!("ulimit -n {files}; {PLAIN}");
        Self::launch(&script, "error", Stdio::inherit()).await
    }

    /// With a log of all there is to say, into this.
    pub(crate) async fn start_talkative(stderr: impl Into<Stdio>) -> Self {
        Self::launch(PLAIN, "trace", stderr.into()).await
    }

    /// With the log that it has by default, into this.
    pub(crate) async fn start_logging(stderr: impl Into<Stdio>) -> Self {
        Self::launch(PLAIN, "info", stderr.into()).await
    }

    /// One that hands over to the next one of its node.
    pub(crate) async fn start_handing_over() -> Self {
        let script = format!("{HANDS_OVER}; {PLAIN}");
        let proxy = Self::launch(&script, "error", Stdio::inherit()).await;
        proxy.raise_own_files();
        proxy
    }

    /// The next one of its node, once it serves its metrics.
    pub(crate) async fn successor(&self) -> Self {
        let script = format!("{HANDS_OVER}; {PLAIN}");
        let node = Arc::clone(&self.node);
        let next = Self::spawn(node, "next", &script, "error", Stdio::inherit());
        let deadline = Instant::now() + START;
        while next.metric("trivet_proxy_document_revision").await != Some(1) {
            assert!(Instant::now() < deadline, "the next proxy has no document");
            sleep(Duration::from_millis(20)).await;
        }
        next
    }

    async fn launch(script: &str, level: &str, stderr: Stdio) -> Self {
        let upstream = Echo::start();
        let disk = tempfile::tempdir().unwrap();
        let address = free_address();
        fs::write(disk.path().join(CONFIG), document(address, upstream.address)).unwrap();
        let node = Arc::new(Node {
            address,
            upstream,
            disk,
        });
        let proxy = Self::spawn(node, "proxy", script, level, stderr);
        let deadline = Instant::now() + START;
        while proxy.ask(b"hello").await.is_err() {
            assert!(Instant::now() < deadline, "the proxy does not serve");
            sleep(Duration::from_millis(20)).await;
        }
        proxy
    }

    fn spawn(node: Arc<Node>, name: &str, script: &str, level: &str, stderr: Stdio) -> Self {
        let (metrics, disk) = (free_address(), node.disk.path());
        // Of the exec probes.
        let socket = disk.join(format!("{name}.sock"));
        let process = Command::new("sh")
            .args(["-c", script, &program(), "run", "--log-level", level, "--config"])
            .arg(disk.join(CONFIG))
            .arg("--socket")
            .arg(&socket)
            .args(["--metrics-address", &metrics.to_string()])
            .env("DISK", disk)
            .stdin(Stdio::null())
            .stderr(stderr)
            .spawn()
            .unwrap();
        Self {
            address: node.address,
            metrics,
            process,
            node,
            socket,
        }
    }

    /// Its upstream.
    pub(crate) fn upstream(&self) -> SocketAddr {
        self.node.upstream.address
    }

    /// A number among its metrics.
    pub(crate) async fn metric(&self, name: &str) -> Option<u64> {
        let asked = admin::ask(self.socket.clone(), "/metrics", Duration::from_secs(5));
        let (_, metrics) = asked.await.ok()?;
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line?.parse().ok()
    }

    /// Says something on a connection of its own and returns what comes back.
    pub(crate) async fn ask(&self, words: &[u8]) -> io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(self.address).await?;
        stream.write_all(words).await?;
        stream.shutdown().await?;
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await?;
        if heard.is_empty() {
            Err(io::ErrorKind::UnexpectedEof.into())
        } else {
            Ok(heard)
        }
    }

    /// Asks it as kubelet does, with a program of its own.
    pub(crate) async fn probe(&self, what: &str) -> Output {
        let mut command = Command::new(program());
        command.args(["probe", what, "--socket"]).arg(&self.socket);
        spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    /// Tells it to end, and waits until it has.
    pub(crate) async fn terminate(&mut self, within: Duration) -> ExitStatus {
        let pid = self.process.id().to_string();
        let done = Command::new("kill").arg(&pid).status().unwrap();
        assert!(done.success());
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the proxy does not end");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// The files it may open.
    pub(crate) fn limit_of_files(&self) -> usize {
        let limits = fs::read_to_string(self.proc("limits")).unwrap();
        let line = limits
            .lines()
            .find(|line| line.starts_with("Max open files"))
            .unwrap();
        line.split_whitespace().nth(3).unwrap().parse().unwrap()
    }

    /// Lets it open no more files than this, or as many again.
    pub(crate) fn limit_files(&self, files: usize) {
        let pid = self.process.id().to_string();
        // The hard limit stays, or only root could raise the soft one again.
        let limit = format!("--nofile={files}:");
        let done = Command::new("prlimit")
            .args(["--pid", &pid, &limit])
            .status()
            .unwrap();
        assert!(done.success());
    }

    /// Lets it open one more file.
    pub(crate) fn leave_one_file(&self) {
        let entries = fs::read_dir(self.proc("fd")).unwrap();
        let number = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        let open: BTreeSet<usize> = entries.map(|entry| number(entry).parse().unwrap()).collect();
        let mut free = (0..).filter(|number| !open.contains(number));
        self.limit_files(free.nth(1).unwrap());
    }

    /// The most connections that its files allow it, as it counts them itself.
    pub(crate) fn most_pairs(&self) -> usize {
        (self.limit_of_files() * 95 / 100 - 256) / 2
    }

    /// The memory it has to itself, in bytes.
    pub(crate) fn memory(&self) -> usize {
        let rollup = fs::read_to_string(self.proc("smaps_rollup")).unwrap();
        let line = rollup.lines().find(|line| line.starts_with("Pss:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
    }

    /// The time on a CPU that it has had.
    pub(crate) fn cpu(&self) -> Duration {
        let tasks = fs::read_dir(self.proc("task")).unwrap();
        let of_task = |task: io::Result<fs::DirEntry>| {
            let schedstat = fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap();
            Duration::from_nanos(schedstat.split_whitespace().next().unwrap().parse().unwrap())
        };
        tasks.map(of_task).sum()
    }

    fn proc(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.process.id())
    }

    /// This process, whose tests run side by side, needs as many files as the proxy that has most.
    fn raise_own_files(&self) {
        let pid = std::process::id().to_string();
        let limit = format!("--nofile={}:", self.limit_of_files());
        assert!(
            Command::new("prlimit")
                .args(["--pid", &pid, &limit])
                .status()
                .unwrap()
                .success()
        );
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended.
        drop(self.process.kill());
        self.process.wait().unwrap();
    }
}

/// The proxy's program: another one, as of another profile, if `TRIVET_PROGRAM` names it.
#[allow(clippy::disallowed_methods, reason = "a test has no command line of its own")]
fn program() -> String {
    std::env::var("TRIVET_PROGRAM").unwrap_or_else(|_unset| env!("CARGO_BIN_EXE_trivet-proxy").to_owned())
}

fn document(listener: SocketAddr, upstream: SocketAddr) -> String {
    let key = KeyPair::generate().unwrap();
    let authority = CertificateParams::new(Vec::<String>::new())
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let document = Document {
        api_version: API_VERSION.to_owned(),
        pool: "default".to_owned(),
        revision: 1,
        hash: String::new(),
        members: vec![Member {
            name: "echo".to_owned(),
            addresses: vec![upstream.ip()],
            port: upstream.port(),
            state: MemberState::Active,
            zone: String::new(),
            node_name: String::new(),
        }],
        disabled_members: Vec::new(),
        further_endpoints: Vec::new(),
        listeners: vec![Listener::apiserver(vec![listener.ip()], listener.port())],
        balancing: Balancing::default(),
        rollout: RolloutTarget::default(),
        health_check: HealthCheck {
            period_milliseconds: 1000,
            timeout_milliseconds: 1000,
            failure_threshold: 2,
            success_threshold: 2,
        },
        connection: Connection {
            connect_timeout_milliseconds: 1000,
            hedge_delay_milliseconds: 250,
            user_timeout_milliseconds: 5000,
            keep_alive_seconds: 5,
            drain_timeout_seconds: 1,
            max_connections: 20_000,
        },
        nodes: 5,
        tls: Tls {
            ca_bundle: authority.pem(),
            server_name: "kubernetes".to_owned(),
        },
    };
    document.seal().unwrap().to_text().unwrap()
}
