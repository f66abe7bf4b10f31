//! Turns a plan into Kubernetes objects. Pure; tests compare the objects with committed golden files.
//!
//! No object has an ownerReference or a finalizer, because what nodes depend on must outlive the pool, the CRD and the
//! release.

pub mod bootstrap;
pub mod config_map;
pub mod daemon_set;
mod pod;
pub mod remover;

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::ConfigMap;
use trivet_crds::{POOL_LABEL, wire};

use crate::cli::{PullPolicy, Run};
use crate::plan::Rollout;

/// The flags of the operator that the objects depend on.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The namespace of the objects.
    pub namespace: String,
    /// The proxies' image, for pools that name none.
    pub image: String,
    /// When nodes pull it.
    pub pull_policy: PullPolicy,
    /// The pull secrets, for pools that name none.
    pub pull_secrets: Vec<String>,
    /// The proxies' service account.
    pub service_account: String,
    /// Whether pools may place static pods on nodes.
    pub has_node_bootstrap: bool,
    /// How long proxies must be available with a new template before the standbys get it.
    pub standby_soak: Duration,
    /// How long a new proxy runs on the first node of a rollout before the other nodes get it, in seconds.
    pub rollout_soak_seconds: u32,
    /// How long every node must have been without a client before the proxies of a deleted pool are retired.
    pub retire_after_seconds: u32,
}

impl From<&Run> for Settings {
    fn from(run: &Run) -> Self {
        Self {
            namespace: run.namespace.clone(),
            image: run.proxy_image.clone(),
            pull_policy: run.proxy_image_pull_policy,
            pull_secrets: run.proxy_image_pull_secrets.clone(),
            service_account: run.proxy_service_account.clone(),
            has_node_bootstrap: run.node_bootstrap,
            standby_soak: Duration::from_secs(run.standby_soak_seconds),
            rollout_soak_seconds: run.rollout_soak_seconds,
            retire_after_seconds: run.retire_after_seconds,
        }
    }
}

/// Every object of a pool.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// The wire document and its marks, unless both are in place.
    pub config_map: Option<ConfigMap>,
    /// The proxies; `None` leaves the DaemonSet as it is.
    pub daemon_set: Option<DaemonSet>,
    /// The writer of the standbys' manifests; `None` leaves it as it is.
    pub writer: Option<DaemonSet>,
}

/// Renders the objects of a plan.
pub fn render(rollout: &Rollout, settings: &Settings) -> Result<Desired, wire::Error> {
    Ok(Desired {
        config_map: (!rollout.is_written)
            .then(|| config_map::render(rollout, settings))
            .transpose()?,
        daemon_set: rollout
            .proxies
            .as_ref()
            .map(|proxies| daemon_set::render(&rollout.document, proxies, settings))
            .transpose()?,
        writer: rollout
            .proxies
            .as_ref()
            .zip(rollout.writer.as_ref())
            .map(|(proxies, target)| bootstrap::render(rollout, proxies, target, settings)),
    })
}

/// The labels of every object of a pool.
pub fn labels(pool: &str) -> BTreeMap<String, String> {
    let labels = [
        ("app.kubernetes.io/name", "trivet-proxy"),
        ("app.kubernetes.io/instance", pool),
        ("app.kubernetes.io/managed-by", crate::MANAGER),
        (POOL_LABEL, pool),
    ];
    labels
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

#[cfg(test)]
mod tests;
