//! The wall clock, as far as documents need it, and the time since the node's boot, which all processes of the node share.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

/// The time of the build, in Unix seconds.
const BUILT: &str = env!("TRIVET_BUILD_SECONDS");

/// The time now in Unix seconds, or that of the build if it is later: many nodes start at 1970 until NTP answers.
pub fn unix_seconds() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    not_before_build(now.map_or(0, |since| since.as_secs()))
}

/// The time since the node's boot. It never steps.
pub fn since_boot() -> Duration {
    // The kernel has this clock since 2.6.39, and a call for it fails only without it.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

fn not_before_build(now: u64) -> u64 {
    now.max(BUILT.parse().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_at_1970_reads_as_the_time_of_the_build() {
        let built = not_before_build(0);
        assert!(built > 1_700_000_000, "{built}");
        assert_eq!(not_before_build(built + 7), built + 7);
    }
}
