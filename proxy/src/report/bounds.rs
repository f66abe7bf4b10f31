//! Numbers and texts within the bounds of the report's schema. Pure.

use trivet_crds::report::MAX_MESSAGE;

/// A number as the schema takes it.
pub(super) fn count(number: u64) -> u32 {
    // The schema's type is signed.
    u32::try_from(number)
        .unwrap_or(u32::MAX)
        .min(i32::MAX.unsigned_abs())
}

/// A text as the schema takes it.
pub(super) fn short(text: &str) -> String {
    text.chars().take(MAX_MESSAGE).collect()
}
