//! The command line.

mod manifest;
mod retirement;
mod standby;

use std::{net::SocketAddr, path::PathBuf, str::FromStr};

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use self::{
    manifest::{ManifestArguments, Print},
    retirement::{StandbyArguments, StateArguments},
    standby::{RemoveArguments, WriteArguments},
};
use crate::{
    admin::{NodeAddresses, Question},
    log::LogFormat,
};

/// The proxy of a node: a layer-4 balancer over all apiservers of a pool.
///
/// It listens on the node's loopback and spreads connections over the ready members of its pool. It cuts connections to
/// silent members, so that clients reconnect at once. TLS passes through untouched.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Exit codes: 0 done, 1 no (probe) or failed, 64 an invalid flag, name or file."
)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

const RUN_EXAMPLES: &str = "Examples:
  trivet-proxy run --config pool.json
      without Kubernetes; edit the file (with a higher revision) and the proxy follows
  trivet-proxy run --cache-dir /var/lib/trivet --socket /run/trivet/proxy.sock --watch trivet-system/trivet-default
      as on a node of a cluster, after its first start";

const STATUS_HELP: &str = "Columns: FOR is the time in this state; LAST PROBE, TOOK and AGO are the outcome, duration and age of the last probe;
PROVEN is whether this node has had a verified answer from the member; DISTANCE is Local (this node), SameZone or
Elsewhere, and orders members in the same state if the document's locality says so.

Examples:
  trivet-proxy status
  trivet-proxy status -o json | jq -r '.upstreams[] | select(.state != \"Up\") | .member'";

const EXPLAIN_HELP: &str = "Examples:
  trivet-proxy explain master-2
  trivet-proxy explain master-2 -o json";

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Forward connections until SIGTERM, then drain; a second signal aborts.
    ///
    /// The wire document names the members and the listeners. At the start it is the newest one of --config and
    /// --cache-dir, or --seed if they have none; later, any newer one of --config or --watch. A document that cannot be
    /// followed is rejected with a log line and a metric, and the one in force stays.
    ///
    /// Run by systemd, the proxy accepts on the passed sockets that have the address of a listener instead of binding it,
    /// and reports its start with Type=notify once it listens on all addresses.
    #[command(after_help = RUN_EXAMPLES)]
    Run(Box<RunArguments>),
    /// Ask the proxy that runs here whether it has started, is ready or is alive; for exec probes. Exits 0 for yes, 1 for no with the reason.
    Probe(Probe),
    /// Check a wire document as a proxy would.
    ///
    /// Exits 0 and names pool, revision and number of members, or exits 64 and names the field and its rule.
    /// In a cluster: kubectl -n trivet-system get configmap trivet-default -o jsonpath='{.data.pool\.json}' > pool.json
    Check(Check),
    /// Show the proxy that runs here: its document, its clients, and a row for each upstream.
    ///
    /// In a cluster, inside the proxy's pod:
    /// kubectl -n trivet-system exec POD -- /trivet-proxy status
    #[command(after_help = STATUS_HELP)]
    Status(Inquiry),
    /// Show why a member is in its state: its latest outcomes, and what would change the state.
    #[command(after_help = EXPLAIN_HELP)]
    Explain(Explain),
    /// Print the manifest of a static pod that runs this proxy: a standby that kubelet starts without any apiserver.
    ///
    /// It needs no cluster: the members, or a wire document of a cluster, become a part of the manifest. Put it into
    /// kubelet's directory of static pods (staticPodPath, /etc/kubernetes/manifests of kubeadm). A document on the
    /// node's disk or of the cluster comes before the one in the manifest.
    #[command(after_help = manifest::EXAMPLES)]
    Manifest(Box<ManifestArguments>),
    /// Write the manifest of a standby into kubelet's directory of static pods, and remove the ones before it.
    ///
    /// The operator's bootstrap DaemonSet runs this on each node. The standby has no document of its own: it reads the one
    /// that the proxy of this node keeps on the disk. Nothing is touched if the manifest is there already. An older
    /// manifest of the pool is removed once the new standby is warm; until then two of them stand by.
    WriteManifest(Box<WriteArguments>),
    /// Remove all manifests of a pool from kubelet's directory of static pods.
    RemoveManifest(RemoveArguments),
    /// Remove all manifests of a retired pool, and wait until its standbys have ended.
    ///
    /// The operator's remover runs this on each node. Unlike remove-manifest it does not ask whether the node has another proxy.
    RemoveStandby(StandbyArguments),
    /// Wait until no proxy of a retired pool runs on this node, and remove what they leave: their cache, and the directory in
    /// which they met. Runs until SIGTERM.
    ///
    /// The operator's remover runs this on each node, before the proxies are deleted. It needs no API server.
    RemoveState(StateArguments),
    /// Do nothing until SIGTERM or SIGINT: keeps a pod that has done its work from being started again.
    ///
    /// The operator's bootstrap DaemonSet runs this beside nothing else: it mounts nothing and needs no right, while the
    /// container before it, which has written a manifest, has ended.
    Hold,
}

/// Flags of `run`.
#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    /// The wire document, JSON. It is read every second and may be absent. In a cluster: the mounted ConfigMap.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Directory of the last good documents, so that the proxy starts without any apiserver.
    #[arg(long, value_name = "DIR")]
    pub(crate) cache_dir: Option<PathBuf>,

    /// A wire document, JSON, for the first start on a node: it is used while neither --cache-dir nor --config nor --watch
    /// has one, or where theirs is of another cluster. `trivet-proxy manifest` writes it.
    #[arg(long, value_name = "JSON", env = "TRIVET_SEED", hide_env_values = true)]
    pub(crate) seed: Option<String>,

    /// The ConfigMap to follow through this proxy's own upstreams.
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pub(crate) watch: Option<ConfigMapName>,

    /// File with the bearer token for --watch, and for probes that an apiserver answers with 401 or 403 without one. It is
    /// read for every request.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/var/run/secrets/kubernetes.io/serviceaccount/token"
    )]
    pub(crate) token_file: PathBuf,

    /// File with the authorities of the apiservers, PEM, for --watch: the token is sent to no other server.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
    )]
    pub(crate) ca_file: PathBuf,

    /// Name of this node: proxies of different nodes prefer different members. Defaults to the host's name.
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    pub(crate) node_name: Option<String>,

    /// Zone of this node, for pools with locality PreferLocal or PreferSameZone. Empty: unknown, and zones make no
    /// difference. In a cluster NODE_ZONE is the pod's label topology.kubernetes.io/zone.
    #[arg(long, value_name = "ZONE", env = "NODE_ZONE", default_value = "")]
    pub(crate) zone: String,

    /// Directory in which the proxies of this node meet that serve one pool: a new one takes the listeners over from the old
    /// one, and no client is refused meanwhile. Without it they share their ports for as long as both run
    #[arg(long, value_name = "DIR", env = "TRIVET_HANDOVER_DIR")]
    pub(crate) handover_dir: Option<PathBuf>,

    /// Name of the pool, for --handover-dir
    #[arg(long, value_name = "NAME", env = "TRIVET_POOL", default_value = "default")]
    pub(crate) pool: String,

    /// How this proxy was started, for --handover-dir: a higher class takes over from a lower one
    #[arg(long, env = "TRIVET_CLASS", default_value = "Unit")]
    pub(crate) class: Class,

    /// Hash of this proxy's pod template, for --handover-dir
    #[arg(
        long,
        value_name = "HASH",
        env = "TRIVET_TEMPLATE",
        default_value = "",
        hide = true
    )]
    pub(crate) template: String,

    /// Generation of this proxy's pod template, for --handover-dir: a higher one takes over from a lower one
    #[arg(
        long,
        value_name = "NUMBER",
        env = "TRIVET_TEMPLATE_GENERATION",
        default_value_t = 0
    )]
    pub(crate) template_generation: u64,

    /// Unix socket at which `probe`, `status` and `explain` ask.
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,

    /// Address at which Prometheus metrics are served, at /metrics.
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) metrics_address: Option<SocketAddr>,

    /// Addresses of this node at which the metrics are served too, at the port of --metrics-address: over TLS, to callers
    /// with a bearer token that the API server, asked as the user of --token-file, lets GET /metrics. In a cluster it is the
    /// pod's status.hostIPs
    #[arg(
        long,
        value_name = "IP,…",
        env = "TRIVET_METRICS_NODE_ADDRESSES",
        requires = "metrics_address"
    )]
    pub(crate) metrics_node_addresses: Option<NodeAddresses>,

    /// What to log: error, warn, info (something changed), debug (a line per connection) or trace; or directives as in
    /// `info,trivet_proxy::probe=debug`.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub(crate) log_level: String,

    /// How to log.
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) log_format: LogFormat,
}

/// Arguments of `probe`.
#[derive(Debug, Args)]
pub(crate) struct Probe {
    /// What to ask.
    #[arg(value_enum)]
    pub(crate) question: Question,

    /// The socket that the proxy was given as `run --socket`.
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: PathBuf,
}

/// Flags of `status` and `explain`.
#[derive(Debug, Args)]
pub(crate) struct Inquiry {
    /// The socket that the proxy was given as `run --socket`.
    #[arg(long, value_name = "PATH", default_value = "/run/trivet/proxy.sock")]
    pub(crate) socket: PathBuf,

    /// The directory that the proxy was given as `run --handover-dir`: `status` shows which process serves and which stand
    /// by.
    #[arg(long, value_name = "DIR", env = "TRIVET_HANDOVER_DIR")]
    pub(crate) handover_dir: Option<PathBuf>,

    /// How to print.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
    pub(crate) output: Output,
}

/// Arguments of `explain`.
#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The member's name, as `status` shows it.
    pub(crate) member: String,

    /// Which proxy to ask.
    #[command(flatten)]
    pub(crate) inquiry: Inquiry,
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// For scripts: within a major release fields are only added.
    Json,
}

/// Arguments of `check`.
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// The wire document, JSON.
    pub(crate) file: PathBuf,
}

/// A ConfigMap by its namespace and name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConfigMapName {
    /// Its namespace.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) name: String,
}

impl FromStr for ConfigMapName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = |part: &str| {
            let allowed =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
            !part.is_empty() && part.len() <= 253 && part.bytes().all(allowed)
        };
        match text.split_once('/') {
            Some((namespace, name)) if named(namespace) && named(name) => Ok(Self {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            }),
            Some(_) | None => Err("must be NAMESPACE/NAME, each of lower-case letters, digits, '-' and '.'"),
        }
    }
}

/// The classes in rising order.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub(crate) enum Class {
    /// A static pod.
    Static,
    /// A systemd unit, or a program started by hand.
    Unit,
    /// A pod of the DaemonSet.
    DaemonSet,
}

impl From<Class> for crate::handover::rank::Class {
    fn from(class: Class) -> Self {
        match class {
            Class::Static => Self::Static,
            Class::Unit => Self::Unit,
            Class::DaemonSet => Self::DaemonSet,
        }
    }
}
