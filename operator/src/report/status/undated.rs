//! A condition without its times, which come from the last status.

/// Whether a condition holds. Unknown is what this operator cannot tell, as the API conventions of Kubernetes want it: somebody
/// who waits for False must not take missing reports for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holds {
    True,
    False,
    Unknown,
}

/// A condition without its times.
pub(super) struct Undated {
    pub(super) holds: Holds,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Holds {
    /// The word in the API.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl Undated {
    /// One that does not hold.
    pub(super) fn no(reason: &'static str, message: String) -> Self {
        Self {
            holds: Holds::False,
            reason,
            message,
        }
    }

    /// One of which it is not known.
    pub(super) fn unknown(reason: &'static str, message: String) -> Self {
        Self {
            holds: Holds::Unknown,
            reason,
            message,
        }
    }
}
