//! The answer to a batch: waits until the giver knows what has become of it.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tracing::debug;

use super::{
    ANSWER_LIMIT, PAUSE,
    giving::{Event, Giving, Step},
};
use crate::{
    clock::event_loop::LoopClock,
    handover::{
        channel::{self, Channel, Received},
        record::{AbortReason, Message},
    },
};

/// What has become of a batch.
pub(super) enum Outcome {
    /// The taker has it.
    Given,
    /// The same, and the channel has ended.
    GivenLast,
    /// This process goes on with it, and the channel has ended.
    Kept,
}

/// Waits until it is known whether the taker has the batch with this number.
pub(super) async fn outcome(channel: &Channel, number: u64, clock: &LoopClock) -> Outcome {
    let mut giving = Giving::new(number);
    let (mut deadline, mut lapses) = (Instant::now() + ANSWER_LIMIT, clock.lapses());
    loop {
        let event = match timeout_at(deadline, channel.receive()).await {
            Ok(received) => heard(received),
            Err(_elapsed) => match lapses.since(clock) {
                Duration::ZERO => Some(Event::Overdue),
                time => {
                    deadline += time;
                    continue;
                }
            },
        };
        let Some(event) = event else {
            sleep(PAUSE).await;
            continue;
        };
        let mut step = giving.observe(event);
        if step == Step::Empty {
            step = empty(channel, &mut giving);
        }
        match step {
            Step::Wait | Step::Empty => {}
            Step::Given => return Outcome::Given,
            Step::GivenLast => return Outcome::GivenLast,
            Step::Keep => return Outcome::Kept,
            Step::Abort => {
                abort(channel, number).await;
                return Outcome::Kept;
            }
        }
    }
}

fn heard(received: Result<Received, channel::Error>) -> Option<Event> {
    match received {
        Ok(Received::Record(record)) => match record.message {
            Message::Taken { take } => Some(Event::Taken(take)),
            _ => None,
        },
        Ok(Received::End) | Err(channel::Error::Closed) => Some(Event::Closed),
        // A record that cannot be read is no `Taken`, and a call that fails says nothing of the taker.
        Err(_) => None,
    }
}

/// Lets nothing more in, and reads what is left.
fn empty(channel: &Channel, giving: &mut Giving) -> Step {
    for rest in channel.shut_receive() {
        let event = heard(rest.map(Received::Record));
        if event.is_some_and(|event| giving.observe(event) == Step::GivenLast) {
            return Step::GivenLast;
        }
    }
    giving.observe(Event::Emptied)
}

/// Says that this process goes on with the batch. It must not before this is sent: an end of the channel without it tells
/// the taker that this process is dead. There is room for it, because the taker has at most one batch unread.
async fn abort(channel: &Channel, number: u64) {
    let abort = Message::Abort {
        take: number,
        reason: AbortReason::Overdue,
    };
    while let Err(error) = channel.send(&abort, &[]) {
        if matches!(error, channel::Error::Closed) {
            return;
        }
        debug!(%error, "failed to say that connections are not given, trying again");
        sleep(PAUSE).await;
    }
}
