//! Tells the program when it was built: a node whose clock is wrong still knows that it is later than that.

use std::{
    env,
    time::{SystemTime, UNIX_EPOCH},
};

/// What reproducible builds set in place of the clock.
const FIXED_TIME: &str = "SOURCE_DATE_EPOCH";

fn main() {
    #[allow(clippy::disallowed_methods, reason = "a build script has no command line")]
    let fixed = env::var(FIXED_TIME)
        .ok()
        .and_then(|text| text.parse::<u64>().ok());
    let clock = || {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs())
    };
    println!(
        "cargo::rustc-env=TRIVET_BUILD_SECONDS={}",
        fixed.unwrap_or_else(clock)
    );
    println!("cargo::rerun-if-env-changed={FIXED_TIME}");
    println!("cargo::rerun-if-changed=build.rs");
}
