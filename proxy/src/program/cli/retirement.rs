//! The flags of `remove-standby` and `remove-state`, which the operator's remover runs on each node of a retired pool.

use std::path::PathBuf;

use clap::{Args, value_parser};

use crate::manifest::names::PoolName;

/// Flags of `remove-standby`.
#[derive(Debug, Args)]
pub(crate) struct StandbyArguments {
    /// Kubelet's directory of static pods (staticPodPath).
    #[arg(long, value_name = "DIR")]
    pub(crate) directory: PathBuf,

    /// The name of the ApiserverPool.
    #[arg(long, value_name = "NAME")]
    pub(crate) pool: PoolName,

    /// Directory in which the proxies of this node meet. The one that serves says whether a standby is there.
    #[arg(long, value_name = "DIR")]
    pub(crate) handover_dir: PathBuf,

    /// How long to wait for the end of the standbys. One that serves alone looks for a successor for half a minute, and drains
    /// then.
    #[arg(long, value_name = "SECONDS", default_value_t = 180, value_parser = value_parser!(u64).range(..=3600))]
    pub(crate) wait_seconds: u64,

    /// Where kubelet reads why the container has ended. Written only where the file is.
    #[arg(long, value_name = "FILE", default_value = "/dev/termination-log")]
    pub(crate) termination_log: PathBuf,
}

/// Flags of `remove-state`.
#[derive(Debug, Args)]
pub(crate) struct StateArguments {
    /// The name of the ApiserverPool.
    #[arg(long, value_name = "NAME")]
    pub(crate) pool: PoolName,

    /// The directory with the caches of all pools, each in a directory of its name.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/trivet")]
    pub(crate) cache_root: PathBuf,

    /// The directory with the directories in which the proxies of each pool meet.
    #[arg(long, value_name = "DIR", default_value = "/run/trivet")]
    pub(crate) run_root: PathBuf,

    /// Remove nothing, and say whether anything is left: exits 0 if nothing is.
    #[arg(long)]
    pub(crate) check: bool,
}
