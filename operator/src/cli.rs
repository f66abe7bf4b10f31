//! The command line, parsed once into types that hold only valid values.

use std::net::SocketAddr;

use clap::{Args, Parser, Subcommand, ValueEnum};
use trivet_crds::report::RESTS_AFTER_SECONDS;

/// Keeps every node of a Kubernetes cluster talking to a live apiserver.
#[derive(Debug, Parser)]
#[command(name = "trivet-operator", version, about, arg_required_else_help = true)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands of the operator.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch ApiserverPools and nodes, write each pool's ConfigMap and DaemonSet, and report in the pool's status.
    ///
    /// Inside a cluster the operator uses its service account, elsewhere the kubeconfig of $KUBECONFIG or
    /// ~/.kube/config. Of several operators one writes, the holder of the Lease trivet-operator in the namespace; the others
    /// watch. It ends on SIGTERM once the passes under way are done, and gives the Lease to the next one; a second signal ends it
    /// at once. Nodes keep their proxies and their last configuration while no operator runs.
    ///
    /// Exit codes: 0 stopped by a signal, 64 a flag is wrong, 1 any other error.
    #[command(after_help = "Example, from a machine with a kubeconfig:\n  \
        trivet-operator run --namespace trivet-system --proxy-image trivet.dev/trivet-proxy:0.1.0")]
    Run(Run),
    /// Retire all proxies of a namespace, where no operator does it any more: after `helm uninstall`.
    ///
    /// It removes the manifests of standbys, the proxies, and what both leave on every node, and ends when nothing is left. It
    /// refuses while a pool exists, or while a node uses its proxy; the annotation trivet.dev/retire=now on the DaemonSet of
    /// the proxies overrides the latter. What is done stays done, so it can be run again.
    ///
    /// Exit codes: 0 nothing is left, 64 a flag is wrong, 1 refused, or any other error.
    #[command(
        after_help = "The chart leaves a CronJob that never runs by itself for it:\n  \
        kubectl -n trivet-system create job retire-trivet --from=cronjob/trivet-retirement"
    )]
    Retire(Retire),
}

/// The flags of `retire`.
#[derive(Clone, Debug, Args)]
pub struct Retire {
    /// The namespace that Trivet was installed in
    #[arg(long, env = "POD_NAMESPACE", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub namespace: String,

    /// How long every node must have been without a client
    #[arg(long, default_value_t = 600, value_name = "SECONDS", value_parser = idle_seconds())]
    pub retire_after_seconds: u32,

    /// The name that the API server's certificate must cover, where that is not its address
    #[arg(long, value_name = "NAME")]
    pub tls_server_name: Option<String>,

    /// The lowest level that is logged
    #[arg(long, value_enum, default_value_t = LogLevel::Info)]
    pub log_level: LogLevel,

    /// text for people, json for programs
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// A proxy reports a client at once only after it has been idle for a minute, so a shorter time could miss one.
fn idle_seconds() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(i64::from(RESTS_AFTER_SECONDS)..=86400)
}

/// The flags of `run`.
#[derive(Clone, Debug, Args)]
pub struct Run {
    /// The namespace of the pools' ConfigMaps and DaemonSets, which is the one that Trivet is installed in
    #[arg(long, env = "POD_NAMESPACE", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub namespace: String,

    /// The name of this operator in the Lease trivet-operator, by which several operators elect the one that writes. In a pod the
    /// pod's name, elsewhere the host's
    #[arg(long, env = "POD_NAME", value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub identity: Option<String>,

    /// The image of the proxies, for pools that name none
    #[arg(long, env = "PROXY_IMAGE", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub proxy_image: String,

    /// When nodes pull the proxies' image
    #[arg(long, value_enum, default_value_t = PullPolicy::IfNotPresent)]
    pub proxy_image_pull_policy: PullPolicy,

    /// Secrets, by commas, with which nodes pull the proxies' image, for pools that name none
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub proxy_image_pull_secrets: Vec<String>,

    /// The service account of the proxies, which needs get, list and watch on ConfigMaps in the namespace
    #[arg(long, default_value = "trivet-proxy", value_name = "NAME")]
    pub proxy_service_account: String,

    /// Let pools place static pods on nodes (spec.nodeBootstrap). The chart sets it with the value nodeBootstrap.enabled, and its
    /// admission policy then lets the operator write into kubelet's directories
    #[arg(long)]
    pub node_bootstrap: bool,

    /// How long, in sum, the proxies of all nodes must be available with a new template before the static pods get it
    #[arg(long, default_value_t = 300, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=86400))]
    pub standby_soak_seconds: u64,

    /// How long a new proxy runs on the first node of a rollout before the other nodes get it. spec.rollout.minReadySeconds
    /// of a pool counts if it is longer
    #[arg(long, default_value_t = 30, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(..=3600))]
    pub rollout_soak_seconds: u32,

    /// How long every node must have been without a client before the proxies of a deleted pool are retired
    #[arg(long, default_value_t = 600, value_name = "SECONDS", value_parser = idle_seconds())]
    pub retire_after_seconds: u32,

    /// The name that the API server's certificate must cover, where that is not its address
    #[arg(long, value_name = "NAME")]
    pub tls_server_name: Option<String>,

    /// The address of /livez, /readyz and /metrics
    #[arg(long, default_value = "0.0.0.0:8080", value_name = "IP:PORT")]
    pub address: SocketAddr,

    /// The lowest level that is logged
    #[arg(long, value_enum, default_value_t = LogLevel::Info)]
    pub log_level: LogLevel,

    /// text for people, json for programs
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// When a node pulls an image, by the names that Kubernetes uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum PullPolicy {
    /// At every start of a proxy. A node that cannot reach the registry then gets no proxy.
    Always,
    /// Once per node and version.
    IfNotPresent,
    /// Never. The images are loaded onto the nodes by other means.
    Never,
}

impl PullPolicy {
    /// The value of a container's `imagePullPolicy`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

/// The lowest level that is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs, reason = "the usual levels")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs, reason = "the flag's documentation describes them")]
pub enum LogFormat {
    Text,
    Json,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(flags: &[&str]) -> Result<Run, clap::Error> {
        let needed = [
            "trivet-operator",
            "run",
            "--namespace",
            "trivet-system",
            "--proxy-image",
            "proxy:1",
        ];
        match Cli::try_parse_from(needed.iter().chain(flags))?.command {
            Command::Run(run) => Ok(run),
            Command::Retire(retire) => panic!("{retire:?}"),
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_chart_s_flags_are_understood() {
        let run = parse(&[
            "--proxy-image-pull-policy",
            "Never",
            "--proxy-image-pull-secrets",
            "a,b",
            "--tls-server-name=kubernetes",
            "--node-bootstrap",
            "--standby-soak-seconds=60",
        ])
        .unwrap();
        assert!(run.node_bootstrap);
        assert_eq!(run.standby_soak_seconds, 60);
        assert_eq!(run.proxy_image_pull_policy, PullPolicy::Never);
        assert_eq!(run.proxy_image_pull_secrets, ["a", "b"]);
        assert_eq!(run.proxy_service_account, "trivet-proxy");
        assert_eq!(run.tls_server_name.as_deref(), Some("kubernetes"));
    }

    #[test]
    fn a_wrong_value_is_refused_by_flag_value_and_rule() {
        let message = parse(&["--proxy-image-pull-policy", "Sometimes"])
            .unwrap_err()
            .to_string();
        assert!(message.contains("--proxy-image-pull-policy"), "{message}");
        assert!(message.contains("Sometimes"), "{message}");
        assert!(message.contains("IfNotPresent"), "{message}");
        let message = parse(&["--retire-after-seconds=59"]).unwrap_err().to_string();
        assert!(message.contains("59 is not in 60..=86400"), "{message}");
        assert!(
            parse(&["--address", "nowhere"])
                .unwrap_err()
                .to_string()
                .contains("nowhere")
        );
    }
}
