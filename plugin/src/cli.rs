//! The command line, parsed once into types that hold only valid values.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};

const EXIT_CODES: &str = "Exit codes: 0 all is well, 1 the command failed, 2 something is wrong (status, doctor) or the \
    spec is refused (plan), 64 a flag, name or file is wrong.";

const STATUS_EXAMPLES: &str = "Examples:
  kubectl trivet status
      every pool: its conditions, its members, and which node reaches which member
  kubectl trivet status default --all
      every node of a large cluster, not only the worst ones
  kubectl trivet status -o json | jq -r '.pools[].nodes[] | select(.wrong) | .node'";

const DOCTOR_EXAMPLES: &str = "Examples:
  kubectl trivet doctor
  kubectl trivet doctor -o json | jq -r '.findings[] | [.severity, .finding, .where] | @tsv'
  kubectl trivet doctor --ask-kubelets
      also whether each kubelet reads the directory that spec.nodeBootstrap.manifestPath names; needs get on nodes/proxy,
      with which a user can run commands in pods, so the ClusterRole trivet-plugin does not have it";

const PLAN_EXAMPLES: &str = "Examples:
  kubectl trivet plan -f pool.yaml
  kubectl get asp default -o yaml | sed 's/WorkersOnly/AllNodes/' | kubectl trivet plan -f -
  kubectl trivet plan -f pool.yaml && kubectl replace -f pool.yaml";

const DRAIN_EXAMPLES: &str = "Examples:
  kubectl trivet drain master-2
      closes its connections gradually, and returns when no client of Trivet has one
  kubectl trivet drain master-2 --undo
      makes it Active again";

const RETIRE_EXAMPLES: &str = "Examples:
  kubectl trivet retire master-2
      drains it, then disables it; afterwards its apiserver can be switched off
  kubectl trivet drain master-2 --undo
      brings it back";

const REPORT_EXAMPLES: &str = "Examples:
  kubectl trivet report
  kubectl trivet report --file trivet.tar.gz && tar -tzf trivet.tar.gz";

/// Shows what Trivet does for the nodes of a cluster, what is wrong and what to do, and what an edit would do.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl-trivet",
    bin_name = "kubectl trivet",
    version,
    about,
    arg_required_else_help = true,
    max_term_width = 110,
    after_help = EXIT_CODES
)]
pub struct Cli {
    /// Which cluster, as whom.
    #[command(flatten)]
    pub access: Access,

    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// Which cluster, as whom.
#[derive(Clone, Debug, Default, Args)]
pub struct Access {
    /// The kubeconfig; by default $KUBECONFIG or ~/.kube/config
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// The context of the kubeconfig; by default its current one
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,

    /// The namespace that Trivet is installed in
    #[arg(short, long, global = true, value_name = "NAME", default_value = "trivet-system",
        value_parser = NonEmptyStringValueParser::new())]
    pub namespace: String,

    /// The user to impersonate
    #[arg(long = "as", global = true, value_name = "USER")]
    pub user: Option<String>,

    /// A group to impersonate; may be repeated
    #[arg(long = "as-group", global = true, value_name = "GROUP", requires = "user")]
    pub groups: Vec<String>,

    /// Print no colours, also on a terminal
    #[arg(long, global = true, env = "NO_COLOR", hide_env = true, num_args = 0..=1, require_equals = true,
        default_missing_value = "1", hide_possible_values = true, value_name = "ANY")]
    pub no_color: Option<String>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show each pool: its conditions, members, which node reaches which member, what is wrong and what to do.
    #[command(after_help = STATUS_EXAMPLES)]
    Status(Status),
    /// Look for what is wrong or will be: in the cluster, in each pool and on each node.
    ///
    /// Each finding says what is wrong, where, and the remedy; docs/plugin.md lists them all. A note alone is nothing wrong.
    #[command(after_help = DOCTOR_EXAMPLES)]
    Doctor(Doctor),
    /// Show what an edit of a pool would do, by the operator's own code; writes nothing.
    ///
    /// The file is taken for the whole spec, as kubectl replace does: a field that it does not have gets its default. The API
    /// server checks it by a dry run, which needs the right to patch pools; without it only the operator's checks are made.
    #[command(after_help = PLAN_EXAMPLES)]
    Plan(Plan),
    /// Drain a member: no new connections while another answers, and the old ones are closed gradually.
    ///
    /// Waits until no client of Trivet is connected to it. An interrupted wait changes nothing: the member goes on draining, and
    /// the same command waits again.
    #[command(after_help = DRAIN_EXAMPLES)]
    Drain(Drain),
    /// Drain a member and then disable it, so that its apiserver can be switched off.
    #[command(after_help = RETIRE_EXAMPLES)]
    Retire(Retire),
    /// Write what a maintainer needs to help into a tar.gz, without secrets.
    ///
    /// Pools, reports, DaemonSets, ConfigMaps of Trivet, events, the last lines of its pods' logs, versions, and what doctor
    /// finds. Never Secrets, tokens, or values of environment variables.
    #[command(after_help = REPORT_EXAMPLES)]
    Report(Report),
}

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For scripts: within a major release fields are only added.
    Json,
}

/// The flag for the output.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct Output {
    /// How to print
    #[arg(
        short = 'o',
        long = "output",
        value_enum,
        value_name = "FORMAT",
        default_value = "table"
    )]
    pub format: Format,
}

/// The flags of `status`.
#[derive(Clone, Debug, Default, Args)]
pub struct Status {
    /// The pool; by default all
    pub pool: Option<String>,

    /// Show every node, also where there are many
    #[arg(long)]
    pub all: bool,

    /// How to print.
    #[command(flatten)]
    pub output: Output,
}

/// The flags of `doctor`.
#[derive(Clone, Debug, Default, Args)]
pub struct Doctor {
    /// Also read the configuration of every kubelet, through the API server
    #[arg(long)]
    pub ask_kubelets: bool,

    /// How to print.
    #[command(flatten)]
    pub output: Output,
}

/// The flags of `plan`.
#[derive(Clone, Debug, Args)]
pub struct Plan {
    /// The ApiserverPool as it would be, YAML or JSON; - reads stdin
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    pub file: PathBuf,

    /// How to print.
    #[command(flatten)]
    pub output: Output,
}

/// The flags of `drain`.
#[derive(Clone, Debug, Args)]
pub struct Drain {
    /// The member
    pub member: String,

    /// The pool; needed only if there are several
    #[arg(long, value_name = "NAME")]
    pub pool: Option<String>,

    /// How long to wait, such as 90s, 10m or 1h; 0s does not wait
    #[arg(long, default_value = "10m", value_parser = duration)]
    pub timeout: Duration,

    /// Make the member Active again
    #[arg(long)]
    pub undo: bool,

    /// How to print.
    #[command(flatten)]
    pub output: Output,
}

/// The flags of `retire`.
#[derive(Clone, Debug, Args)]
pub struct Retire {
    /// The member
    pub member: String,

    /// The pool; needed only if there are several
    #[arg(long, value_name = "NAME")]
    pub pool: Option<String>,

    /// How long to wait until it is drained, such as 90s, 10m or 1h
    #[arg(long, default_value = "10m", value_parser = duration)]
    pub timeout: Duration,

    /// How to print.
    #[command(flatten)]
    pub output: Output,
}

/// The flags of `report`.
#[derive(Clone, Debug, Args)]
pub struct Report {
    /// The file to write, which must not exist
    #[arg(long, value_name = "FILE", default_value = "trivet-report.tar.gz")]
    pub file: PathBuf,

    /// The last lines of each container's log
    #[arg(long, value_name = "LINES", default_value_t = 500, value_parser = clap::value_parser!(u16).range(0..=5000))]
    pub log_lines: u16,
}

/// A time as people write it: a number and s, m or h.
fn duration(text: &str) -> Result<Duration, String> {
    let rule = "must be a whole number and one of s, m and h, such as 90s";
    let units = [('s', 1), ('m', 60), ('h', 3600)];
    let mut units = units.into_iter();
    let (number, seconds) = units
        .find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)))
        .ok_or(rule)?;
    let number: u64 = number.parse().map_err(|_| rule.to_owned())?;
    number
        .checked_mul(seconds)
        .map(Duration::from_secs)
        .ok_or_else(|| "is too long".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("kubectl-trivet").chain(line.split_whitespace()))
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_examples_and_the_exit_codes_are_told() {
        let mut cli = Cli::command();
        assert!(cli.render_long_help().to_string().contains("64 a flag"));
        for command in cli.get_subcommands_mut() {
            let name = command.get_name().to_owned();
            if name == "help" {
                continue;
            }
            let help = command.render_long_help().to_string();
            assert!(help.contains(&format!("kubectl trivet {name}")), "{help}");
        }
    }

    #[test]
    fn flags_of_access_are_understood_on_both_sides_of_the_command() {
        for line in ["--context c -n trivet doctor", "doctor --context c -n trivet"] {
            let Cli { access, .. } = parse(line).unwrap();
            assert_eq!(
                (access.context.as_deref(), access.namespace.as_str()),
                (Some("c"), "trivet")
            );
        }
        assert!(parse("doctor --as-group g").is_err(), "a group without a user");
    }

    #[test]
    fn a_time_is_a_number_with_a_unit() {
        for (text, seconds) in [("0s", 0), ("90s", 90), ("10m", 600), ("2h", 7200)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)));
        }
        for text in [
            "",
            "90",
            "1.5m",
            "-1s",
            "m",
            "9s9s",
            "9ss",
            "99999999999999999999s",
            "9999999999999999999h",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_wrong_value_is_refused_by_flag_and_value() {
        let message = parse("drain cp1 --timeout soon").unwrap_err().to_string();
        assert!(
            message.contains("--timeout") && message.contains("soon"),
            "{message}"
        );
    }
}
