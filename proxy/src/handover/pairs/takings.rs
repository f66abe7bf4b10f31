//! All hand-overs of other processes' connections to this one.

use std::{future::pending, sync::Arc, time::Duration};

use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::taker;
use crate::{
    handover::channel::{Channel, Record},
    listener::Listeners,
};

/// How long a process that ends waits for a giver that is stopped to say whether it goes on with a batch. A giver that has
/// died says so at once, by the end of its channel.
const DECIDE_LIMIT: Duration = Duration::from_secs(10);

/// The hand-overs that are under way. Dropped, they take no more; what was not taken stays with its giver, if that lives.
#[derive(Debug, Default)]
pub struct Takings {
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl Takings {
    /// Begins one with this record.
    pub(in crate::handover) fn take(&mut self, channel: Channel, first: Record, listeners: Arc<Listeners>) {
        let stop = self.stop.clone();
        self.tasks.spawn(taker::take_all(channel, first, listeners, stop));
    }

    /// Waits until one has ended.
    pub(in crate::handover) async fn next_ended(&mut self) {
        if self.tasks.join_next().await.is_none() {
            pending::<()>().await;
        }
    }

    /// Whether none is under way.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Takes no more batches, and waits for a word about those that have come.
    pub async fn finish(mut self) {
        self.stop.cancel();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(DECIDE_LIMIT, all).await.is_err() {
            warn!(
                "leaving connections to another proxy of this node, which does not say whether it keeps them"
            );
        }
    }
}
