//! The interfaces between Trivet's programs, and nothing else.
//!
//! [`wire`] is the document that the operator writes and every proxy follows. `pool`, behind the feature `crd`,
//! is the API that users write. Operator and proxy never import each other; both import this crate.

#[cfg(feature = "crd")]
pub mod crdgen;
#[cfg(feature = "crd")]
pub mod pool;
#[cfg(feature = "crd")]
mod rules;
pub mod wire;

/// The API group of everything Trivet defines.
pub const GROUP: &str = "trivet.dev";

/// The label on every object that runs for a pool; its value is the pool's name.
pub const POOL_LABEL: &str = "trivet.dev/pool";

/// The label on the proxies' pods with the hash of their template, see [`wire::RolloutTarget`].
pub const TEMPLATE_LABEL: &str = "trivet.dev/template";

/// The name of the objects (ConfigMap, DaemonSet) that run for the pool called `pool`.
pub fn data_plane_name(pool: &str) -> String {
    format!("trivet-{pool}")
}
