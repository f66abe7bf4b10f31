//! The testbed as tests and verbs use it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, anyhow, bail};

use crate::address::HostName;
use crate::component::{AUDIT_LOG, Component};
use crate::host::Host;
use crate::preflight;
use crate::progress::Progress;
use crate::state::State;
use crate::static_pod;

/// A testbed that exists: its hosts, and the ways to look at them and to disturb them.
#[derive(Debug, Clone)]
pub struct Cluster {
    pub(crate) state: State,
    pub(crate) progress: Progress,
}

impl Cluster {
    /// The testbed that is up.
    pub fn load() -> Result<Self> {
        preflight::root()?;
        match State::find()? {
            Some(state) if state.complete => Ok(Self {
                state,
                progress: Progress::new(),
            }),
            Some(_) => bail!("the testbed's `up` did not end: run `up` again"),
            None => bail!("there is no testbed: start one with `up`"),
        }
    }

    /// The same testbed, with another destination of its progress.
    #[must_use]
    pub fn with_progress(mut self, progress: Progress) -> Self {
        self.progress = progress;
        self
    }

    /// Every host, masters first.
    pub fn hosts(&self) -> Vec<Host> {
        self.state
            .hosts
            .iter()
            .map(|name| self.make_host(*name))
            .collect()
    }

    /// The hosts with a control plane.
    pub fn masters(&self) -> Vec<Host> {
        self.state.masters().map(|name| self.make_host(name)).collect()
    }

    /// The hosts without.
    pub fn workers(&self) -> Vec<Host> {
        self.hosts()
            .into_iter()
            .filter(|host| !host.name().is_master())
            .collect()
    }

    /// The host of this name.
    pub fn host(&self, name: &str) -> Result<Host> {
        let name: HostName = name.parse()?;
        if !self.state.hosts.contains(&name) {
            let have: Vec<_> = self.state.hosts.iter().map(ToString::to_string).collect();
            bail!("there is no {name} in this testbed: it has {}", have.join(" "));
        }
        Ok(self.make_host(name))
    }

    /// The admin's kubeconfig, through the first master. It works on the machine and in every host.
    pub fn kubeconfig(&self) -> Result<PathBuf> {
        Ok(admin_kubeconfig(&self.first_master()?))
    }

    /// The admin's kubeconfig through one master's own address, to look past a master that is at fault.
    pub fn kubeconfig_of(&self, master: &str) -> Result<PathBuf> {
        Ok(admin_kubeconfig(&self.master(master)?))
    }

    /// The cluster's kubectl, as its admin through the first master.
    pub fn kubectl(&self) -> Result<Command> {
        Ok(self.kubectl_with(&self.kubeconfig()?))
    }

    /// The cluster's kubectl, as its admin through one master.
    pub fn kubectl_through(&self, master: &str) -> Result<Command> {
        Ok(self.kubectl_with(&self.kubeconfig_of(master)?))
    }

    /// helm, as the cluster's admin through the first master.
    pub fn helm(&self) -> Result<Command> {
        Ok(with_kubeconfig(
            &self.state.programs.helm.join("helm"),
            &self.kubeconfig()?,
        ))
    }

    /// The requests that a master's apiserver has answered, one JSON `audit.k8s.io/v1` Event a line.
    pub fn audit_log(&self, master: &str) -> Result<PathBuf> {
        Ok(self.master(master)?.file(AUDIT_LOG))
    }

    /// The log of a component: what it wrote to its output since the host exists, or, of a static pod, what its newest
    /// container wrote.
    pub fn log(&self, host: &str, component: Component) -> Result<PathBuf> {
        let host = self.host(host)?;
        component.check(host.name())?;
        let of_pod = static_pod::is_static(&host, component.program())
            .then(|| static_pod::log(&host, component))
            .flatten();
        Ok(of_pod.unwrap_or_else(|| host.file(component.log())))
    }

    /// The pid of a running program of a host as the machine sees it, containers included.
    pub fn pid(&self, host: &str, program: &str) -> Result<Option<i32>> {
        self.host(host)?.pid(program)
    }

    pub(crate) fn kubectl_with(&self, kubeconfig: &Path) -> Command {
        with_kubeconfig(&self.state.programs.kubernetes.join("kubectl"), kubeconfig)
    }

    pub(crate) fn first_master(&self) -> Result<Host> {
        self.masters()
            .into_iter()
            .next()
            .context("the testbed has no master")
    }

    pub(crate) fn master(&self, name: &str) -> Result<Host> {
        let host = self.host(name)?;
        if !host.name().is_master() {
            bail!("{name} is a worker: it has no apiserver");
        }
        Ok(host)
    }

    pub(crate) fn make_host(&self, name: HostName) -> Host {
        Host::new(name, self.state.programs.clone())
    }
}

fn admin_kubeconfig(master: &Host) -> PathBuf {
    master.file("/etc/kubernetes/admin.conf")
}

fn with_kubeconfig(program: &Path, kubeconfig: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("KUBECONFIG", kubeconfig);
    // The apiservers are on this machine, and the user's HTTP proxy does not reach them.
    command.env("NO_PROXY", "*");
    command
}

/// Does the same on every host at once; the first failure, in the order of the hosts, is the result.
pub(crate) fn on_each<T: Sync>(items: &[T], work: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = items.iter().map(|item| scope.spawn(move || work(item))).collect();
        let results: Vec<Result<()>> = threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(anyhow!("a thread of the testbed has panicked")))
            })
            .collect();
        results.into_iter().collect()
    })
}
