//! What client-go's informers and their writer noticed.

use std::time::Duration;

use super::flow::Seen;
use crate::real_client::{Summary, Told};

/// Of informers whose connections were to go on.
pub(super) fn seen(told: &Told) -> Seen {
    let summary = match told.summary() {
        Ok(summary) => summary,
        Err(error) => return Seen::lost(&error),
    };
    let delays = summary.informers.iter();
    let longest = delays.map(|informer| informer.longest_delay_milliseconds).max();
    Seen {
        carried: format!(
            "{} watches, {} events of {} writes",
            summary.informers.len(),
            told.events.len(),
            summary.writes.ok
        ),
        longest_pause: Duration::from_millis(longest.unwrap_or_default()),
        broken: broken(told, summary),
    }
}

fn broken(told: &Told, summary: &Summary) -> Option<String> {
    let sum = |of: fn(&crate::real_client::Informer) -> u64| summary.informers.iter().map(of).sum::<u64>();
    let again = sum(|informer| informer.watches.saturating_sub(1));
    let (lists, missed) = (sum(|informer| informer.relists), sum(|informer| informer.missed));
    let whole = told.failures.is_empty() && again == 0 && lists == 0 && missed == 0;
    let first = told.failures.first();
    let first =
        first.map(|failure| format!(", the first: {} {}: {}", failure.who, failure.what, failure.error));
    (!whole).then(|| {
        format!(
            "{again} watches and {lists} lists again, {missed} events missed, {} requests failed{}",
            told.failures.len(),
            first.unwrap_or_default()
        )
    })
}
