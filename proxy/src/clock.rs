//! The wall clock, as far as documents need it.

use std::time::{SystemTime, UNIX_EPOCH};

/// The time of the build, in Unix seconds.
const BUILT: &str = env!("TRIVET_BUILD_SECONDS");

/// The time now in Unix seconds, or that of the build if it is later: many nodes start at 1970 until NTP answers.
pub fn unix_seconds() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    not_before_build(now.map_or(0, |since| since.as_secs()))
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
