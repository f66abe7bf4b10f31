//! The order of what one sender signs, so that nobody can repeat it: a sender's stamps only grow, and a receiver takes no stamp
//! of a sender that is not after the last one.
//!
//! # Clocks
//!
//! A stamp is a time, so that a sender that starts anew goes on above what it sent before. The draft has receivers refuse a
//! stamp that is more than some seconds from their own clock. Here they do not: a clock that is wrong would make a Backup deaf
//! to the living Active, and both would have the address for as long as the clock is wrong, which is what the protocol is there
//! to prevent. Without the window somebody who has recorded advertisements can repeat those that a receiver has not heard: each
//! once, in their order, and none after the sender has spoken again. So a skew is told, for a warning, and nothing is refused
//! because of it.
//!
//! The window serves one purpose: to forgive. A sender whose clock was ahead and was set right, and which then starts anew, has
//! stamps below its last one. A receiver takes such a stamp if the last one is ahead of its own clock by more than the window
//! and the new one is not. A host that repeats one needs, for this, an advertisement that is no older than the window by the receiver's
//! clock. A sender whose clock goes back below the truth and which starts anew is heard again when its clock is past its last
//! stamp; [`Sequence::after`] avoids this where the last stamp is kept.
//!
//! A receiver that starts anew knows no last stamp, and takes the first one.

#[cfg(test)]
mod tests;

use std::time::Duration;

use super::advertisement::Interval;

/// When something was signed, by the sender's clock: seconds of UTC modulo 2^32, the fraction of a second in 65,536ths, and a
/// counter for what is signed within one of these.
///
/// Stamps are ordered as serial numbers (RFC 1982): of two that are less than 68 years apart, the seconds may wrap between
/// them, as they do in 2106.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stamp(u64);

impl Stamp {
    /// The stamp of a time, which is given as what has passed since 1970-01-01T00:00:00Z.
    pub fn at(since_epoch: Duration) -> Self {
        let seconds = since_epoch.as_secs() << 32;
        let fraction = (u64::from(since_epoch.subsec_nanos()) << 16) / 1_000_000_000;
        Self(seconds | fraction << 16)
    }

    /// The stamp in network order.
    pub fn to_bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }

    /// The stamp with these bytes.
    pub fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(u64::from_be_bytes(bytes))
    }

    /// Whether this one was made later.
    pub fn is_after(self, other: Self) -> bool {
        self.difference(other) > 0
    }

    /// How far this one is ahead of the other, in milliseconds; negative if it is behind.
    pub fn milliseconds_ahead_of(self, other: Self) -> i64 {
        // In 65,536ths of a second: 48 bits, which leaves room for the factor.
        ((self.difference(other) >> 16) * 1000) >> 16
    }

    fn difference(self, other: Self) -> i64 {
        self.0.wrapping_sub(other.0).cast_signed()
    }

    fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

/// The stamps of one sender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sequence {
    last: Option<Stamp>,
}

impl Sequence {
    /// Goes on after the last stamp of an earlier process, so that a clock that was set back meanwhile does no harm.
    pub fn after(last: Stamp) -> Self {
        Self { last: Some(last) }
    }

    /// The stamp of the next message, to be signed now: the time, or the next one after the last stamp if the clock is not
    /// past it.
    pub fn next(&mut self, now: Stamp) -> Stamp {
        let stamp = match self.last {
            Some(last) if !now.is_after(last) => last.next(),
            Some(_) | None => now,
        };
        self.last = Some(stamp);
        stamp
    }
}

/// The last stamp that a receiver took from one sender of one virtual router. A sender is known by its source's address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    last: Option<Stamp>,
}

/// A stamp that a receiver takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// How it follows.
    pub order: Order,
    /// By how many milliseconds the sender's clock seems to be ahead of the receiver's. Negative if behind, which includes the
    /// time on the way.
    pub skew: i64,
    /// Whether the skew is within the window. If not, a clock should be set right: keepalived would refuse such a message.
    pub is_within_window: bool,
}

/// How a stamp follows the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// There was none.
    First,
    /// It is after the last one.
    Later,
    /// It is not, but the last one was wrong by the receiver's clock, and this one is right.
    Corrected,
}

/// A message that was sent before, by its sender or by somebody who repeats it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the advertisement is no later than the last one: it is a repetition, or its sender's clock was set back"
)]
pub struct Repeated;

impl Repeated {
    /// The word for conditions, logs and metrics.
    pub fn reason(&self) -> &'static str {
        "Repeated"
    }
}

impl Mark {
    /// Takes a stamp that [`super::reception::Received::authenticate`] gave, or refuses it. `now` is of the receiver's clock;
    /// see [`window`].
    pub fn take(&mut self, stamp: Stamp, now: Stamp, window: Duration) -> Result<Taken, Repeated> {
        let skew = stamp.milliseconds_ahead_of(now);
        let is_within_window = is_within(skew, window);
        let order = match self.last {
            None => Order::First,
            Some(last) if stamp.is_after(last) => Order::Later,
            // It is before the last one and within the window: so the last one is ahead, not behind.
            Some(last) if is_within_window && !is_within(last.milliseconds_ahead_of(now), window) => {
                Order::Corrected
            }
            Some(_) => return Err(Repeated),
        };
        self.last = Some(stamp);
        Ok(Taken {
            order,
            skew,
            is_within_window,
        })
    }
}

/// The window that the draft proposes: three intervals, at least five seconds.
pub fn window(interval: Interval) -> Duration {
    (3 * Duration::from(interval)).max(Duration::from_secs(5))
}

fn is_within(skew: i64, window: Duration) -> bool {
    u128::from(skew.unsigned_abs()) <= window.as_millis()
}
