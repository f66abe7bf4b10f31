//! The verbs of the testbed on the command line.

use std::fs;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand, ValueEnum};
use jiff::Timestamp;

use crate::address::HostName;
use crate::calls;
use crate::cluster::Cluster;
use crate::component::Component;
use crate::down;
use crate::fault::{self, Direction, Family, Fault};
use crate::membership::Joining;
use crate::progress::Progress;
use crate::spec::Spec;
use crate::state::State;

/// A real multi-master Kubernetes cluster on this machine.
///
/// Hosts are sets of namespaces: masters cp1, cp2… run etcd, a control plane and a kubelet, workers w1, w2… a
/// kubelet. All verbs want root, and doing one twice does no harm.
#[derive(Debug, Parser)]
pub struct Testbed {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Start the cluster, or repair the one that is there, and wait until all nodes are Ready
    ///
    /// The first time builds Kubernetes, etcd and helm (about eight minutes on two cores) and installs missing
    /// Debian packages; after that it takes less than two minutes. On a cluster that exists it boots hosts that
    /// are off, starts programs that are dead or stopped, heals every fault and adds hosts that are wanted.
    Up {
        /// How many masters [default: as the cluster that exists, or 3]
        #[arg(long)]
        masters: Option<u8>,
        /// How many workers [default: as the cluster that exists, or 2]
        #[arg(long)]
        workers: Option<u8>,
    },
    /// End the cluster and remove all that it left on the machine
    ///
    /// Also after a crash. The built binaries stay in their cache.
    Down,
    /// Show hosts, nodes, faults, and programs that do not run
    Status {
        /// For people or for scripts
        #[arg(short, long, value_enum, default_value_t = Format::Text)]
        output: Format,
    },
    /// Print shell lines that give you the cluster's kubectl and helm
    ///
    /// Use as: eval "$(cargo xtask testbed env)"
    Env,
    /// Run a command inside a host; its exit code is passed through
    ///
    /// The host has its own network, processes, /run, /var/log, /etc/kubernetes and /var/lib/{cni,containerd,
    /// etcd,kubelet,trivet}; all other files are the machine's.
    #[command(after_help = "Example: exec w1 -- curl -k https://127.0.0.1:7443/readyz")]
    Exec {
        /// cp1, w2…
        host: String,
        /// The command and its arguments
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Print the log of a program
    Logs {
        /// cp1, w2…
        host: String,
        /// Which program's
        component: Component,
        /// Go on with what is written from now on
        #[arg(short, long)]
        follow: bool,
        /// How many lines from the end
        #[arg(short = 'n', long, default_value_t = 100)]
        lines: u32,
    },
    /// Kill a program with SIGKILL; it stays dead until `start` or `up`
    Kill(Target),
    /// Stop a program with SIGSTOP: its sockets stay open and nothing answers
    Stop(Target),
    /// Let a stopped program continue, with SIGCONT
    Cont(Target),
    /// Start a program that is dead; one that is stopped continues, one with other flags is restarted
    Start {
        /// cp1, w2…
        host: String,
        /// What to start
        component: Component,
    },
    /// Restart a program as an administrator does: SIGTERM, its end, and a new one
    ///
    /// An apiserver takes its time to end, and is ready when this returns. Flags stay until the next `start` or `up`.
    #[command(after_help = "Example: restart cp1 kube-apiserver --flag anonymous-auth=false")]
    Restart {
        /// cp1, w2…
        host: String,
        /// What to restart
        component: Component,
        /// A flag besides its usual ones, as NAME=VALUE
        #[arg(long = "flag", value_name = "NAME=VALUE")]
        flags: Vec<String>,
    },
    /// Drop all packets of port 6443 on a host's wire, both ways, IPv4 and IPv6, until `heal`
    ///
    /// The host loses its cable for the apiserver's port alone; what it says to itself still arrives.
    Blackhole {
        /// cp1, w2…
        host: String,
        /// Only packets of this address family
        #[arg(long)]
        family: Option<Family>,
    },
    /// Remove every fault from a host's wire
    Heal {
        /// cp1, w2…
        host: String,
    },
    /// Drop packets of port 6443 on a host's wire in one direction, until `heal`
    Cut {
        /// cp1, w2…
        host: String,
        /// As the host sees it: `in` is what it would receive
        #[arg(long)]
        direction: Direction,
    },
    /// Drop packets of port 6443 above 1,000 bytes on a host's wire, both ways, until `heal`
    DropLarge {
        /// cp1, w2…
        host: String,
    },
    /// Cut a host off from a part of the cluster, until `heal`
    Isolate {
        /// cp1, cp2…
        host: String,
        /// `etcd`: the other etcds, so that this master's apiserver has none that works
        #[arg(long)]
        from: Part,
    },
    /// Drop packets of port 6443 between a host and one other, both ways, until `heal`
    ///
    /// A partition that this host alone sees: to all others the other host is as ever.
    #[command(after_help = "Example: sever w1 --from cp1")]
    Sever {
        /// cp1, w2…
        host: String,
        /// The other host: cp1, w2…
        #[arg(long)]
        from: HostName,
    },
    /// Cut the power of hosts, all at the same moment, boot them again and start their programs
    ///
    /// Every process and container dies at once; the disk stays. Faults on the wire stay too.
    #[command(after_help = "Example: reboot w1 cp2 --without-api 60")]
    Reboot {
        /// cp1, w2…
        #[arg(required = true)]
        hosts: Vec<String>,
        /// For this many seconds from their boot they reach no other host's apiserver
        #[arg(long, value_name = "SECONDS")]
        without_api: Option<u64>,
    },
    /// Keep a copy of what every master's etcd has, in place of an earlier copy
    ///
    /// The etcds are stopped for a moment, and the apiservers wait for them.
    BackupEtcd,
    /// Put the copy back: the cluster has what it had when `backup-etcd` ran
    ///
    /// No apiserver runs meanwhile, and controllers, schedulers, kubelets and kube-proxies are started anew.
    RestoreEtcd,
    /// Let a master's kubelet run its control plane as static pods, as kubeadm does
    ///
    /// After a reboot nothing but kubelet brings them back. `kill`, `stop`, `start` and `restart` act on them as before: the
    /// manifest of one that was killed gets a name that kubelet ignores.
    Static {
        /// cp1, cp2…
        master: String,
    },
    /// Run a master's control plane as processes again, not as static pods
    Processes {
        /// cp1, cp2…
        master: String,
    },
    /// Add a master to the running cluster: etcd member, control plane, Node
    AddMaster {
        /// cp4…
        name: String,
    },
    /// Remove a master for good: Node, etcd member, host
    RemoveMaster {
        /// cp4…
        name: String,
    },
    /// Add a worker that knows no apiserver but the one given, and wait until its node is Ready
    ///
    /// It has containerd, kubelet and kube-proxy, the images, and the manifests in its kubelet's directory of static pods.
    #[command(
        after_help = "Through Trivet: add-worker w3 --server https://127.0.0.1:7443 --tls-server-name kubernetes \
                      --image trivet-proxy.tar --manifest trivet-default-0123abcd.yaml"
    )]
    AddWorker {
        /// w3…
        name: String,
        /// The apiserver's URL [default: the first master's]
        #[arg(long)]
        server: Option<String>,
        /// The name in the apiserver's certificate, where the URL's is not in it
        #[arg(long)]
        tls_server_name: Option<String>,
        /// A docker-archive for its containerd
        #[arg(long = "image", value_name = "TAR")]
        images: Vec<PathBuf>,
        /// A static pod for its kubelet
        #[arg(long = "manifest", value_name = "FILE")]
        manifests: Vec<PathBuf>,
    },
    /// Remove a worker for good: Node and host
    RemoveWorker {
        /// w3…
        name: String,
    },
    /// Point a host's kubelet and kube-proxy to an apiserver, and restart them
    #[command(
        after_help = "Through Trivet: point w1 --server https://127.0.0.1:7443 --tls-server-name kubernetes\n\
                            Back again:     point w1"
    )]
    Point {
        /// cp1, w2…
        host: String,
        /// The apiserver's URL [default: a master's own, and the first master's for a worker]
        #[arg(long)]
        server: Option<String>,
        /// The name in the apiserver's certificate, where the URL's is not in it
        #[arg(long)]
        tls_server_name: Option<String>,
    },
    /// Compare what Trivet's accounts have asked the apiservers for with the rights that the chart gives them
    ///
    /// Prints how often each right was used, by the audit logs of all masters. Fails if a call was refused while the chart's
    /// roles were in force, if one needed a right from elsewhere, or if a right was never used, as at the end of `make test`.
    #[command(after_help = "Example: calls --since 2026-01-31T09:00:00Z --output json")]
    Calls {
        /// Only calls from this moment on, as RFC 3339 has it [default: all that the logs have]
        #[arg(long, value_name = "TIME")]
        since: Option<Timestamp>,
        /// For people or for scripts
        #[arg(short, long, value_enum, default_value_t = Format::Text)]
        output: Format,
    },
    /// Import a docker-archive into every host's containerd
    LoadImage {
        /// The archive
        tar: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
struct Target {
    /// cp1, w2…
    host: String,
    /// The program by its name: kube-apiserver, or trivet-proxy in its container
    program: String,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Part {
    Etcd,
}

impl Testbed {
    /// Does what the command line says. `exec` ends as its command ends, and does not return.
    pub fn run(self) -> Result<()> {
        match self.verb {
            Verb::Up { masters, workers } => up(masters, workers)?,
            Verb::Down => down(&Progress::new())?,
            Verb::Status { output } => status(output)?,
            Verb::Env => env()?,
            Verb::Exec { host, command } => exec(&host, &command)?,
            Verb::Logs {
                host,
                component,
                follow,
                lines,
            } => logs(&host, component, follow, lines)?,
            Verb::Kill(Target { host, program }) => Cluster::load()?.kill(&host, &program)?,
            Verb::Stop(Target { host, program }) => Cluster::load()?.stop(&host, &program)?,
            Verb::Cont(Target { host, program }) => Cluster::load()?.cont(&host, &program)?,
            Verb::Start { host, component } => Cluster::load()?.start_component(&host, component)?,
            Verb::Restart {
                host,
                component,
                flags,
            } => Cluster::load()?.restart(&host, component, &flags)?,
            Verb::DropLarge { host } => inject(&host, Fault::DropLarge)?,
            Verb::Blackhole { host, family } => {
                inject(&host, family.map_or(Fault::Blackhole, Fault::BlackholeFamily))?;
            }
            Verb::Cut { host, direction } => inject(&host, Fault::Cut(direction))?,
            Verb::Isolate {
                host,
                from: Part::Etcd,
            } => inject(&host, Fault::Isolate)?,
            Verb::Sever { host, from } => inject(&host, Fault::Sever(from))?,
            Verb::Heal { host } => fault::heal(&Cluster::load()?.host(&host)?)?,
            Verb::Reboot { hosts, without_api } => reboot(&hosts, without_api)?,
            Verb::BackupEtcd => Cluster::load()?.backup_etcd()?,
            Verb::RestoreEtcd => Cluster::load()?.restore_etcd()?,
            Verb::Static { master } => Cluster::load()?.run_as_static_pods(&master)?,
            Verb::Processes { master } => Cluster::load()?.run_as_processes(&master)?,
            Verb::AddMaster { name } => Cluster::load()?.add_master(&name)?,
            Verb::RemoveMaster { name } => Cluster::load()?.remove_master(&name)?,
            Verb::Point {
                host,
                server,
                tls_server_name,
            } => {
                let cluster = Cluster::load()?;
                let server = server.map_or_else(|| cluster.usual_server(&host), Ok)?;
                cluster.point(&host, &server, tls_server_name.as_deref())?;
            }
            Verb::AddWorker {
                name,
                server,
                tls_server_name,
                images,
                manifests,
            } => {
                let mut cluster = Cluster::load()?;
                let server = server.map_or_else(
                    || cluster.first_master().map(|first| first.name().apiserver()),
                    Ok,
                )?;
                let joining = Joining {
                    server: &server,
                    tls_server_name: tls_server_name.as_deref(),
                    images: &images,
                    manifests: &manifests,
                };
                cluster.add_worker(&name, &joining)?;
                cluster.wait_for_nodes(&[cluster.host(&name)?])?;
            }
            Verb::RemoveWorker { name } => Cluster::load()?.remove_worker(&name)?,
            Verb::Calls { since, output } => compare_calls(since, output)?,
            Verb::LoadImage { tar } => Cluster::load()?.load_image(&tar)?,
        }
        Ok(())
    }
}

fn reboot(hosts: &[String], without_api: Option<u64>) -> Result<()> {
    let cluster = Cluster::load()?;
    let hosts: Vec<_> = hosts.iter().map(String::as_str).collect();
    match without_api.map(Duration::from_secs) {
        None => cluster.reboot(&hosts),
        Some(time) => cluster.reboot_without_api(&hosts, time),
    }
}

/// Without numbers, what is there stays as it is.
fn up(masters: Option<u8>, workers: Option<u8>) -> Result<()> {
    let have = State::find().ok().flatten().filter(|state| state.complete);
    if let (None, None, Some(_)) = (masters, workers, &have) {
        return Cluster::load()?.repair();
    }
    let count = |master: bool| {
        let hosts = have
            .as_ref()
            .map(|state| state.hosts.iter().filter(|host| host.is_master() == master));
        hosts.and_then(|hosts| u8::try_from(hosts.count()).ok())
    };
    let default = Spec::default();
    Cluster::up(&Spec {
        masters: masters.or_else(|| count(true)).unwrap_or(default.masters),
        workers: workers.or_else(|| count(false)).unwrap_or(default.workers),
    })
    .map(drop)
}

fn status(format: Format) -> Result<()> {
    let status = Cluster::load()?.status()?;
    print(&match format {
        Format::Text => status.to_string(),
        Format::Json => serde_json::to_string_pretty(&status)? + "\n",
    })
}

fn compare_calls(since: Option<Timestamp>, format: Format) -> Result<()> {
    let report = calls::compare(&Cluster::load()?, since)?;
    print(&match format {
        Format::Text => report.to_string(),
        Format::Json => serde_json::to_string_pretty(&report)? + "\n",
    })?;
    report.verdict()
}

fn env() -> Result<()> {
    let cluster = Cluster::load()?;
    let programs = &cluster.state.programs;
    let (kubernetes, helm) = (programs.kubernetes.display(), programs.helm.display());
    print(&format!(
        "export KUBECONFIG='{}'\nexport PATH='{kubernetes}:{helm}':\"$PATH\"\n",
        cluster.kubeconfig()?.display()
    ))
}

/// Becomes the command, so that its signals and its exit code are the caller's.
fn exec(host: &str, command: &[String]) -> Result<()> {
    let host = Cluster::load()?.host(host)?;
    let (program, arguments) = command.split_first().context("there is no command")?;
    Err(host.command(program)?.args(arguments).exec()).context("failed to start a shell")
}

fn logs(host: &str, component: Component, follow: bool, lines: u32) -> Result<()> {
    let log = Cluster::load()?.log(host, component)?;
    fs::metadata(&log).with_context(|| format!("{component} of {host} has never written a log"))?;
    let mut tail = Command::new("tail");
    tail.arg("-n").arg(lines.to_string());
    if follow {
        tail.arg("-F");
    }
    Err(tail.arg(log).exec()).context("failed to start tail")
}

fn inject(host: &str, fault: Fault) -> Result<()> {
    fault.inject(&Cluster::load()?.host(host)?)
}

fn print(text: &str) -> Result<()> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("failed to write to standard output")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Testbed, clap::Error> {
        Testbed::try_parse_from(std::iter::once("testbed").chain(line.split_whitespace()))
    }

    #[test]
    fn the_command_line_is_well_formed_and_every_verb_has_help() {
        let command = Testbed::command();
        command.clone().debug_assert();
        for verb in command.get_subcommands() {
            assert!(verb.get_about().is_some(), "{}", verb.get_name());
        }
    }

    #[test]
    fn a_command_for_a_host_keeps_its_own_flags() {
        let testbed = parse("exec w1 -- ls -l --help").unwrap();
        assert!(matches!(testbed.verb, Verb::Exec { command, .. } if command == ["ls", "-l", "--help"]));
        assert!(parse("exec w1").is_err());
    }

    #[test]
    fn components_are_named_as_their_programs() {
        for component in Component::value_variants() {
            assert!(parse(&format!("start cp1 {component}")).is_ok(), "{component}");
        }
        assert!(parse("start cp1 apiserver").is_err());
    }

    #[test]
    fn calls_count_from_a_moment() {
        assert!(parse("calls").is_ok());
        assert!(parse("calls --since 2026-01-31T09:00:00Z -o json").is_ok());
        assert!(parse("calls --since yesterday").is_err());
    }

    #[test]
    fn a_cut_wants_a_direction_and_an_isolation_another_part() {
        assert!(parse("cut cp1").is_err());
        assert!(parse("cut cp1 --direction in").is_ok());
        assert!(parse("isolate cp1").is_err());
        assert!(parse("isolate cp1 --from etcd").is_ok());
        assert!(parse("sever w1").is_err());
        assert!(parse("sever w1 --from nobody").is_err());
        assert!(parse("sever w1 --from cp1").is_ok());
    }
}
