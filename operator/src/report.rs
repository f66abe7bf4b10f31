//! Reports what a pass has found and done: the pool's status, events and metrics. It reads nothing and writes only what
//! has changed.

pub mod events;
pub mod status;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use trivet_crds::pool::{ApiserverPool, ApiserverPoolStatus};

use self::events::{notices, refusals};
use self::status::{Seen, status};
use crate::MANAGER;
use crate::api::events::publish;
use crate::context::{Context, PoolState};
use crate::health::Healths;
use crate::plan::Plan;

/// The status could not be written.
#[derive(Debug, thiserror::Error)]
#[error("failed to write the status of pool {pool}")]
pub struct Error {
    pool: String,
    source: kube::Error,
}

/// What a pass has found and done.
#[derive(Clone, Copy, Debug)]
pub struct Pass<'a> {
    /// What it decided.
    pub plan: &'a Plan,
    /// The health of the members.
    pub healths: &'a Healths,
    /// The proxies, once there are any.
    pub daemon_set: Option<&'a DaemonSet>,
    /// Why pods of proxies fail.
    pub failures: &'a [String],
}

/// Reports one pass over `pool`.
pub async fn report(ctx: &Context, pool: &ApiserverPool, pass: Pass<'_>) -> Result<(), Error> {
    let name = pool.name_any();
    let PoolState {
        uid,
        status: last,
        reported,
        ..
    } = ctx.pool_states.of(&name);
    // The cache may be older than the last status that this operator has written.
    let previous = last
        .as_ref()
        .filter(|_| uid == pool.metadata.uid)
        .or(pool.status.as_ref());
    let Pass {
        plan,
        healths,
        daemon_set,
        failures,
    } = pass;
    let seen = Seen {
        generation: pool.metadata.generation,
        plan,
        healths,
        daemon_set,
        failures,
        previous,
        now: Timestamp::now(),
    };
    let new = status(&seen);
    if pool.status.as_ref() != Some(&new) {
        write(ctx, &name, &new).await?;
    }
    let notices = notices(plan, previous, &new, &reported);
    for (reason, _) in refusals(plan).iter().filter(|(_, note)| !reported.contains(note)) {
        ctx.metrics.refused(&name, reason);
    }
    ctx.metrics.revision(&name, plan.revision);
    ctx.pool_states.change(&name, |state| {
        state.uid.clone_from(&pool.metadata.uid);
        state.status = Some(new);
        state.reported = refusals(plan).into_iter().map(|(_, note)| note).collect();
    });
    publish(&ctx.recorder, pool, notices).await;
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
        // The pool was deleted meanwhile.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(source) => Err(Error {
            pool: name.to_owned(),
            source,
        }),
        Ok(_) => Ok(()),
    }
}
