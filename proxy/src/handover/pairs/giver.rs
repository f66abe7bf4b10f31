//! Gives the connections of this process away.

use std::{
    future::pending,
    iter::once,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::watch,
    task::yield_now,
    time::{Instant, sleep, timeout},
};
use tracing::{debug, info};

use super::{
    ANSWER_LIMIT, FULL, MAX_PAIRS, PAUSE,
    answer::{self, Outcome},
    batch,
};
use crate::{
    cause,
    connection::transfer::{Departures, Transfer},
    handover::{
        channel::{self, Channel},
        directory,
        driver::Standing,
        inquiry,
        machine::State,
        record::{Message, Pairs},
    },
    listener::Listeners,
};

/// The longest pause after a batch that was not taken: one side has no files or no memory for it, or the other one died. Each
/// such batch costs its connections a pause too.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How long a process stands by before it gives what it relays: a process that takes over by rank may be given back to
/// meanwhile.
const STAND_BY: Duration = Duration::from_secs(30);

/// How long a process tries to give its connections.
const GIVE_LIMIT: Duration = Duration::from_secs(10);

/// How often a giver lets the tasks of connections run until all are on their way that it has asked for. One that ends
/// meanwhile never is; others that come later go with the next batch.
const TURNS: u32 = 64;

/// The pause before the giver looks again whether a connection is on its way.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// Why connections were not given.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Batch(#[from] batch::Error),
    #[error(transparent)]
    Channel(#[from] channel::Error),
    #[error("the process that serves did not take the connections")]
    NotTaken,
}

/// Who serves in the directory.
enum Search {
    /// One that takes connections, and whether it tells those of extra listeners apart.
    Found(Channel, bool),
    /// One that takes none: an earlier release.
    TakesNone,
    /// Nobody yet, or one that does not answer.
    Nobody,
}

/// Gives all connections to the process that serves in this directory, as far as that is possible within [`GIVE_LIMIT`] and as
/// long as this one is `willing`, and at a last attempt after it: this process may have been stopped meanwhile, or the other one.
///
/// Once begun, this must not be dropped: nobody would know what became of the batch that is on its way.
pub async fn give_all(directory: &Path, listeners: &Listeners, willing: impl Fn() -> bool) {
    let mut giver = Giver {
        listeners,
        deadline: Instant::now() + GIVE_LIMIT,
        willing,
        number: 0,
        given: 0,
    };
    let (mut faults, mut is_last) = (0, false);
    while giver.is_needed() && !is_last {
        is_last = giver.is_late();
        if is_last {
            giver.deadline = Instant::now() + ANSWER_LIMIT;
        }
        match search(directory, giver.deadline).await {
            Search::Found(channel, knows_extras) => {
                let before = giver.given;
                if let Err(error) = giver.give_on(&channel, knows_extras).await {
                    let cause = cause::chain(&error);
                    debug!(cause, "failed to give connections to another proxy of this node");
                    faults = if giver.given > before { 1 } else { faults + 1 };
                }
            }
            Search::TakesNone => break,
            Search::Nobody => {}
        }
        // The last attempt must not be slept away.
        let left = giver.deadline.saturating_duration_since(Instant::now());
        sleep(pause(faults).min(left.max(PAUSE))).await;
    }
    if giver.given > 0 {
        info!(
            given = giver.given,
            kept = listeners.connections(),
            "gave connections to another proxy of this node"
        );
    }
}

/// Gives the connections of this process away, without end, whenever it has stood by for a while: the one that took over
/// has shown by then that it serves. What a standby relays would be lost if its kubelet replaced it without a word.
pub async fn give_while_standing_by(
    directory: PathBuf,
    listeners: Arc<Listeners>,
    mut standing: watch::Receiver<Standing>,
) {
    let stands_by = |standing: &Standing| standing.state == State::Standby;
    while standing.wait_for(stands_by).await.is_ok() {
        let is_over = async { standing.wait_for(|standing| !stands_by(standing)).await.is_ok() };
        if timeout(STAND_BY, is_over).await.is_err() {
            let willing = || stands_by(&standing.borrow());
            give_all(&directory, &listeners, willing).await;
        }
    }
    // The hand-over has ended, and the process does.
    pending::<()>().await;
}

/// The pause after so many batches in a row that were not taken.
fn pause(faults: u32) -> Duration {
    PAUSE
        .saturating_mul(2_u32.saturating_pow(faults))
        .min(LONGEST_PAUSE)
}

async fn search(directory: &Path, deadline: Instant) -> Search {
    let Ok(Some(channel)) = directory::connect(directory) else {
        return Search::Nobody;
    };
    let within = deadline
        .saturating_duration_since(Instant::now())
        .min(ANSWER_LIMIT);
    match inquiry::ask_on(&channel, within).await {
        Ok(processes) if processes.holder.pairs > 0 => {
            Search::Found(channel, processes.holder.knows_extra_listeners)
        }
        Ok(_) => Search::TakesNone,
        Err(_) => Search::Nobody,
    }
}

struct Giver<'a, Willing> {
    listeners: &'a Listeners,
    deadline: Instant,
    willing: Willing,
    number: u64,
    given: usize,
}

impl<Willing: Fn() -> bool> Giver<'_, Willing> {
    fn is_needed(&self) -> bool {
        self.listeners.connections() > 0 && (self.willing)()
    }

    fn is_late(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Gives one batch after the other on this channel, until it ends. Connections are on their way only meanwhile: those
    /// that wait for a batch go on once it has ended.
    async fn give_on(&mut self, channel: &Channel, knows_extras: bool) -> Result<(), Error> {
        let transfers = self.listeners.transfers();
        let mut departures = transfers.begin(MAX_PAIRS, knows_extras).await;
        let mut goes_on = true;
        while goes_on && self.is_needed() && !self.is_late() {
            let batch = self.collect(&mut departures, knows_extras).await;
            if !batch.is_empty() {
                goes_on = self.give(channel, batch).await?;
            }
        }
        Ok(())
    }

    /// The connections that go next. No more are asked for than fit into the batch: each stands still until it is taken.
    async fn collect(&self, departures: &mut Departures<'_>, knows_extras: bool) -> Vec<Transfer> {
        let mut batch = Batch::default();
        batch.fill(departures);
        let asked = self.listeners.ask_to_hand_over(batch.room(), knows_extras);
        let awaited = batch.transfers.len() + asked;
        for _ in 0..TURNS {
            yield_now().await;
            batch.fill(departures);
            if batch.transfers.len() >= awaited {
                break;
            }
        }
        if batch.transfers.is_empty() {
            sleep(LOOK_AGAIN).await;
        }
        batch.transfers
    }

    /// Gives a batch, and says whether the channel takes another. One that is dropped was not taken.
    async fn give(&mut self, channel: &Channel, batch: Vec<Transfer>) -> Result<bool, Error> {
        self.number += 1;
        let written = batch::write(batch.iter().map(|transfer| &transfer.passport))?;
        let sockets = batch
            .iter()
            .flat_map(|transfer| batch::descriptors(transfer.sockets()));
        let descriptors: Vec<BorrowedFd<'_>> = once(written.file.as_fd()).chain(sockets).collect();
        let message = Message::Pairs(Pairs {
            take: self.number,
            sockets: descriptors.len().saturating_sub(1) as u64,
            text: written.text,
            bytes: written.bytes,
        });
        channel.send(&message, &descriptors)?;
        let clock = self.listeners.upstreams().clock();
        let goes_on = match answer::outcome(channel, self.number, clock).await {
            Outcome::Given => true,
            Outcome::GivenLast => false,
            Outcome::Kept => return Err(Error::NotTaken),
        };
        self.given += batch.len();
        for transfer in batch {
            transfer.taken();
        }
        Ok(goes_on)
    }
}

/// What goes at once.
#[derive(Default)]
struct Batch {
    transfers: Vec<Transfer>,
    bytes: usize,
}

impl Batch {
    /// How many connections fit into it yet.
    fn room(&self) -> usize {
        if self.bytes < FULL {
            MAX_PAIRS.saturating_sub(self.transfers.len())
        } else {
            0
        }
    }

    /// Takes those that are there.
    fn fill(&mut self, departures: &mut Departures<'_>) {
        while self.room() > 0
            && let Some(transfer) = departures.next_now()
        {
            self.bytes += batch::held(&transfer.passport);
            self.transfers.push(transfer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_giver_tries_again_soon_at_first_and_each_second_in_the_end() {
        assert_eq!(pause(0), PAUSE);
        assert_eq!(pause(1), 2 * PAUSE);
        let pauses: Vec<_> = (0..40).map(pause).collect();
        assert!(
            pauses.is_sorted() && pauses.last() == Some(&LONGEST_PAUSE),
            "{pauses:?}"
        );
        let tries = pauses.iter().scan(Duration::ZERO, |at, pause| {
            *at += *pause;
            Some(*at)
        });
        assert!(tries.take_while(|at| *at < GIVE_LIMIT).count() > 10);
    }
}
