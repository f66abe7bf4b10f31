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

/// The label on the pods that remove what the proxies of a retired pool leave on a node; its value is the pool's name. They do
/// not have [`POOL_LABEL`] either.
pub const RETIREMENT_LABEL: &str = "trivet.dev/retirement-of";

/// The value of [`COMPONENT_LABEL`] of the DaemonSet with these pods.
pub const RETIREMENT_COMPONENT: &str = "retirement";

/// The annotation of the proxies' DaemonSet that asks to retire them at once, with the value [`RETIRE_NOW`]. It has no effect
/// while the pool exists.
pub const RETIRE: &str = "trivet.dev/retire";

/// The value of [`RETIRE`].
pub const RETIRE_NOW: &str = "now";

/// The annotation with which the operator notes that it retires the proxies: without it, the API server lets it delete
/// nothing.
pub const RETIREMENT: &str = "trivet.dev/retirement";

/// The annotation of a proxy's pod whose node has a standby, with the value [`STANDBY_READY`]. The API server lets such a pod
/// be deleted by hand.
pub const STANDBY: &str = "trivet.dev/standby";

/// The value of [`STANDBY`].
pub const STANDBY_READY: &str = "Ready";

/// The name of the DaemonSet that writes the manifests of the standbys of the pool called `pool`. No pool's name ends so.
pub fn bootstrap_name(pool: &str) -> String {
    format!("{}-bootstrap", data_plane_name(pool))
}

/// The name of the DaemonSet that removes what the proxies of the pool called `pool` leave on the nodes. No name of a pool makes
/// another object of this name, because those begin with `trivet-`.
pub fn retirement_name(pool: &str) -> String {
    format!("retire-{}", data_plane_name(pool))
}

/// The name of the objects (ConfigMap, DaemonSet) that run for the pool called `pool`.
pub fn data_plane_name(pool: &str) -> String {
    format!("trivet-{pool}")
}

/// Whether a field has its default, which is left out where it is written.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
