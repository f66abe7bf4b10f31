//! Control of a host's programs: signals, restarts, reboots, and the API server that they use.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;

use crate::address::HostName;
use crate::cluster::{Cluster, on_each};
use crate::component::Component;
use crate::host::Host;
use crate::progress::Stopwatch;
use crate::state::Lock;
use crate::up::names;
use crate::{fault, network, output, pki, static_pod, wait};

/// A killed program of a busy machine needs this long at most to be gone.
const GONE: Duration = Duration::from_secs(10);

/// kubelet starts a static pod anew once it has removed what is left of the one before.
const STATIC_POD: Duration = Duration::from_secs(60);

/// Longer than an apiserver's shutdown delay. Its open watches would hold it up for longer.
const CHANGE_OF_HANDS: Duration = Duration::from_secs(7);

/// A kubelet that comes before its containerd ends, and its supervisor starts it again after five seconds; all hosts may
/// boot at once.
const STARTED: Duration = Duration::from_secs(30);

/// Longer than the testbed's kubelets back off before they start an ended container again, which is a second.
const BACK_OFF: Duration = Duration::from_millis(1200);

impl Component {
    /// Fails if this kind of host does not run it.
    pub(crate) fn check(self, host: HostName) -> Result<()> {
        let runs = Self::of(host);
        if !runs.contains(&self) {
            let names: Vec<_> = runs.iter().map(|component| component.program()).collect();
            bail!("{host} runs no {self}: it runs {}", names.join(", "));
        }
        Ok(())
    }
}

impl Cluster {
    /// Kills every process of a program with SIGKILL and waits until it is gone. It stays dead until [`start`](Self::start_component).
    pub fn kill(&self, host: &str, program: &str) -> Result<()> {
        let host = self.host(host)?;
        keep_dead(&host, program)?;
        signal(&host, program, Signal::SIGKILL)?;
        wait::until(GONE, &format!("the end of {program} of {}", host.name()), || {
            ensure!(host.processes(program)?.is_empty(), "it still runs");
            Ok(())
        })
    }

    /// Kills a program that runs in a container, for kubelet to start it again at once. A kubelet that finds a container
    /// ended within its back-off looks again only after another ten to fifteen seconds (`backOffPeriod` in its
    /// `pod_workers.go`), so it is stopped until the back-off is over.
    pub fn kill_container(&self, host: &str, program: &str) -> Result<()> {
        let kubelet = Component::Kubelet.program();
        self.stop(host, kubelet)?;
        let killed = self.kill(host, program);
        thread::sleep(BACK_OFF);
        self.cont(host, kubelet)?;
        killed
    }

    /// Stops a program with SIGSTOP: it keeps its sockets and answers nothing.
    pub fn stop(&self, host: &str, program: &str) -> Result<()> {
        signal(&self.host(host)?, program, Signal::SIGSTOP)
    }

    /// Lets a stopped program continue, with SIGCONT.
    pub fn cont(&self, host: &str, program: &str) -> Result<()> {
        signal(&self.host(host)?, program, Signal::SIGCONT)
    }

    /// Restarts a component as an administrator does: SIGTERM, its end, and a new one, with `flags` besides its usual
    /// ones. [`start`](Self::start_component) takes the flags back.
    ///
    /// Returns when it runs; an apiserver also is ready.
    pub fn restart(&self, host: &str, component: Component, flags: &[String]) -> Result<()> {
        let host = self.host(host)?;
        component.check(host.name())?;
        let watch = Stopwatch::start();
        terminate(&host, component)?;
        self.progress
            .done(format_args!("{}: {component} ended", host.name()), &watch);
        let mut command_line = component.command_line(host.name(), &self.state);
        command_line.extend(flags.iter().map(|flag| format!("--{flag}")));
        run(&host, component, &command_line)?;
        match component {
            Component::KubeApiserver => self.wait_for_apiserver(&host),
            Component::Etcd
            | Component::KubeControllerManager
            | Component::KubeScheduler
            | Component::Containerd
            | Component::Kubelet
            | Component::KubeProxy => Ok(()),
        }
    }

    /// Ends a component with SIGTERM, and with SIGKILL if it has not ended within this time. It stays dead until
    /// [`start`](Self::start_component).
    pub fn end(&self, host: &str, component: Component, within: Duration) -> Result<()> {
        let host = self.host(host)?;
        component.check(host.name())?;
        terminate_within(&host, component, within)
    }

    /// Starts a component of a host unless it runs; one that is stopped continues, one with other flags is restarted.
    pub fn start_component(&self, host: &str, component: Component) -> Result<()> {
        self.start(&self.host(host)?, component)
    }

    /// Kills hosts as a power cut would, all at the same moment, boots them again, and starts all that they run.
    ///
    /// Returns when the programs have started; the nodes are Ready later, if their kubelets find an apiserver.
    pub fn reboot(&self, hosts: &[&str]) -> Result<()> {
        self.reboot_with(hosts, None)
    }

    /// The same, and for this long from their boot the hosts reach no other host's apiserver.
    pub fn reboot_without_api(&self, hosts: &[&str], without_api: Duration) -> Result<()> {
        self.reboot_with(hosts, Some(without_api))
    }

    fn reboot_with(&self, hosts: &[&str], without_api: Option<Duration>) -> Result<()> {
        let _lock = Lock::take(&self.progress)?;
        let hosts = hosts
            .iter()
            .map(|host| self.host(host))
            .collect::<Result<Vec<_>>>()?;
        let names = names(&hosts);
        let watch = Stopwatch::start();
        on_each(&hosts, Host::power_off)?;
        self.progress.done(format_args!("{names}: power cut"), &watch);
        on_each(&hosts, |host| {
            network::ensure_host(host.name())?;
            without_api.map_or(Ok(()), |time| fault::lose_api(host, time))?;
            host.boot()
        })?;
        network::ensure_routes(&self.state.hosts)?;
        on_each(&hosts, |host| self.start_all(host))?;
        self.progress
            .done(format_args!("{names}: booted, all programs started"), &watch);
        Ok(())
    }

    /// Lets a master's kubelet run its control plane as static pods, as kubeadm does: a kubelet alone brings it back after
    /// a reboot. Signals, restarts and faults act on it as before.
    ///
    /// Returns when its apiserver is ready. [`run_as_processes`](Self::run_as_processes) is the way back.
    pub fn run_as_static_pods(&self, master: &str) -> Result<()> {
        let _lock = Lock::take(&self.progress)?;
        let host = self.master(master)?;
        let watch = Stopwatch::start();
        let is_process = |component: &Component| !static_pod::is_static(&host, component.program());
        let components: Vec<_> = static_pod::CONTROL_PLANE.into_iter().filter(is_process).collect();
        if components.is_empty() {
            return Ok(());
        }
        self.start(&host, Component::Kubelet)?;
        // Clients of etcd end before it does.
        components
            .iter()
            .rev()
            .try_for_each(|component| terminate_within(&host, *component, CHANGE_OF_HANDS))?;
        for component in components {
            let command_line = component.command_line(host.name(), &self.state);
            static_pod::show(&host, component, &command_line)?;
        }
        self.wait_for_apiserver(&host)?;
        self.progress
            .done(format_args!("{master}: the control plane is static pods"), &watch);
        Ok(())
    }

    /// Runs a master's control plane as processes of the testbed again.
    ///
    /// Returns when its apiserver is ready.
    pub fn run_as_processes(&self, master: &str) -> Result<()> {
        let _lock = Lock::take(&self.progress)?;
        let host = self.master(master)?;
        let watch = Stopwatch::start();
        let is_static = |component: &Component| static_pod::is_static(&host, component.program());
        let components: Vec<_> = static_pod::CONTROL_PLANE.into_iter().filter(is_static).collect();
        if components.is_empty() {
            return Ok(());
        }
        for component in components.iter().rev() {
            terminate_within(&host, *component, CHANGE_OF_HANDS)?;
            static_pod::forget(&host, component.program())?;
        }
        components
            .iter()
            .try_for_each(|component| self.start(&host, *component))?;
        self.wait_for_apiserver(&host)?;
        self.progress
            .done(format_args!("{master}: the control plane is processes"), &watch);
        Ok(())
    }

    /// Points a host's kubelet and kube-proxy to a server, and restarts them.
    pub fn point(&self, host: &str, server: &str, tls_server_name: Option<&str>) -> Result<()> {
        check_server(server)?;
        let _lock = Lock::take(&self.progress)?;
        let host = self.host(host)?;
        let watch = Stopwatch::start();
        self.set_server(&host, server, tls_server_name)?;
        for component in [Component::Kubelet, Component::KubeProxy] {
            terminate(&host, component)?;
            self.start(&host, component)?;
        }
        self.progress.done(
            format_args!("{}: kubelet and kube-proxy use {server}", host.name()),
            &watch,
        );
        Ok(())
    }

    /// The server that a host's kubelet and kube-proxy have as kubeadm sets them up: a master's own apiserver, and that of
    /// the first master.
    pub fn usual_server(&self, host: &str) -> Result<String> {
        let host = self.host(host)?.name();
        let master = if host.is_master() {
            host
        } else {
            self.first_master()?.name()
        };
        Ok(master.apiserver())
    }

    /// Writes a server into the kubeconfigs of a host's kubelet and kube-proxy.
    pub(crate) fn set_server(&self, host: &Host, server: &str, tls_server_name: Option<&str>) -> Result<()> {
        for kubeconfig in pki::NODE_KUBECONFIGS {
            let mut kubectl = self.kubectl_with(&host.file(kubeconfig));
            kubectl.args(["config", "set-cluster", "kubernetes", "--server", server]);
            kubectl.args(["--tls-server-name", tls_server_name.unwrap_or_default()]);
            output::of(&mut kubectl)
                .with_context(|| format!("failed to point {} to {server}", host.name()))?;
        }
        Ok(())
    }

    pub(crate) fn start(&self, host: &Host, component: Component) -> Result<()> {
        component.check(host.name())?;
        let usual = component.command_line(host.name(), &self.state);
        let running = host.processes(component.program())?;
        if running.iter().any(|process| process.command_line != usual) {
            terminate(host, component)?;
            return run(host, component, &usual);
        }
        if running.is_empty() {
            return run(host, component, &usual);
        }
        running
            .iter()
            .filter(|process| process.is_stopped())
            .try_for_each(|process| process.signal(Signal::SIGCONT))
    }
}

/// Starts a component that does not run.
fn run(host: &Host, component: Component, command_line: &[String]) -> Result<()> {
    let program = component.program();
    let starting = format!("starting {component} on {}", host.name());
    let check = || {
        ensure!(
            !host.processes(program)?.is_empty(),
            "it does not run: see `logs {} {component}`",
            host.name()
        );
        Ok(())
    };
    if static_pod::is_static(host, program) {
        static_pod::show(host, component, command_line)?;
        // Without a kubelet it starts when there is one.
        return if host.processes(Component::Kubelet.program())?.is_empty() {
            Ok(())
        } else {
            wait::until(STATIC_POD, &starting, check)
        };
    }
    // The supervisor may be waiting to start the program again; this starts it at once.
    keep_dead(host, program)?;
    host.spawn(command_line, &component.log())
        .with_context(|| format!("failed to start {component} on {}", host.name()))?;
    wait::until(STARTED, &starting, check)
}

/// Ends a component as an init system would.
pub(crate) fn terminate(host: &Host, component: Component) -> Result<()> {
    terminate_within(host, component, component.termination_limit())
}

fn terminate_within(host: &Host, component: Component, limit: Duration) -> Result<()> {
    let program = component.program();
    let is_static = keep_dead(host, program)?;
    // kubelet ends a pod whose manifest is gone. A second SIGTERM would end an apiserver at once.
    let kubelet_ends_it = is_static && !host.processes(Component::Kubelet.program())?.is_empty();
    let gone = || {
        ensure!(host.processes(program)?.is_empty(), "it still runs");
        Ok(())
    };
    for (signal, within) in [(Signal::SIGTERM, limit), (Signal::SIGKILL, GONE)] {
        for process in host.processes(program)? {
            if signal == Signal::SIGKILL || !kubelet_ends_it {
                process.signal(signal)?;
            }
            // One that is stopped would not see a SIGTERM.
            process.signal(Signal::SIGCONT)?;
        }
        if wait::until(within, program, gone).is_ok() {
            return Ok(());
        }
    }
    bail!("{component} of {} does not end", host.name())
}

/// Ends the supervisor of a program, or hides the manifest of a static pod, so that nothing starts the program again.
/// Returns whether it is a static pod.
fn keep_dead(host: &Host, program: &str) -> Result<bool> {
    for supervisor in host.supervisors(program)? {
        supervisor.signal(Signal::SIGKILL)?;
    }
    static_pod::hide(host, program)
}

fn signal(host: &Host, program: &str, signal: Signal) -> Result<()> {
    ensure!(host.init()?.is_some(), "{} is not up: `up` boots it", host.name());
    let processes = host.processes(program)?;
    let component = Component::of(host.name())
        .iter()
        .any(|component| component.program() == program);
    if processes.is_empty() && !component {
        let mut others: Vec<_> = host
            .all_processes()?
            .into_iter()
            .map(|process| process.program)
            .collect();
        others.sort_unstable();
        others.dedup();
        bail!(
            "no {program} runs on {}: there are {}",
            host.name(),
            others.join(", ")
        );
    }
    // A component that is dead already is what a kill wants; a stop or a continue is not.
    ensure!(
        !processes.is_empty() || signal == Signal::SIGKILL,
        "{program} does not run on {0}: `start {0} {program}`",
        host.name()
    );
    processes.iter().try_for_each(|process| process.signal(signal))
}

/// The form `https://HOST:PORT`: anything else would only show as a node that never gets Ready.
pub(crate) fn check_server(server: &str) -> Result<()> {
    let authority = server.strip_prefix("https://").unwrap_or_default();
    let port = authority.rsplit_once(':').and_then(|(host, port)| {
        let port: u16 = port.parse().ok()?;
        (!host.is_empty() && !host.contains('/') && port > 0).then_some(port)
    });
    ensure!(
        port.is_some(),
        "{server:?} is no server: it looks like https://10.213.0.11:6443"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_https_with_a_host_and_a_port() {
        for server in ["https://127.0.0.1:7443", "https://[::1]:7443", "https://cp1:6443"] {
            check_server(server).unwrap();
        }
        for server in [
            "",
            "127.0.0.1:7443",
            "http://cp1:6443",
            "https://cp1",
            "https://:6443",
            "https://cp1:6443/x",
        ] {
            assert!(check_server(server).is_err(), "{server}");
        }
    }
}
