//! A backup of etcd, and the way back to it: the data of every master, copied while all etcds are stopped, so that the copies
//! are of one moment. What an etcd finds there is what it would find after a power cut.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::address::HostName;
use crate::cluster::{Cluster, on_each};
use crate::component::Component;
use crate::control::terminate;
use crate::host::Host;
use crate::progress::Stopwatch;
use crate::state::{DIRECTORY, Lock};
use crate::{binaries, output};

/// What an etcd keeps, as its host sees it.
const DATA: &str = "/var/lib/etcd";

/// What is stopped on a master before its etcd's data is replaced, and started afterwards in the other order. Controllers and
/// schedulers have seen what the backup does not know, and client-go does not notice that.
const CONTROL_PLANE: [Component; 4] = [
    Component::KubeScheduler,
    Component::KubeControllerManager,
    Component::KubeApiserver,
    Component::Etcd,
];

/// What is restarted on every host for the same reason.
const OF_NODES: [Component; 2] = [Component::Kubelet, Component::KubeProxy];

impl Cluster {
    /// Keeps a copy of what the masters' etcds have now, in place of an earlier one. They are stopped for a moment, with
    /// SIGSTOP; apiservers wait for them.
    ///
    /// Returns when the apiservers are ready again.
    pub fn backup_etcd(&self) -> Result<()> {
        let _lock = Lock::take(&self.progress)?;
        let masters = self.masters();
        let watch = Stopwatch::start();
        let etcd = Component::Etcd.program();
        let stopped = on_each(&masters, |master| self.stop(&master.name().to_string(), etcd));
        let copied = stopped.and_then(|()| {
            on_each(&masters, |master| {
                replace(&master.file(DATA), &backup(master.name()))
            })
        });
        on_each(&masters, |master| self.cont(&master.name().to_string(), etcd))?;
        copied?;
        on_each(&masters, |master| self.wait_for_apiserver(master))?;
        self.progress.done("a backup of etcd is made", &watch);
        Ok(())
    }

    /// Puts the backup back, as Kubernetes' documentation asks for it: no apiserver runs meanwhile, and all that may have
    /// seen later objects is started anew: controllers, schedulers, kubelets and kube-proxies.
    ///
    /// Returns when every apiserver is ready.
    pub fn restore_etcd(&self) -> Result<()> {
        let _lock = Lock::take(&self.progress)?;
        let masters = self.masters();
        for master in &masters {
            let name = master.name();
            ensure!(
                backup(name).exists(),
                "there is no backup of {name}'s etcd: `backup-etcd` makes one"
            );
        }
        let watch = Stopwatch::start();
        on_each(&masters, |master| {
            let mut ending = CONTROL_PLANE.into_iter();
            ending.try_for_each(|component| self.kill_component(master, component))
        })?;
        self.progress.done("no apiserver and no etcd runs", &watch);
        on_each(&masters, |master| {
            replace(&backup(master.name()), &master.file(DATA))
        })?;
        on_each(&masters, |master| {
            let mut starting = CONTROL_PLANE.into_iter().rev();
            starting.try_for_each(|component| self.start(master, component))
        })?;
        on_each(&self.hosts(), |host| {
            OF_NODES.into_iter().try_for_each(|component| {
                terminate(host, component)?;
                self.start(host, component)
            })
        })?;
        on_each(&masters, |master| self.wait_for_apiserver(master))?;
        self.progress.done("etcd has what the backup has", &watch);
        Ok(())
    }

    fn kill_component(&self, host: &Host, component: Component) -> Result<()> {
        self.kill(&host.name().to_string(), component.program())
    }
}

fn backup(master: HostName) -> PathBuf {
    Path::new(DIRECTORY).join("etcd-backup").join(master.to_string())
}

/// Makes `to` a copy of `from`.
fn replace(from: &Path, to: &Path) -> Result<()> {
    let failed = || format!("failed to copy {} to {}", from.display(), to.display());
    // The directory itself stays, because a host has it mounted.
    std::fs::create_dir_all(to).with_context(failed)?;
    for entry in std::fs::read_dir(to).with_context(failed)? {
        binaries::remove(&entry.with_context(failed)?.path())?;
    }
    let mut copy = Command::new("cp");
    copy.args(["--archive", "--reflink=auto"])
        .arg(from.join("."))
        .arg(to);
    output::of(&mut copy).map(drop).with_context(failed)
}
