//! A condition without its times, which come from the last status.

/// A condition without its times.
pub(super) struct Undated {
    pub(super) holds: bool,
    pub(super) reason: &'static str,
    pub(super) message: String,
}
