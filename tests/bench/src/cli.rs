//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::peers::Peer;
use crate::workload::Workload;

/// Measure the proxy beside HAProxy, nginx, Envoy and Talos' go-loadbalancer, then the operator in a cluster of 5,000 nodes, and
/// write docs/benchmarks.md and docs/scale.md (root, two CPUs, a quiet machine).
///
/// Timings are no test: a missed target is said clearly, and the exit code is 0. It is 1 when something could not be
/// measured.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask bench",
    max_term_width = 100,
    args_conflicts_with_subcommands = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) options: Options,
    /// The other processes of a run.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// What to measure, and where to write it.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Fewer and shorter repetitions: minutes instead of ten, and wider spreads.
    #[arg(long)]
    pub(crate) quick: bool,

    /// The workloads to run; all by default.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "WORKLOAD")]
    pub(crate) rows: Vec<Workload>,

    /// Whom to measure beside the proxy; all by default.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PEER")]
    pub(crate) peers: Vec<Peer>,

    /// What to print.
    #[arg(short, long, value_enum, default_value = "text")]
    pub(crate) output: Output,

    /// Where to write the page. By default docs/benchmarks.md, and only after a full run.
    #[arg(long, value_name = "FILE")]
    pub(crate) page: Option<PathBuf>,

    /// The proxy to measure, instead of the one built from this tree.
    #[arg(long, value_name = "FILE")]
    pub(crate) proxy: Option<PathBuf>,
}

impl Options {
    /// Whether nothing is left out.
    pub(crate) fn is_whole(&self) -> bool {
        self.rows.is_empty() && self.peers.is_empty() && !self.quick
    }
}

/// What to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Text,
    /// Every sample, for machines.
    Json,
}

/// A part of the whole, and the other processes of a run, which the driver starts.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Measure the control path alone: the operator at an apiserver with 5,000 nodes, and a thousand proxies' watches. A run
    /// of everything ends with it.
    ///
    /// It starts an etcd and an apiserver in a network of its own, and leaves nothing (root, 4 GiB of memory, five minutes).
    Scale(Scale),
    /// The server behind all peers.
    #[command(hide = true)]
    Serve(Serve),
    /// The least that a proxy can be.
    #[command(hide = true)]
    Bare(Bare),
    /// A client.
    #[command(hide = true)]
    Load(Load),
}

/// The nodes of the cluster in which the control path is measured.
pub(crate) const NODES: usize = 5000;

/// What to measure of the control path, and where to write it.
#[derive(Clone, Debug, Args)]
pub(crate) struct Scale {
    /// Shorter times, for a first look.
    #[arg(long)]
    pub(crate) quick: bool,

    /// The nodes of the cluster.
    #[arg(long, value_name = "NUMBER", default_value_t = NODES, value_parser = nodes)]
    pub(crate) nodes: usize,

    /// Where to write the page. By default docs/scale.md, and only after a run that is not quick, with 5,000 nodes.
    #[arg(long, value_name = "FILE")]
    pub(crate) page: Option<PathBuf>,

    /// The operator to measure, instead of the one built from this tree.
    #[arg(long, value_name = "FILE")]
    pub(crate) operator: Option<PathBuf>,
}

impl Default for Scale {
    /// What a run of everything measures.
    fn default() -> Self {
        Self {
            quick: false,
            nodes: NODES,
            page: None,
            operator: None,
        }
    }
}

/// Three of them are masters, and their addresses must not run out.
fn nodes(text: &str) -> Result<usize, String> {
    let nodes = text.parse().map_err(|error| format!("{error}"))?;
    if (4..=50_000).contains(&nodes) {
        Ok(nodes)
    } else {
        Err("from 4 to 50000".to_owned())
    }
}

/// How to serve.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Where to listen.
    #[arg(long)]
    pub(crate) address: SocketAddr,
    /// The certificate, PEM.
    #[arg(long)]
    pub(crate) certificate: PathBuf,
    /// Its key, PEM.
    #[arg(long)]
    pub(crate) key: PathBuf,
}

/// How to forward.
#[derive(Debug, Args)]
pub(crate) struct Bare {
    /// Where to listen.
    #[arg(long)]
    pub(crate) listen: SocketAddr,
    /// Where to forward to.
    #[arg(long)]
    pub(crate) upstream: SocketAddr,
}

/// How to be a client.
#[derive(Debug, Args)]
pub(crate) struct Load {
    /// Whom to connect to.
    #[arg(long)]
    pub(crate) address: SocketAddr,
    /// Where to run.
    #[arg(long)]
    pub(crate) cpu: usize,
    /// The authority of the server's certificate, PEM.
    #[arg(long)]
    pub(crate) authority: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub(crate) kind: Kind,
}

/// What a client does.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum Kind {
    /// Reads bytes over one plain stream as fast as they come.
    Bulk {
        /// How many.
        bytes: u64,
    },
    /// Gets lists of 20 MiB over HTTP/2 and TLS, one after another.
    Lists {
        /// How many.
        count: u64,
    },
    /// Sends 64 bytes and waits for them to come back, again and again.
    Echo {
        /// How often.
        rounds: u64,
    },
    /// Small HTTP/2 requests over TLS on ten connections, one at a time on each.
    Requests {
        /// How many on each connection.
        count: u64,
    },
    /// Opens connections, says one byte on each, and keeps them until its input ends.
    Idle {
        /// How many.
        connections: u64,
    },
    /// Connects, says a byte, hears it, closes; one after another.
    Churn {
        /// How often.
        count: u64,
    },
    /// Reads plain bursts of 20 MiB on four streams at 4 Gb/s in all.
    Bursts {
        /// For how long.
        seconds: u64,
    },
    /// A small HTTP/2 request over TLS each millisecond.
    Paced {
        /// For how long.
        seconds: u64,
    },
}
