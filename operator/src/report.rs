//! Reports what a pass has found and done: the pool's status, events and metrics. It reads nothing and writes only what
//! has changed.

pub mod events;
pub mod status;

use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use trivet_crds::pool::{ApiserverPool, ApiserverPoolStatus};

use self::events::{health_changes, membership_changes, notice, unreported, warnings};
use self::status::{Seen, status};
use crate::MANAGER;
use crate::api::events::publish;
use crate::apply::Applied;
use crate::context::{Context, PoolState};
use crate::health::Healths;
use crate::observe::proxies::Proxies;
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
    /// The proxies, as they were before.
    pub proxies: &'a Proxies,
    /// What it has written.
    pub applied: &'a Applied,
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
    let failure = pass.applied.failure.as_ref();
    let refusal = failure.and_then(|failure| Some((failure.kind, failure.refusal()?)));
    let new = status(&Seen {
        generation: pool.metadata.generation,
        plan: pass.plan,
        healths: pass.healths,
        daemon_set: pass.applied.daemon_set.as_ref(),
        uncounted: &pass.proxies.uncounted,
        failures: &pass.proxies.failures,
        refused: refusal.as_ref().map(|(kind, words)| (*kind, words.as_str())),
        previous,
        now: now(),
    });
    let warnings = warnings(pass.plan, failure);
    let mut notices = health_changes(previous, &new);
    if pass.applied.has_document() {
        notices.extend(membership_changes(pass.plan));
    }
    for warning in unreported(&warnings, &reported) {
        ctx.metrics.refused(&name, warning.0);
        notices.push(notice(warning));
    }
    ctx.metrics.revision(&name, pass.plan.revision);
    let written = if pool.status.as_ref() == Some(&new) {
        Ok(())
    } else {
        write(ctx, &name, &new).await
    };
    // Also where the status could not be written: the next pass does not find these changes again.
    ctx.pool_states.change(&name, |state| {
        state.uid.clone_from(&pool.metadata.uid);
        state.status = Some(new);
        state.reported = warnings.into_iter().map(|(_, note)| note).collect();
    });
    publish(&ctx.recorder, pool, notices).await;
    written
}

/// The time in the precision of the API, so that a status that was written and read again is equal.
fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now)
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
