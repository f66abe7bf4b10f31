//! Starts a cluster, or repairs an existing one, until all nodes are Ready.
//!
//! Every step does only what is missing, so the same steps start and repair a cluster.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::address::HostName;
use crate::cluster::{Cluster, on_each};
use crate::component::Component;
use crate::down;
use crate::host::Host;
use crate::progress::{Progress, Stopwatch};
use crate::spec::Spec;
use crate::state::{Lock, State};
use crate::{
    binaries, fault, images, network, nodes, output, pki, preflight, provision, setup, static_pod, wait,
};

/// Three apiservers take 8 s on two idle cores; a busy machine takes longer.
const APISERVER_READY: Duration = Duration::from_secs(120);

/// Registration and the first Ready take some 10 s after the apiservers.
const NODES_READY: Duration = Duration::from_secs(120);

impl Cluster {
    /// Starts a testbed, or repairs and extends the one that is there. Returns when all nodes are Ready.
    pub fn up(spec: &Spec) -> Result<Self> {
        Self::up_with(spec, Progress::new())
    }

    /// The same, with another destination of its progress.
    pub fn up_with(spec: &Spec, progress: Progress) -> Result<Self> {
        preflight::root()?;
        let hosts = spec.hosts()?;
        let _lock = Lock::take(&progress)?;
        let watch = Stopwatch::start();
        let cluster = match State::find() {
            Ok(Some(state)) if state.complete => {
                let missing = spec.missing(&state.hosts)?;
                let mut cluster = Self { state, progress };
                cluster.repair_hosts()?;
                cluster.extend(&missing)?;
                cluster
            }
            Ok(None) if down::leftovers()?.is_empty() => Self::begin(hosts, progress)?,
            Ok(_) | Err(_) => {
                progress.step("an earlier `up` or `down` did not end: removing what it left");
                down::remove_everything(&progress)?;
                Self::begin(hosts, progress)?
            }
        };
        cluster.progress.done("all nodes are Ready", &watch);
        Ok(cluster)
    }

    /// Repairs the testbed that is there: boots hosts, starts what does not run, heals faults.
    pub fn repair(&self) -> Result<()> {
        let _lock = Lock::take(&self.progress)?;
        let watch = Stopwatch::start();
        self.repair_hosts()?;
        self.progress.done("all nodes are Ready", &watch);
        Ok(())
    }

    fn begin(hosts: Vec<HostName>, progress: Progress) -> Result<Self> {
        setup::packages(&progress)?;
        preflight::check(hosts.len())?;
        let programs = binaries::ensure(&progress)?;
        let kubernetes_version = version(&programs.kubernetes)?;
        let mut cluster = Self {
            state: State {
                founders: hosts.iter().copied().filter(|host| host.is_master()).collect(),
                hosts,
                programs: programs.into(),
                kubernetes_version,
                complete: false,
                mount_points: Vec::new(),
            },
            progress,
        };
        // Written first, so that `down` finds the testbed even if this process is killed now.
        cluster.state.save()?;
        cluster.state.mount_points = provision::mount_points()?;
        cluster.state.save()?;
        cluster.bring_up()?;
        cluster.state.complete = true;
        cluster.state.save()?;
        Ok(cluster)
    }

    fn repair_hosts(&self) -> Result<()> {
        let hosts = self.hosts();
        for host in &hosts {
            ensure!(
                pki::is_complete(host),
                "the files of {} are gone: `down` and begin again",
                host.name()
            );
        }
        provision::mount_points()?;
        self.bring_up()
    }

    fn bring_up(&self) -> Result<()> {
        let hosts = self.hosts();
        self.boot(&hosts)?;
        self.start_control_planes(&hosts)?;
        self.progress
            .step("starting kubelets and kube-proxies, and waiting for nodes");
        on_each(&hosts, |host| self.start_all(host))?;
        self.wait_for_nodes(&hosts)
    }

    /// Wires and boots hosts, and gives them their files.
    pub(crate) fn boot(&self, hosts: &[Host]) -> Result<()> {
        let watch = Stopwatch::start();
        network::ensure_wire()?;
        on_each(hosts, |host| {
            provision::host(host, &self.state)?;
            if !network::is_complete(host.name()) {
                // Programs that run would stay in the old namespace.
                host.power_off()?;
                network::ensure_host(host.name())?;
            }
            host.boot()?;
            fault::heal(host)
        })?;
        network::ensure_routes(&self.state.hosts)?;
        self.progress
            .done(format_args!("{} booted", names(hosts)), &watch);
        Ok(())
    }

    /// Everything that does not need the API: credentials and containerd on all hosts, control planes on the masters.
    fn start_control_planes(&self, hosts: &[Host]) -> Result<()> {
        let watch = Stopwatch::start();
        let first = self.first_master()?;
        if !pki::is_complete(&first) {
            pki::certificates(&first, &first)?;
            self.progress.done("certificate authorities made", &watch);
        }
        on_each(hosts, |host| {
            self.start(host, Component::Containerd)?;
            if host.name().is_master() {
                self.start_control_plane(host, &first)
            } else {
                credentials(host, &first)
            }
        })?;
        self.progress.step("waiting for apiservers");
        self.ensure_pause(hosts)?;
        on_each(&self.masters(), |master| self.wait_for_apiserver(master))?;
        self.progress.done("all apiservers ready", &watch);
        self.allow_admins(&first)
    }

    /// Starts etcd and the apiserver of a master as soon as their certificates are there.
    pub(crate) fn start_control_plane(&self, master: &Host, first: &Host) -> Result<()> {
        let complete = pki::is_complete(master);
        // kubeadm keeps certificates that are there, and checks them.
        if !complete && master.name() != first.name() {
            pki::certificates(master, first)?;
        }
        self.start(master, Component::Etcd)?;
        self.start(master, Component::KubeApiserver)?;
        if static_pod::is_static(master, Component::KubeApiserver.program()) {
            self.start(master, Component::Kubelet)?;
        }
        if !complete {
            pki::master_kubeconfigs(master)?;
        }
        Ok(())
    }

    /// Starts everything that a host runs and that does not run yet.
    pub(crate) fn start_all(&self, host: &Host) -> Result<()> {
        Component::of(host.name())
            .iter()
            .try_for_each(|component| self.start(host, *component))
    }

    /// Waits until a master's apiserver says that it is ready.
    pub(crate) fn wait_for_apiserver(&self, master: &Host) -> Result<()> {
        let watch = Stopwatch::start();
        let name = master.name().to_string();
        let what = format!("the apiserver of {name}");
        wait::until_every(Duration::from_millis(300), APISERVER_READY, &what, || {
            for component in [Component::Etcd, Component::KubeApiserver] {
                if host_lacks(master, component)? {
                    bail!("{component} has ended: see `logs {name} {component}`");
                }
            }
            let mut kubectl = self.kubectl_through(&name)?;
            output::of(kubectl.args(["get", "--raw", "/readyz", "--request-timeout=2s"]))
        })?;
        self.progress
            .done(format_args!("{name}: apiserver ready"), &watch);
        Ok(())
    }

    /// Binds kubeadm's admins to `cluster-admin`, the last step of `kubeadm init`: without it admin.conf has no rights.
    fn allow_admins(&self, first: &Host) -> Result<()> {
        let role = "apiVersion: rbac.authorization.k8s.io/v1\n\
            kind: ClusterRoleBinding\n\
            metadata: {name: 'kubeadm:cluster-admins'}\n\
            roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}\n\
            subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: 'kubeadm:cluster-admins'}]\n";
        let mut kubectl = self.kubectl_with(&first.file("/etc/kubernetes/super-admin.conf"));
        output::with_input(kubectl.args(["apply", "--validate=false", "-f", "-"]), role)
            .map(drop)
            .context("failed to make kubeadm's admins cluster admins")
    }

    /// Waits for the hosts' Nodes, marks the masters' as kubeadm does, and waits until all are Ready.
    pub(crate) fn wait_for_nodes(&self, hosts: &[Host]) -> Result<()> {
        let watch = Stopwatch::start();
        let mut marked = false;
        let pause = Duration::from_millis(500);
        wait::until_every(pause, NODES_READY, "the nodes", || {
            let nodes = nodes::list(self)?;
            let wanted = |host: &&Host| !nodes.iter().any(|node| node.name == host.name().to_string());
            if let Some(host) = hosts.iter().find(wanted) {
                bail!("{0} has not registered: see `logs {0} kubelet`", host.name());
            }
            if !marked {
                self.mark_masters()?;
                marked = true;
            }
            let unready = |host: &&Host| {
                nodes
                    .iter()
                    .any(|node| node.name == host.name().to_string() && !node.ready)
            };
            match hosts.iter().find(unready) {
                None => Ok(()),
                Some(host) => bail!(
                    "{0} is not Ready: see `logs {0} kubelet`, or `point {0}` to an apiserver that answers",
                    host.name()
                ),
            }
        })?;
        self.progress.done(format_args!("{} Ready", names(hosts)), &watch);
        Ok(())
    }

    /// A kubelet may not give itself this label: NodeRestriction.
    fn mark_masters(&self) -> Result<()> {
        let mut kubectl = self.kubectl()?;
        kubectl.args(["label", "--overwrite", "node"]);
        kubectl.args(self.state.masters().map(|master| master.to_string()));
        kubectl.arg("node-role.kubernetes.io/control-plane=");
        output::of(&mut kubectl)
            .map(drop)
            .context("failed to label the masters")
    }
}

impl Cluster {
    /// Builds the sandbox image and imports it into the hosts that lack it: most often none.
    pub(crate) fn ensure_pause(&self, hosts: &[Host]) -> Result<()> {
        let mut lacking = Vec::new();
        for host in hosts {
            if lacks_pause(host)? {
                lacking.push(host);
            }
        }
        if lacking.is_empty() {
            return Ok(());
        }
        let tar = images::pause(&self.progress)?;
        on_each(&lacking, |host| import(host, &tar))
    }

    /// Imports a docker-archive into every host's containerd, where Kubernetes finds it.
    pub fn load_image(&self, tar: &Path) -> Result<()> {
        let tar = tar
            .canonicalize()
            .with_context(|| format!("failed to find {}", tar.display()))?;
        let watch = Stopwatch::start();
        on_each(&self.hosts(), |host| match host.init()? {
            Some(_) => import(host, &tar),
            None => Ok(()),
        })?;
        self.progress.done(
            format_args!("{} imported into every host that is on", tar.display()),
            &watch,
        );
        Ok(())
    }

    /// Undoes every fault: heals the network of all hosts, continues stopped programs, starts dead ones, and restarts those
    /// with other flags than the usual ones.
    pub fn undo_faults(&self) -> Result<()> {
        on_each(&self.hosts(), |host| {
            fault::heal(host)?;
            self.start_all(host)
        })
    }

    /// Drops packets on a host's wire until it is healed.
    pub fn inject(&self, host: &str, fault: fault::Fault) -> Result<()> {
        fault.inject(&self.host(host)?)
    }

    /// Removes every fault from a host's wire.
    pub fn heal(&self, host: &str) -> Result<()> {
        fault::heal(&self.host(host)?)
    }
}

/// Whether a host's containerd does not have the sandbox image.
fn lacks_pause(host: &Host) -> Result<bool> {
    wait_for_containerd(host)?;
    let filter = format!("name=={}", images::PAUSE);
    let mut ctr = host.command("ctr")?;
    let found = output::of(ctr.args(["--namespace", "k8s.io", "images", "list", "--quiet", &filter]))?;
    Ok(found.trim().is_empty())
}

fn wait_for_containerd(host: &Host) -> Result<()> {
    let what = format!("containerd of {}", host.name());
    wait::until(Duration::from_secs(30), &what, || {
        output::of(host.command("ctr")?.args(["--namespace", "k8s.io", "version"])).map(drop)
    })
}

/// Imports an image into a host's containerd.
pub(crate) fn import(host: &Host, tar: &Path) -> Result<()> {
    let mut ctr = host.command("ctr")?;
    output::of(ctr.args(["--namespace", "k8s.io", "images", "import"]).arg(tar))
        .map(drop)
        .with_context(|| format!("failed to import {} into {}", tar.display(), host.name()))
}

pub(crate) fn credentials(worker: &Host, first: &Host) -> Result<()> {
    if pki::is_complete(worker) {
        Ok(())
    } else {
        pki::worker(worker, first)
    }
}

fn host_lacks(host: &Host, component: Component) -> Result<bool> {
    Ok(host.processes(component.program())?.is_empty())
}

pub(crate) fn names(hosts: &[Host]) -> String {
    hosts
        .iter()
        .map(|host| host.name().to_string())
        .collect::<Vec<_>>()
        .join(" ")
}

fn version(kubernetes: &Path) -> Result<String> {
    let kubeadm: PathBuf = kubernetes.join("kubeadm");
    let version = output::of(Command::new(kubeadm).args(["version", "--output", "short"]))?;
    Ok(version.trim().to_owned())
}
