//! The wall clock, as far as documents and reports need it, and the time since the node's boot, which all processes of the
//! node share. [`event_loop`] is for limits on what others take.

pub mod event_loop;

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

/// Unix seconds as the API writes a time, in UTC.
pub fn rfc3339(unix_seconds: u64) -> String {
    let (days, second) = (unix_seconds / 86_400, unix_seconds % 86_400);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let (year, month, day) = date(days);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The date of a day since 1970-01-01, in the Gregorian calendar. Years begin in March here, so that a leap day is the last
/// of its year.
fn date(days: u64) -> (u64, u64, u64) {
    // The days from 0000-03-01, in eras of 400 years.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day_of_month = day - (153 * month + 2) / 5 + 1;
    let is_next_year = month >= 10;
    let month = if is_next_year { month - 9 } else { month + 3 };
    (era * 400 + year + u64::from(is_next_year), month, day_of_month)
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

    #[test]
    fn a_time_reads_as_the_api_writes_it() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_827_696, "2000-02-29T12:34:56Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_709_251_200, "2024-03-01T00:00:00Z"),
            (1_795_910_400, "2026-11-29T00:00:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds), text);
        }
    }
}
