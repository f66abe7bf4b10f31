//! What the promises share: the arrangement, and the measures.

pub(crate) mod silence;

use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;
use trivet_instruments::{Outcome, Record};
use trivet_lab::{Lab, Programs, Watches};

/// Long enough for every member to have had connections.
pub(crate) const WARM_UP: Duration = Duration::from_secs(1);

/// The shortest `--shutdown-delay-duration` with which proxies notice a restart before the listener closes.
pub(crate) const SHUTDOWN_DELAY: Duration = Duration::from_secs(5);

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// A lab with so many places for members and without any process yet.
pub(crate) fn empty(
    members: u8,
    scenario: impl AsyncFnOnce(&mut Lab) -> Result<()> + Send + 'static,
) -> Result<()> {
    let programs = Programs {
        proxy: env!("CARGO_BIN_EXE_lab-proxy"),
        apiserver: env!("CARGO_BIN_EXE_lab-apiserver"),
    };
    trivet_lab::run(programs, members, scenario)
}

/// A lab whose proxy sees so many members Up.
pub(crate) fn serving(
    members: u8,
    scenario: impl AsyncFnOnce(&mut Lab) -> Result<()> + Send + 'static,
) -> Result<()> {
    empty(members, async move |lab: &mut Lab| {
        lab.start_apiservers(members, SHUTDOWN_DELAY).await?;
        lab.serve().await?;
        scenario(lab).await
    })
}

/// The same with members that report their health only to callers with a token, as with `anonymous-auth=false`.
pub(crate) fn serving_with_a_token(
    members: u8,
    scenario: impl AsyncFnOnce(&mut Lab) -> Result<()> + Send + 'static,
) -> Result<()> {
    empty(members, async move |lab: &mut Lab| {
        lab.start_apiservers(members, SHUTDOWN_DELAY).await?;
        lab.demand_a_token().await?;
        lab.serve().await?;
        scenario(lab).await
    })
}

/// Every attempt was answered.
pub(crate) fn assert_none_failed(record: &Record) {
    assert!(!record.attempts().is_empty(), "nothing was attempted");
    assert!(record.failed().is_empty(), "{record}");
}

/// No attempt took longer than `limit` and the share of the machine.
pub(crate) fn assert_none_slower(record: &Record, limit: Duration) {
    assert!(
        record.slowest() <= limit + record.machine(),
        "slower than {limit:?}: {record}"
    );
}

/// Every attempt ended with a reset, within `limit` and the share of the machine.
pub(crate) fn assert_all_reset(record: &Record, limit: Duration) {
    assert!(!record.attempts().is_empty(), "nothing was attempted");
    assert!(
        record
            .attempts()
            .iter()
            .all(|attempt| attempt.outcome == Outcome::Reset),
        "{record}"
    );
    assert_none_slower(record, limit);
}

/// This happened within `limit` and the share of the machine.
pub(crate) fn assert_within(what: &str, since: Instant, at: Instant, limit: Duration, record: &Record) {
    let took = at.saturating_duration_since(since);
    println!("{what} after {took:?}");
    assert!(
        took <= limit + record.machine(),
        "{what} after {took:?}, not {limit:?}; {record}"
    );
}

/// No watch has ended since.
pub(crate) fn assert_none_cut(watches: &Watches, since: Instant) {
    let ended = watches.ended_since(since);
    assert!(ended.is_empty(), "{ended:?}");
}
