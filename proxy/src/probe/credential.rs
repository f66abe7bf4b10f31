//! Whether probes of an address carry the proxy's token.
//!
//! An apiserver with `anonymous-auth=false` withholds its readiness from anonymous callers. A probe that is answered 401 or
//! 403 is sent again with the token. Once the token was accepted, each probe carries it from the start.

use std::time::Duration;

use tokio::time::Instant;

/// The first wait after the token was refused. An apiserver that starts refuses every caller for a second or two.
const SHORTEST_WAIT: Duration = Duration::from_secs(2);

/// The longest wait. Each refused token is a line in the audit log of the apiserver.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// What is known about the token at one address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Credential {
    /// Anonymous requests have been enough so far.
    #[default]
    Unneeded,
    /// The address reports its readiness only to requests with the token.
    Needed,
    /// The token was refused; it is not sent before `again`.
    Refused {
        /// When it is sent again.
        again: Instant,
        /// How long that is after the refusal.
        wait: Duration,
    },
}

impl Credential {
    /// Whether a probe carries the token from the start.
    pub(super) fn is_needed(self) -> bool {
        self == Self::Needed
    }

    /// Whether a probe that was refused without the token is sent again with it.
    pub(super) fn may_help(self, now: Instant) -> bool {
        match self {
            Self::Unneeded => true,
            // The probe has carried it already, or it could not be read.
            Self::Needed => false,
            Self::Refused { again, .. } => now >= again,
        }
    }

    /// A request with the token was answered, by a refusal or not.
    pub(super) fn answered(self, refused: bool, now: Instant) -> Self {
        if !refused {
            return Self::Needed;
        }
        let wait = match self {
            Self::Unneeded | Self::Needed => SHORTEST_WAIT,
            Self::Refused { wait, .. } => (wait * 2).min(LONGEST_WAIT),
        };
        Self::Refused {
            again: now + wait,
            wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_helped_is_sent_from_then_on() {
        let now = Instant::now();
        let credential = Credential::default();
        assert!(!credential.is_needed());
        assert!(credential.may_help(now));
        let credential = credential.answered(false, now);
        assert!(credential.is_needed());
        assert!(!credential.may_help(now), "a probe would be sent twice");
    }

    #[test]
    fn a_refused_token_is_sent_ever_more_rarely_but_within_five_minutes() {
        let mut now = Instant::now();
        let mut credential = Credential::Needed;
        let waits = (0..10).map(|_| {
            credential = credential.answered(true, now);
            assert!(!credential.is_needed());
            let refused = now;
            while !credential.may_help(now) {
                now += Duration::from_secs(1);
            }
            (now - refused).as_secs()
        });
        assert_eq!(
            waits.collect::<Vec<_>>(),
            [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
        );
        assert_eq!(credential.answered(false, now), Credential::Needed);
    }
}
