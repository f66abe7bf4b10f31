//! The command line.

use std::{net::SocketAddr, path::PathBuf, str::FromStr};

use clap::{Args, Parser, Subcommand, ValueEnum};

/// The proxy of a node: a layer-4 balancer over all apiservers of a pool.
///
/// It listens on the node's loopback, spreads connections over the members of its pool, avoids those that are not well
/// and cuts those that are silent, so that clients reconnect at once. TLS passes through untouched.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Exit codes: 0 done, 1 no (probe, check) or failed, 64 a flag, name or file that breaks a rule."
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

const STATUS_HELP: &str = "Columns: FOR is the time in this state; LAST PROBE, TOOK and AGO say what the last probe brought, after how long, and
when; PROVEN is whether this node ever had a verified answer from the member; DISTANCE is where it is as seen from here:
Local (this very node), SameZone or Elsewhere, which orders members that are equally well as the document's locality says.

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
    /// Which members there are, and where to listen, says the wire document: the newest of --config and --cache-dir at
    /// the start, and whatever is newer in --config or --watch from then on. A document that cannot be followed is
    /// refused with a log line and a metric; the one in force stays.
    #[command(after_help = RUN_EXAMPLES)]
    Run(Box<Run>),
    /// Ask the proxy that runs here how it is; for exec probes. Exits 0 for yes, 1 for no, and says why.
    Probe(Probe),
    /// Check a wire document as a proxy would.
    ///
    /// Exits 0 and names pool, revision and number of members, or exits 64 and names the field and the rule it breaks.
    /// In a cluster: kubectl -n trivet-system get configmap trivet-default -o jsonpath='{.data.pool\.json}' > pool.json
    Check(Check),
    /// Show the proxy that runs here: its document, its clients, and a row for each upstream.
    ///
    /// In a cluster, inside the proxy's pod:
    /// kubectl -n trivet-system exec POD -- /trivet-proxy status
    #[command(after_help = STATUS_HELP)]
    Status(Inquiry),
    /// Say why a member is in its state, by what evidence, and what would change it.
    #[command(after_help = EXPLAIN_HELP)]
    Explain(Explain),
}

/// How to run.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The wire document, JSON. Looked at every second; may be absent at first. In a cluster, the mounted ConfigMap.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Where the last good documents are kept, so that the proxy starts with no apiserver at all.
    #[arg(long, value_name = "DIR")]
    pub(crate) cache_dir: Option<PathBuf>,

    /// The ConfigMap to follow through this proxy's own upstreams.
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pub(crate) watch: Option<ConfigMapName>,

    /// The bearer token for --watch; read at every request.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/var/run/secrets/kubernetes.io/serviceaccount/token"
    )]
    pub(crate) token_file: PathBuf,

    /// This node's name: proxies of different nodes prefer different members. Defaults to the host's name.
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    pub(crate) node_name: Option<String>,

    /// The zone this node is in, for pools with locality PreferLocal or PreferSameZone. Empty: unknown, and zones make no
    /// difference. In a cluster NODE_ZONE is the pod's label topology.kubernetes.io/zone.
    #[arg(long, value_name = "ZONE", env = "NODE_ZONE", default_value = "")]
    pub(crate) zone: String,

    /// Where `probe`, `status` and `explain` ask.
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,

    /// Where Prometheus metrics are served, at /metrics.
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) metrics_address: Option<SocketAddr>,

    /// What to log: error, warn, info (something changed), debug (a line per connection) or trace; or directives as in
    /// `info,trivet_proxy::probe=debug`.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub(crate) log_level: String,

    /// How to log.
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) log_format: LogFormat,
}

/// How to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// What to ask the running proxy.
#[derive(Debug, Args)]
pub(crate) struct Probe {
    /// What to ask.
    #[arg(value_enum)]
    pub(crate) question: Question,

    /// The socket that the proxy was given as `run --socket`.
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: PathBuf,
}

/// What to ask the running proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Question {
    /// Whether it forwards.
    Ready,
    /// Whether its event loop turns.
    Live,
}

/// Whom to ask about the running proxy, and how to print the answer.
#[derive(Debug, Args)]
pub(crate) struct Inquiry {
    /// The socket that the proxy was given as `run --socket`.
    #[arg(long, value_name = "PATH", default_value = "/run/trivet/proxy.sock")]
    pub(crate) socket: PathBuf,

    /// How to print.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
    pub(crate) output: Output,
}

/// Which member to explain.
#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The member's name, as `status` shows it.
    pub(crate) member: String,

    /// Whom to ask.
    #[command(flatten)]
    pub(crate) inquiry: Inquiry,
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// For scripts: fields are only ever added within a major release.
    Json,
}

/// What to check.
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
