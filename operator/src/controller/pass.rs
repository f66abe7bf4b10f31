//! One pass over one pool: whether this operator may make it, how it ends, and when the next one is due.

use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt;
use kube::runtime::controller::Action;
use tokio::time::Instant;

use super::{Error, RESYNC, reconcile};
use crate::api::fence::{is_conflict, is_fenced};
use crate::context::{Context, pass_of};
use crate::leader::election::Term;
use crate::leader::take::take;
use crate::logging::chain;
use crate::pools::{StoredPool, unreadable};

/// The pause after a write that came too late: somebody else has written since the pass has read.
const CONFLICT_PAUSE: Duration = Duration::from_millis(500);

/// So many conflicts in a row are no race with another writer: something is wrong, and people must learn of it.
const CONFLICTS: u32 = 10;

/// What is written last, in `/readyz`.
const STATUS: &str = "ApiserverPool/status";

/// One pass, measured and logged, if this operator leads. The beginning of a term starts a pass over every pool.
pub(super) async fn pass(pool: Arc<StoredPool>, ctx: Arc<Context>) -> Result<Action, Error> {
    let name = pool.name_any();
    let loop_name = pass_of(&name);
    let begun = Instant::now();
    let Some(work) = ctx.leadership.enter(begun) else {
        ctx.watchdog.forget(&loop_name);
        return Ok(Action::await_change());
    };
    let under_way = ctx.watchdog.begin(&loop_name);
    let outcome = Box::pin(pass_in(&work.term, &pool, &ctx)).await;
    let next = judge(outcome, &name, begun, &ctx);
    drop(under_way);
    if let Ok(next) = &next {
        ctx.watchdog.expect(&loop_name, *next);
    }
    // Last: what is due is forgotten with the term.
    drop(work);
    next.map(Action::requeue)
}

/// Counts and logs a pass. A write that was too late is no failure: the pass runs again.
fn judge(
    outcome: Result<Duration, Error>,
    pool: &str,
    begun: Instant,
    ctx: &Context,
) -> Result<Duration, Error> {
    let late = outcome.as_ref().err().and_then(Error::write);
    if late.is_some_and(is_fenced) {
        tracing::debug!(pool, "pass ended: this operator leads no longer");
        return Ok(CONFLICT_PAUSE);
    }
    let is_late = late.is_some_and(is_conflict);
    let conflicts = ctx.pool_states.change(pool, |state| {
        state.conflicts = if is_late {
            state.conflicts.saturating_add(1)
        } else {
            0
        };
        state.conflicts
    });
    if let Some(error) = late.filter(|_| is_late && conflicts < CONFLICTS) {
        ctx.metrics.fenced("Conflict");
        tracing::debug!(
            pool,
            error = chain(error),
            "pass runs again: an object has changed since it was read"
        );
        return Ok(CONFLICT_PAUSE);
    }
    let failure = outcome.as_ref().err();
    let status_write = failure.and_then(Error::status_write);
    // A pass that has failed before it came so far says nothing about the status.
    if failure.is_none() || status_write.is_some() {
        ctx.readiness.observe_request(STATUS, status_write);
    }
    ctx.metrics
        .passed(pool, begun.elapsed(), failure.map(Error::reason));
    if let Some(error) = failure {
        tracing::warn!(pool, error = chain(error), "pass failed and is retried");
    }
    outcome
}

/// One pass of this term. Returns the time until the next one.
pub(super) async fn pass_in(term: &Term, pool: &StoredPool, ctx: &Context) -> Result<Duration, Error> {
    let pool = match pool {
        StoredPool::Readable(pool) => pool,
        StoredPool::Unreadable(pool) => {
            unreadable::tell(ctx, pool).await?;
            return Ok(RESYNC);
        }
    };
    if let Some(wait) = take(ctx, &pool.name_any(), term).await? {
        tracing::info!(
            ?wait,
            "waiting for the end of an operator of a release without election"
        );
        return Ok(wait);
    }
    Box::pin(reconcile(pool, ctx)).await
}

/// The pause after a pass that failed.
pub(super) fn retry(pool: Arc<StoredPool>, _: &Error, ctx: Arc<Context>) -> Action {
    let name = pool.name_any();
    let wait = ctx.pool_states.change(&name, |state| {
        state.backoff.after_failure(Instant::now(), rand::random())
    });
    ctx.watchdog.expect(&pass_of(&name), wait);
    Action::requeue(wait)
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;
    use crate::apply;
    use crate::context::tests::context;

    fn conflict() -> Error {
        let source = kube::Error::Api(
            Status::failure("it has changed", "Conflict")
                .with_code(409)
                .boxed(),
        );
        Error::Apply(apply::Error {
            kind: apply::Kind::ConfigMap,
            name: "trivet-default".to_owned(),
            source,
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_race_is_no_failure_and_a_conflict_that_never_ends_is_one() {
        let ctx = context(|_, _, _| (500, String::new()));
        let judged = |outcome| judge(outcome, "default", Instant::now(), &ctx);
        for _ in 1..CONFLICTS {
            assert!(judged(Err(conflict())).is_ok());
        }
        assert!(judged(Err(conflict())).is_err());
        assert!(judged(Err(conflict())).is_err(), "it lasts");
        assert!(judged(Ok(Duration::ZERO)).is_ok());
        assert!(judged(Err(conflict())).is_ok(), "another race");
    }
}
