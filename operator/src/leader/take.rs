//! A leader takes the objects of a pool before it relies on what it has read of them.
//!
//! [`crate::api::fence`] stops a write of a process that does not lead any more. It cannot stop one that has passed it: the
//! process, or the machine below it, may be suspended between that check and the socket. Such a write names the
//! resourceVersion that its pass has read, and fails if the object has been written since. So the first pass of a term over
//! a pool writes the term into an annotation of each of its objects: then every version that an earlier leader has read is
//! old. Nothing is written again before the next term.

use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::time::Instant;
use trivet_crds::{bootstrap_name, data_plane_name};

use super::election::{LEASE_DURATION, Term};
use crate::MANAGER;
use crate::context::Context;

/// The annotation of a pool's ConfigMap and DaemonSets with the last term that has taken them. It is no part of a pod
/// template.
pub const LEADER_TERM: &str = "trivet.dev/leader-term";

/// The objects of a pool cannot be taken.
#[derive(Debug, thiserror::Error)]
#[error("failed to take {name} for this leader")]
pub struct Error {
    name: String,
    /// Why.
    pub source: kube::Error,
}

/// Takes the objects of `pool` that exist, once in each term. Returns how long to wait where an operator of a release without
/// election may still write them: the Deployment ends it once a new one is ready.
pub async fn take(ctx: &Context, pool: &str, term: &Term) -> Result<Option<Duration>, Error> {
    if ctx.pool_states.change(pool, |state| state.is_taken) {
        return Ok(None);
    }
    let namespace = &ctx.settings.namespace;
    let maps = Api::<ConfigMap>::namespaced(ctx.client.clone(), namespace);
    let sets = Api::<DaemonSet>::namespaced(ctx.client.clone(), namespace);
    let (document, proxies, writer) = (data_plane_name(pool), data_plane_name(pool), bootstrap_name(pool));
    let (map, set, writer_set) = tokio::try_join!(
        read(&maps, &document),
        read(&sets, &proxies),
        read(&sets, &writer)
    )?;
    let known = [
        map.as_ref().map(ResourceExt::annotations),
        set.as_ref().map(ResourceExt::annotations),
        writer_set.as_ref().map(ResourceExt::annotations),
    ];
    let is_untaken = known
        .iter()
        .flatten()
        .any(|annotations| !annotations.contains_key(LEADER_TERM));
    let age = Instant::now().saturating_duration_since(term.since);
    if is_untaken && term.is_first() && age < LEASE_DURATION {
        return Ok(Some(LEASE_DURATION.saturating_sub(age)));
    }
    write(&maps, map, term).await?;
    write(&sets, set, term).await?;
    write(&sets, writer_set, term).await?;
    ctx.pool_states.change(pool, |state| state.is_taken = true);
    Ok(None)
}

async fn read<K>(api: &Api<K>, name: &str) -> Result<Option<PartialObjectMeta<K>>, Error>
where
    K: Clone + std::fmt::Debug + DeserializeOwned + Resource<DynamicType = ()>,
{
    let found = api.get_metadata_opt(name).await;
    found.map_err(|source| Error {
        name: name.to_owned(),
        source,
    })
}

/// Notes the term, unless it is noted or there is no object.
async fn write<K>(api: &Api<K>, found: Option<PartialObjectMeta<K>>, term: &Term) -> Result<(), Error>
where
    K: Clone + std::fmt::Debug + DeserializeOwned + Resource<DynamicType = ()>,
{
    let Some(found) = found else {
        return Ok(());
    };
    let text = term.text();
    if found.annotations().get(LEADER_TERM) == Some(&text) {
        return Ok(());
    }
    // As with the annotation of a wake, it is no part of the applied object: an apply neither removes nor repeats it.
    let patch = json!({ "metadata": {
        "uid": found.metadata.uid, "resourceVersion": found.metadata.resource_version,
        "annotations": { LEADER_TERM: text },
    } });
    let params = PatchParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let name = found.name_any();
    let written = api.patch_metadata(&name, &params, &Patch::Merge(patch)).await;
    written.map(drop).map_err(|source| Error { name, source })
}
