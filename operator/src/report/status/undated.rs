//! What a condition says, apart from the times that the last status tells.

/// A condition without its times.
pub(super) struct Undated {
    pub(super) holds: bool,
    pub(super) reason: &'static str,
    pub(super) message: String,
}
