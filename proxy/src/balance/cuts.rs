//! Cuts: the connections of a silent upstream are reset.

use std::time::Duration;

/// When this node cuts the connections of a silent member, spread by `chance` in 0..1: the survivors see no more
/// than about 2500 nodes reconnect in a second.
pub fn cut_delay(nodes: u32, chance: f64) -> Duration {
    let spread = (Duration::from_secs(u64::from(nodes)) / 2500).min(Duration::from_secs(2));
    spread.mul_f64(chance.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn cuts_are_at_once_in_a_small_cluster_and_spread_in_a_large_one() {
        assert!(cut_delay(5, 1.0) <= Duration::from_millis(2));
        assert_eq!(cut_delay(5000, 1.0), 2 * SECOND);
        assert_eq!(cut_delay(50_000, 0.5), SECOND);
    }
}
