//! The proxy's program, and what the kernel says of its process.

use std::{
    fs, io,
    net::SocketAddr,
    process::{Child, Command, ExitStatus, Output, Stdio},
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

use crate::{addresses::free_address, echo::Echo};

/// The name of the socket of the exec probes.
const SOCKET: &str = "proxy.sock";

/// Becomes the proxy.
const PLAIN: &str = "exec \"$0\" \"$@\"";

/// A running proxy before one upstream.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    /// Where it serves its metrics.
    pub(crate) metrics: SocketAddr,
    process: Child,
    _upstream: Echo,
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

    async fn launch(script: &str, level: &str, stderr: Stdio) -> Self {
        let upstream = Echo::start();
        let disk = tempfile::tempdir().unwrap();
        let (address, metrics) = (free_address(), free_address());
        let config = disk.path().join("pool.json");
        fs::write(&config, document(address, upstream.address)).unwrap();
        let process = Command::new("sh")
            .args([
                "-c",
                script,
                env!("CARGO_BIN_EXE_trivet-proxy"),
                "run",
                "--log-level",
                level,
                "--config",
            ])
            .arg(&config)
            .arg("--socket")
            .arg(disk.path().join(SOCKET))
            .args(["--metrics-address", &metrics.to_string()])
            .stdin(Stdio::null())
            .stderr(stderr)
            .spawn()
            .unwrap();
        let proxy = Self {
            address,
            metrics,
            process,
            _upstream: upstream,
            disk,
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        while proxy.ask(b"hello").await.is_err() {
            assert!(Instant::now() < deadline, "the proxy does not serve");
            sleep(Duration::from_millis(20)).await;
        }
        proxy
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
        let mut command = Command::new(env!("CARGO_BIN_EXE_trivet-proxy"));
        command
            .args(["probe", what, "--socket"])
            .arg(self.disk.path().join(SOCKET));
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
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
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
        listeners: vec![Listener {
            name: "apiserver".to_owned(),
            addresses: vec![listener.ip()],
            port: listener.port(),
        }],
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
