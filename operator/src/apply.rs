//! Writes the rendered objects by server-side apply.

use std::fmt::Debug;

use k8s_openapi::api::apps::v1::DaemonSet;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::MANAGER;
use crate::render::Desired;

/// Why an object is not as rendered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server did not accept it.
    #[error("failed to apply {kind} {name}")]
    Apply {
        /// Its kind.
        kind: &'static str,
        /// Its name.
        name: String,
        /// Why.
        source: kube::Error,
    },
}

impl Error {
    /// One fixed word for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Apply { .. } => "ApplyFailed",
        }
    }
}

/// Applies every object of a pool, the document first, and returns the DaemonSet as it is now.
pub async fn apply(client: &Client, desired: Desired) -> Result<DaemonSet, Error> {
    let Desired {
        config_map,
        daemon_set,
    } = desired;
    if let Some(config_map) = &config_map {
        put(client, "ConfigMap", config_map).await?;
    }
    put(client, "DaemonSet", &daemon_set).await
}

async fn put<K>(client: &Client, kind: &'static str, object: &K) -> Result<K, Error>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    K: Clone + Debug + DeserializeOwned + Serialize,
{
    let name = object.name_any();
    let api: Api<K> = Api::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    // With force, so that this also repairs an object that someone has edited or an earlier installation has left.
    let params = PatchParams::apply(MANAGER).force();
    let applied = api.patch(&name, &params, &Patch::Apply(object)).await;
    applied.map_err(|source| Error::Apply { kind, name, source })
}
