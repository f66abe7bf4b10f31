//! Says what a pass has found and done: the pool's status, events, metrics. Writes only what changed.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use trivet_crds::pool::{ApiserverPool, ApiserverPoolStatus};

use crate::MANAGER;
use crate::complaints::complaints;
use crate::context::{Context, PoolState};
use crate::events::{news, publish, refusals};
use crate::health::Healths;
use crate::plan::Plan;
use crate::status::{Seen, status};

/// The status could not be written.
#[derive(Debug, thiserror::Error)]
#[error("failed to write the status of pool {pool}")]
pub struct Error {
    pool: String,
    source: kube::Error,
}

/// Reports one pass over `pool`.
pub async fn report(
    ctx: &Context,
    pool: &ApiserverPool,
    plan: &Plan,
    healths: &Healths,
    daemon_set: Option<&DaemonSet>,
) -> Result<(), Error> {
    let name = pool.name_any();
    let PoolState {
        uid,
        status: last,
        told,
        ..
    } = ctx.memories.of(&name);
    // The cache may be older than the status that this operator wrote last.
    let previous = last
        .as_ref()
        .filter(|_| uid == pool.metadata.uid)
        .or(pool.status.as_ref());
    let complaints = complaints(ctx, &name, daemon_set).await;
    let seen = Seen {
        generation: pool.metadata.generation,
        plan,
        healths,
        daemon_set,
        complaints: &complaints,
        previous,
        now: Timestamp::now(),
    };
    let new = status(&seen);
    if pool.status.as_ref() != Some(&new) {
        write(ctx, &name, &new).await?;
    }
    let news = news(plan, previous, &new, &told);
    for (reason, _) in refusals(plan).iter().filter(|(_, note)| !told.contains(note)) {
        ctx.metrics.refused(&name, reason);
    }
    ctx.metrics.revision(&name, plan.revision);
    ctx.memories.change(&name, |state| {
        state.uid.clone_from(&pool.metadata.uid);
        state.status = Some(new);
        state.told = refusals(plan).into_iter().map(|(_, note)| note).collect();
    });
    publish(ctx, pool, news).await;
    Ok(())
}

async fn write(ctx: &Context, name: &str, status: &ApiserverPoolStatus) -> Result<(), Error> {
    let api: Api<ApiserverPool> = Api::all(ctx.client.clone());
    let patch = json!({
        "apiVersion": format!("{}/v1alpha1", trivet_crds::GROUP),
        "kind": "ApiserverPool",
        "metadata": { "name": name },
        "status": status,
    });
    let params = PatchParams::apply(MANAGER).force();
    match api.patch_status(name, &params, &Patch::Apply(patch)).await {
        // Deleted meanwhile: nobody is left to report to.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(source) => Err(Error {
            pool: name.to_owned(),
            source,
        }),
        Ok(_) => Ok(()),
    }
}
