//! The interfaces between Trivet's programs, and nothing else.
//!
//! [`wire`] is the document that the operator writes and every proxy follows, [`report`] is what a proxy says about itself.
//! `pool`, behind the feature `crd`, is the API that users write. Operator and proxy never import each other; both import this crate.

#[cfg(feature = "crd")]
pub mod crdgen;
#[cfg(feature = "crd")]
pub mod pool;
pub mod report;
#[cfg(feature = "crd")]
mod rules;
pub mod wire;

/// The API group of everything Trivet defines.
pub const GROUP: &str = "trivet.dev";

/// The label on every object that runs for a pool; its value is the pool's name.
pub const POOL_LABEL: &str = "trivet.dev/pool";

/// The label on the proxies' pods with the hash of their template, see [`wire::RolloutTarget`].
pub const TEMPLATE_LABEL: &str = "trivet.dev/template";

/// The label on the pods that write the manifests of a pool's standbys; its value is the pool's name. They are no proxies, so
/// they do not have [`POOL_LABEL`].
pub const BOOTSTRAP_LABEL: &str = "trivet.dev/bootstrap-of";

/// The label on the standbys' pods; its value is the pool's name. They do not have [`POOL_LABEL`] either.
pub const STANDBY_LABEL: &str = "trivet.dev/standby-of";

/// The label on the DaemonSet that writes manifests, and on its pods, whose value is [`BOOTSTRAP_COMPONENT`].
pub const COMPONENT_LABEL: &str = "trivet.dev/component";

/// The value of [`COMPONENT_LABEL`].
pub const BOOTSTRAP_COMPONENT: &str = "bootstrap";

/// The name of the DaemonSet that writes the manifests of the standbys of the pool called `pool`. No pool's name ends so.
pub fn bootstrap_name(pool: &str) -> String {
    format!("{}-bootstrap", data_plane_name(pool))
}

/// The name of the objects (ConfigMap, DaemonSet) that run for the pool called `pool`.
pub fn data_plane_name(pool: &str) -> String {
    format!("trivet-{pool}")
}
