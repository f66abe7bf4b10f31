//! The time that opening a connection may take, and how the dials share it.

use std::time::Duration;

/// After this time a client is told that nothing is usable: a kubelet that is held starts no static pods. Below the two
/// seconds that are promised, so that the reset has arrived by then.
pub const OPEN_DEADLINE: Duration = Duration::from_millis(1900);

/// How long to wait for one dial before the next is started beside it, so that `count` dials fit in the deadline and
/// the last of them still has the whole connect timeout.
pub fn stagger(hedge_delay: Duration, connect_timeout: Duration, count: usize) -> Duration {
    let room = OPEN_DEADLINE
        .saturating_sub(connect_timeout)
        .max(OPEN_DEADLINE / 4);
    let steps = u32::try_from(count.saturating_sub(1)).unwrap_or(u32::MAX).max(1);
    hedge_delay.min(room / steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn every_member_is_dialled_within_the_deadline() {
        let hedge = Duration::from_millis(250);
        for count in 1..=64_u32 {
            let step = stagger(hedge, SECOND, usize::try_from(count).unwrap());
            assert!(step * (count - 1) + SECOND <= OPEN_DEADLINE, "{count}: {step:?}");
        }
        assert_eq!(stagger(hedge, SECOND, 3), hedge);
    }
}
