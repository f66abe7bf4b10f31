//! The end of a pool: what retires its proxies, and whether anything is left of them on a host.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use nix::sys::signal::Signal;
use trivet_instruments::eventually;
use trivet_testbed::Host;

use crate::installation::{Installation, NAMESPACE};

/// The program of the proxies.
const PROXY: &str = "trivet-proxy";

/// Where the proxies listen, as the kernel writes the port.
const LISTENER: &str = ":1D13 ";

/// The state of a TCP socket that listens, as the kernel writes it.
const LISTENS: &str = " 0A ";

/// The annotation of a static pod's mirror with the name of its directory.
const CONFIG_HASH: &str = "kubernetes.io/config.hash";

/// A Job is placed, starts and looks once.
const JOB_ENDS: Duration = Duration::from_secs(60);

/// A remover starts on each node, proxies and standbys end, and kubelet removes what it made for them.
const RETIRED: Duration = Duration::from_secs(120);

/// How a Job ended, and its log.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Whether it succeeded.
    pub is_well: bool,
    /// Its log.
    pub log: String,
}

impl Installation {
    /// Runs the one command that the chart's notes name, and waits for the end of its Job.
    pub async fn run_retirement(&self, job: &str) -> Result<Ended> {
        let tools = self.tools();
        let create = format!("create job {job} --from=cronjob/trivet-retirement --namespace {NAMESPACE}");
        tools.kubectl(&create).await?;
        let ends = format!(
            "get job {job} --namespace {NAMESPACE} --output \
             jsonpath={{.status.succeeded}}/{{.status.failed}}"
        );
        let is_well = eventually(JOB_ENDS + RETIRED, "the end of the Job", async || {
            match tools.kubectl(&ends).await?.as_str() {
                "1/" => Ok(true),
                "/1" => Ok(false),
                other => bail!("it says {other:?}"),
            }
        })
        .await?;
        let log = tools
            .kubectl(&format!("logs job/{job} --namespace {NAMESPACE}"))
            .await?;
        Ok(Ended { is_well, log })
    }

    /// The directories that kubelet has for the pods of the DaemonSets and the standbys.
    pub async fn pod_directories(&self) -> Result<BTreeSet<String>> {
        let pods = Api::<Pod>::namespaced(self.kubernetes("cp1").await?, NAMESPACE);
        let pods = pods.list(&ListParams::default()).await?;
        // The operator stays.
        let of_nodes = |pod: &&Pod| {
            let name = pod.labels().get("app.kubernetes.io/name");
            name.is_none_or(|name| name != "trivet-operator")
        };
        let names = pods
            .iter()
            .filter(of_nodes)
            .filter_map(|pod| pod.annotations().get(CONFIG_HASH).cloned().or_else(|| pod.uid()));
        Ok(names.collect())
    }

    /// Kills the proxies once all of them are being deleted: each would look for a successor for half a minute. What removes
    /// their files is a process of the same program, and stays.
    pub async fn end_leaving_proxies(&self) -> Result<()> {
        eventually(RETIRED, "proxies that are being deleted", async || {
            let pods = self.proxy_pods().await?;
            ensure!(pods.iter().all(|pod| pod.is_leaving), "{pods:?}");
            Ok(())
        })
        .await?;
        for host in self.hosts() {
            for pid in host.pids(PROXY)? {
                let environment = fs::read(Path::new("/proc").join(pid.to_string()).join("environ"));
                let serves = environment.is_ok_and(|environment| {
                    let mut entries = environment.split(|byte| *byte == 0);
                    entries.any(|entry| entry == b"TRIVET_CLASS=DaemonSet")
                });
                if serves {
                    // One that has ended by itself meanwhile needs no signal.
                    host.signal(pid, Signal::SIGKILL).ok();
                }
            }
        }
        Ok(())
    }

    /// Waits until nothing of the proxies is left on any host, nor of pods with these directories.
    pub async fn nothing_is_left(&self, directories: &BTreeSet<String>) -> Result<()> {
        ensure!(!directories.is_empty(), "no pod ran before");
        eventually(RETIRED, "hosts without a trace", async || {
            let hosts = self.hosts();
            hosts.iter().try_for_each(|host| nothing_on(host, directories))
        })
        .await
    }
}

fn nothing_on(host: &Host, directories: &BTreeSet<String>) -> Result<()> {
    let name = host.name();
    let processes = host.pids(PROXY)?;
    ensure!(processes.is_empty(), "{name}: processes {processes:?}");
    let init = host.init()?.with_context(|| format!("{name} is not up"))?;
    // What is below /run is the host's alone, so it is seen by its init only.
    let run = Path::new("/proc").join(init.to_string()).join("root/run/trivet");
    for directory in [host.file("/var/lib/trivet"), run] {
        let left = entries(&directory)?;
        ensure!(left.is_empty(), "{name}: {} has {left:?}", directory.display());
    }
    let mut manifests = entries(&host.file("/etc/kubernetes/manifests"))?;
    manifests.retain(|file| file.contains("trivet"));
    ensure!(manifests.is_empty(), "{name}: manifests {manifests:?}");
    let mut pods = entries(&host.file("/var/lib/kubelet/pods"))?;
    pods.retain(|pod| directories.contains(pod));
    ensure!(pods.is_empty(), "{name}: kubelet has {pods:?}");

    let of_kernel = |file: &str| {
        let path = Path::new("/proc").join(init.to_string()).join(file);
        fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))
    };
    let mounts = of_kernel("mountinfo")?;
    // The fifth word is where something is mounted.
    let mut places = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    let is_left = |place: &&str| {
        let is_of_pod = directories.iter().any(|directory| place.contains(directory));
        is_of_pod || place.contains("/trivet/")
    };
    let mount = places.find(is_left);
    ensure!(mount.is_none(), "{name}: mount {mount:?}");
    let sockets = of_kernel("net/unix")?;
    let socket = sockets.lines().find(|line| line.contains("trivet"));
    ensure!(socket.is_none(), "{name}: socket {socket:?}");
    for table in ["net/tcp", "net/tcp6"] {
        let sockets = of_kernel(table)?;
        let listener = sockets
            .lines()
            .find(|line| line.contains(LISTENER) && line.contains(LISTENS));
        ensure!(listener.is_none(), "{name}: {table} {listener:?}");
    }
    Ok(())
}

/// The names in a directory; none if it is absent.
fn entries(directory: &Path) -> Result<Vec<String>> {
    let found = match fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        found => found.with_context(|| format!("failed to list {}", directory.display()))?,
    };
    found
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}
