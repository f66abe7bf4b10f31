//! A lab: a node with the proxy, members with fake apiservers, and faults.

use std::{
    fs::{self, File},
    future::Future,
    net::SocketAddr,
    panic,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, setns};
use rustls::ClientConfig;
use tempfile::TempDir;
use trivet_instruments::{Attempts, Client, Record, inside, promptly, stream};

use crate::{
    apiserver::{Apiserver, Recipe},
    authority::{self, Authority, Dates},
    document::{APISERVER, PROXY, Pool},
    fault::{self, Fault},
    network::{Network, Place},
    process,
    proxy::{self, Proxy},
    watches::Watches,
};

/// The limit for the proxy and its members to be Up after their start.
const START_LIMIT: Duration = Duration::from_secs(30);

/// The programs of a lab. Cargo tells them to the tests of this package only.
#[derive(Clone, Copy, Debug)]
pub struct Programs {
    /// The proxy.
    pub proxy: &'static str,
    /// The fake apiserver.
    pub apiserver: &'static str,
}

/// A node, its proxy and its apiservers.
#[derive(Debug)]
pub struct Lab {
    /// The members' apiservers: `cp1`, `cp2`, …
    pub apiservers: Vec<Apiserver>,
    /// The authority that signs their certificates.
    pub authority: Authority,
    reference: Option<Apiserver>,
    proxy: Option<Proxy>,
    tls: Arc<ClientConfig>,
    programs: Programs,
    network: Arc<Network>,
    disk: TempDir,
}

/// Runs `scenario` in a lab with so many members, none of them started yet.
///
/// The scenario has a thread of its own, which lives in the node's network: sockets that it makes are the node's, and
/// the lab's processes end with it.
pub fn run(
    programs: Programs,
    members: u8,
    scenario: impl AsyncFnOnce(&mut Lab) -> Result<()> + Send + 'static,
) -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "a lab makes network namespaces and must run as root: try again with sudo"
    );
    let places = [Place::Node, Place::Reference]
        .into_iter()
        .chain((1..=members).map(Place::Member));
    let network = Arc::new(Network::lay(&places.collect::<Vec<_>>())?);
    let work = move || {
        let path = network.path(Place::Node);
        let node = File::open(&path).with_context(|| format!("failed to open {}", path.display()))?;
        setns(node, CloneFlags::CLONE_NEWNET).context("failed to enter the node's network")?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let mut lab = Lab::new(programs, Arc::clone(&network), members)?;
            let outcome = scenario(&mut lab).await;
            if outcome.is_err() {
                lab.tell();
            }
            outcome
        })
    };
    let thread = thread::Builder::new().name(thread_name()).spawn(work)?;
    match thread.join() {
        Ok(outcome) => outcome,
        Err(panicked) => panic::resume_unwind(panicked),
    }
}

/// A panic names its thread, and that should be its test.
fn thread_name() -> String {
    thread::current().name().unwrap_or("lab").to_owned()
}

impl Lab {
    fn new(programs: Programs, network: Arc<Network>, members: u8) -> Result<Self> {
        let disk = tempfile::tempdir().context("failed to make the lab's directory")?;
        let authority = Authority::new()?;
        let tls = authority::trusting(&[&authority])?;
        let lab = Self {
            apiservers: Vec::with_capacity(members.into()),
            authority,
            reference: None,
            proxy: None,
            tls,
            programs,
            network,
            disk,
        };
        Ok(lab)
    }

    /// Starts an apiserver at each of the first `count` members' places, and the one for reference.
    pub async fn start_apiservers(&mut self, count: u8, shutdown_delay: Duration) -> Result<()> {
        for index in 1..=count {
            let apiserver = self.apiserver_at(Place::Member(index), shutdown_delay).await?;
            self.apiservers.push(apiserver);
        }
        self.reference = Some(self.apiserver_at(Place::Reference, Duration::ZERO).await?);
        Ok(())
    }

    async fn apiserver_at(&self, place: Place, shutdown_delay: Duration) -> Result<Apiserver> {
        let recipe = Recipe {
            program: PathBuf::from(self.programs.apiserver),
            namespace: self.network.namespace(place),
            identity: self.authority.sign(self.disk(), &place.name(), Dates::Good)?,
            name: place.name(),
            shutdown_delay,
        };
        Apiserver::start(recipe).await
    }

    /// An empty pool of this lab.
    pub fn pool(&self) -> Pool {
        Pool::new(&self.authority)
    }

    /// The pool of all members that have an apiserver.
    pub fn whole_pool(&self) -> Pool {
        let places = (1..=u8::MAX).map(Place::Member).take(self.apiservers.len());
        places.fold(self.pool(), Pool::member)
    }

    /// Writes the proxy's document atomically, as kubelet does.
    pub fn write(&self, pool: &Pool) -> Result<()> {
        let (new, file) = (self.disk().join("pool.new"), self.disk().join("pool.json"));
        fs::write(&new, pool.text()?)
            .and_then(|()| fs::rename(new, file))
            .context("failed to write the document")
    }

    /// Removes the proxy's document, but not its cache.
    pub fn take_document_away(&self) -> Result<()> {
        fs::remove_file(self.disk().join("pool.json")).context("failed to remove the document")
    }

    /// The directory of all the lab's files. The proxy's cache is `cache` in it.
    pub fn disk(&self) -> &Path {
        self.disk.path()
    }

    /// Starts the proxy with the files that are on the disk.
    pub fn start_proxy(&mut self) -> Result<()> {
        let namespace = self.network.namespace(Place::Node);
        self.proxy = Some(Proxy::start(
            Path::new(self.programs.proxy),
            &namespace,
            self.disk(),
        )?);
        Ok(())
    }

    /// Makes the apiservers report their health only to callers with a token, and gives one to the proxy.
    pub async fn demand_a_token(&mut self) -> Result<()> {
        let token = "token-of-the-proxy";
        fs::write(self.disk().join(proxy::TOKEN), token).context("failed to write the token")?;
        for apiserver in &mut self.apiservers {
            apiserver
                .behave(|behaviour| behaviour.token = Some(token.to_owned()))
                .await?;
        }
        Ok(())
    }

    /// Starts the proxy before all members that have an apiserver, and waits until each of them is Up.
    pub async fn serve(&mut self) -> Result<()> {
        self.write(&self.whole_pool())?;
        self.start_proxy()?;
        for apiserver in &self.apiservers {
            self.proxy().comes_to_see(apiserver.name(), "Up").await?;
        }
        let client = self.client();
        let listening = async || client.who().await.is_ok();
        promptly(START_LIMIT, "the proxy listens", listening)
            .await
            .map(drop)
    }

    /// The proxy.
    ///
    /// # Panics
    ///
    /// If it was not started: a mistake of the test.
    #[allow(
        clippy::expect_used,
        reason = "a test that asks a proxy it has not started is wrong"
    )]
    pub fn proxy(&self) -> &Proxy {
        self.proxy.as_ref().expect("the test has started the proxy")
    }

    /// Takes the proxy out of the lab, to end it.
    pub fn take_proxy(&mut self) -> Result<Proxy> {
        self.proxy.take().context("there is no proxy to take")
    }

    /// A client on the node, of the proxy by way of 127.0.0.1.
    pub fn client(&self) -> Client {
        self.client_at(SocketAddr::from(([127, 0, 0, 1], PROXY)))
    }

    /// A client on the node, of the proxy by way of ::1.
    pub fn client_v6(&self) -> Client {
        self.client_at(SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], PROXY)))
    }

    fn client_at(&self, target: SocketAddr) -> Client {
        Client::new(Arc::clone(&self.tls), target, "/whoami")
    }

    /// Makes clients from now on trust this authority as well.
    pub fn trust_too(&mut self, other: &Authority) -> Result<()> {
        self.tls = authority::trusting(&[&self.authority, other])?;
        Ok(())
    }

    /// Starts new connections at a steady rate, each with a request for `path`.
    ///
    /// A second stream of connections goes to an apiserver without faults, without the proxy: the slowest of those shows the
    /// share of the machine.
    pub fn attempts_at(&self, path: &str, per_second: u32) -> Attempts {
        let (proxy, period) = (
            self.client().asking(path),
            Duration::from_secs(1) / per_second.max(1),
        );
        let reference = self.client_at(SocketAddr::new(Place::Reference.ipv4(), APISERVER));
        Attempts::start(move |stop| async move {
            // Half the rate is enough to sample the same moments, and costs the machine less.
            let reference = tokio::spawn(stream(reference, period * 2, stop.clone()));
            let through = stream(proxy, period, stop).await;
            Ok(Record::new(through).beside(reference.await?))
        })
    }

    /// Starts new connections at a steady rate: the 20 a second of a busy node.
    pub fn attempts(&self) -> Attempts {
        self.attempts_at("/whoami", 20)
    }

    /// Opens watches; returns once each has ticked.
    pub async fn watches(&self, count: usize) -> Watches {
        Watches::start(&self.client(), count).await
    }

    /// Injects a fault at a place; returns once it is complete.
    pub async fn strike(&self, place: Place, fault: Fault) -> Result<()> {
        fault::strike(&self.network, place, fault).await
    }

    /// Ends the fault of a place.
    pub async fn heal(&self, place: Place) -> Result<()> {
        fault::heal(&self.network, place).await
    }

    /// Runs nftables rules of a test's own at a place.
    pub async fn rules(&self, place: Place, rules: &str) -> Result<()> {
        fault::rules(&self.network, place, rules).await
    }

    /// Sets a kernel parameter of a place: `net.ipv4.ip_forward=1`.
    pub async fn sysctl(&self, place: Place, setting: &str) -> Result<()> {
        let (name, value) = setting.split_once('=').context("a setting is NAME=VALUE")?;
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        process::feed(
            &self.network.namespace(place),
            "tee",
            &[&path.to_string_lossy()],
            value,
        )
        .await
    }

    /// Pulls a place's cable, or plugs it in.
    pub async fn plug(&self, place: Place, plugged: bool) -> Result<()> {
        self.network.plug(place, plugged).await
    }

    /// Runs `work` on a thread whose sockets are those of a place.
    pub async fn at<T, F>(&self, place: Place, work: impl FnOnce() -> F + Send + 'static) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = T>,
    {
        inside(&self.network.path(place), &place.name(), work).await
    }

    /// What the lab's proxies have logged.
    pub fn proxy_log(&self) -> String {
        proxy::log(self.disk())
    }

    /// Prints the proxy's log.
    fn tell(&self) {
        println!("the proxy's log:\n{}", self.proxy_log());
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if thread::panicking() {
            self.tell();
        }
    }
}
