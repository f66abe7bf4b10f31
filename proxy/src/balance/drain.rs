//! Gradual closing: how the ends of many connections spread over the time they are given.

use std::time::Duration;

/// How long to wait before closing the next of `left` draining connections, so that the last is closed within
/// `remaining`.
pub fn drain_step(remaining: Duration, left: usize) -> Duration {
    remaining / u32::try_from(left).unwrap_or(u32::MAX).saturating_add(1)
}
