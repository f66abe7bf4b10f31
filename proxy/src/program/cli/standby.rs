//! The flags of `write-manifest` and `remove-manifest`. They are values of known types and no YAML: whoever may change the
//! arguments of the writer must not be able to start another pod on every node.

use std::{net::SocketAddr, path::PathBuf, str::FromStr};

use clap::{Args, value_parser};
use tracing::Level;

use crate::{
    log::LogFormat,
    manifest::{
        confinement::{AppArmorProfile, SeLinuxLevel, SeLinuxType},
        names::{Image, Namespace, PoolName, Zone},
    },
};

/// Flags of `write-manifest`.
#[derive(Debug, Args)]
pub(crate) struct WriteArguments {
    /// Where the manifest is, and who says whether one is needed.
    #[command(flatten)]
    pub(crate) place: RemoveArguments,

    /// The standby's image, with a tag other than latest or with a digest.
    #[arg(long)]
    pub(crate) image: Image,

    /// The namespace in which the standby is shown: that of Trivet.
    #[arg(long, value_name = "NAME", default_value = "trivet-system")]
    pub(crate) namespace: Namespace,

    /// The pool's document, with which the standby starts where the node's disk has none. Without the file it starts without.
    #[arg(long, value_name = "FILE", default_value = "/etc/trivet/pool.json")]
    pub(crate) document: PathBuf,

    /// Zone of this node, for pools with locality PreferLocal or PreferSameZone. Empty: unknown.
    #[arg(long, value_name = "ZONE", env = "NODE_ZONE", default_value = "", value_parser = maybe::<Zone>)]
    pub(crate) zone: Maybe<Zone>,

    /// The standby's `run --metrics-address`.
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) metrics_address: Option<SocketAddr>,

    /// The standby's `run --log-level`: error, warn, info, debug or trace.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub(crate) log_level: Level,

    /// The standby's `run --log-format`.
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) log_format: LogFormat,

    /// The pool's `spec.connection.drainTimeoutSeconds`.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(crate) drain_timeout_seconds: u32,

    /// The pool's `spec.proxy.appArmorProfile`: Unconfined, RuntimeDefault or Localhost/NAME.
    #[arg(long, value_name = "PROFILE", default_value_t)]
    pub(crate) app_armor_profile: AppArmorProfile,

    /// The type of the pool's `spec.proxy.seLinuxOptions`. Empty: none.
    #[arg(long, value_name = "TYPE", default_value = "spc_t", value_parser = maybe::<SeLinuxType>)]
    pub(crate) se_linux_type: Maybe<SeLinuxType>,

    /// The level of these. Empty: none.
    #[arg(long, value_name = "LEVEL", default_value = "s0", value_parser = maybe::<SeLinuxLevel>)]
    pub(crate) se_linux_level: Maybe<SeLinuxLevel>,
}

/// Flags of `remove-manifest`, and of `write-manifest` too.
#[derive(Debug, Args)]
pub(crate) struct RemoveArguments {
    /// Kubelet's directory of static pods (staticPodPath).
    #[arg(long, value_name = "DIR")]
    pub(crate) directory: PathBuf,

    /// The name of the ApiserverPool.
    #[arg(long, value_name = "NAME")]
    pub(crate) pool: PoolName,

    /// Directory in which the proxies of this node meet. The one that serves says who is there: a manifest is removed only
    /// once the new standby is warm, or once another proxy than a standby serves.
    #[arg(
        long,
        value_name = "DIR",
        env = "TRIVET_HANDOVER_DIR",
        default_value = "/run/trivet-handover"
    )]
    pub(crate) handover_dir: PathBuf,

    /// How long to wait for that.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = value_parser!(u64).range(..=600))]
    pub(crate) wait_seconds: u64,

    /// Where kubelet reads why the container has ended. Written only where the file is.
    #[arg(long, value_name = "FILE", default_value = "/dev/termination-log")]
    pub(crate) termination_log: PathBuf,
}

/// A value, or none where the flag or the variable is empty: kubelet sets an empty variable for a pod without the label.
#[derive(Clone, Debug)]
pub(crate) struct Maybe<T>(pub(crate) Option<T>);

fn maybe<T: FromStr>(text: &str) -> Result<Maybe<T>, T::Err> {
    if text.is_empty() {
        return Ok(Maybe(None));
    }
    text.parse().map(|value| Maybe(Some(value)))
}
