//! What the API has said about callers, and for how long it counts. Pure, with time and the size of the fleet as arguments.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

/// How many tokens are remembered: a few Prometheus servers whose tokens rotate, and room for wrong ones.
const TOKENS: usize = 64;

/// For how long an allowed token counts before it is reviewed again, as with kube-rbac-proxy. A token that is revoked reads
/// metrics for so much longer.
const ALLOWED: Duration = Duration::from_secs(120);

/// What one node adds in a large fleet: all of 5,000 proxies together then review 20 tokens of one Prometheus a second.
const ALLOWED_PER_NODE: Duration = Duration::from_millis(50);

/// For how long a refusal counts. A new binding must not wait long.
const REFUSED: Duration = Duration::from_secs(10);

/// For how long an allowed token counts while nobody can be asked: longer than any alert waits, so that an alert about a node
/// that reaches no apiserver fires.
const IN_AN_OUTAGE: Duration = Duration::from_secs(30 * 60);

/// After a review without an answer nobody is asked for so long: a dial of every dead member for each scrape helps nobody.
const PAUSE: Duration = Duration::from_secs(15);

/// How many unknown tokens are reviewed at once; then one more each second. A stranger on the node's network must not make
/// every proxy ask the API as often as it likes.
const UNKNOWN: u64 = 8;

/// The SHA-256 of a token.
pub(super) type Key = [u8; 32];

/// What the API says about a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Its user may read metrics.
    Allowed,
    /// Nobody's.
    Unauthenticated,
    /// Its user may not read metrics.
    Forbidden,
}

/// What is known about a token before the API is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// What the API has said lately.
    Verdict(Verdict),
    /// Nothing that counts.
    Nothing,
    /// Nothing, and the API could not be asked a moment ago.
    Unavailable,
}

/// The answers that are remembered.
#[derive(Debug, Default)]
pub(super) struct Grants {
    reviewed: HashMap<Key, (Verdict, Instant)>,
    failed: Option<Instant>,
    /// Reviews of unknown tokens that are left, and when one was added last.
    unknown: Option<(u64, Instant)>,
}

impl Grants {
    /// What is known about a token, in a cluster of this many nodes.
    pub(super) fn look(&mut self, key: Key, now: Instant, nodes: u32) -> Known {
        let age_of = |at: Instant| now.saturating_duration_since(at);
        let reviewed = self.reviewed.get(&key).copied();
        if let Some((verdict, at)) = reviewed
            && age_of(at) < counts_for(verdict, nodes)
        {
            return Known::Verdict(verdict);
        }
        let is_paused = self.failed.is_some_and(|at| age_of(at) < PAUSE);
        match reviewed {
            Some((Verdict::Allowed, at)) if is_paused && age_of(at) < IN_AN_OUTAGE => {
                Known::Verdict(Verdict::Allowed)
            }
            Some(_) | None if is_paused => Known::Unavailable,
            Some(_) | None => Known::Nothing,
        }
    }

    /// Whether a token of which nothing counts is reviewed now: one that was allowed always is.
    pub(super) fn takes(&mut self, key: Key, now: Instant) -> bool {
        if let Some((Verdict::Allowed, _)) = self.reviewed.get(&key) {
            return true;
        }
        let (left, since) = self.unknown.unwrap_or((UNKNOWN, now));
        let added = now.saturating_duration_since(since).as_secs();
        let left = left.saturating_add(added).min(UNKNOWN);
        let since = if added == 0 { since } else { now };
        self.unknown = Some((left.saturating_sub(1), since));
        left > 0
    }

    /// The API has answered.
    pub(super) fn learn(&mut self, key: Key, verdict: Verdict, now: Instant) {
        self.failed = None;
        if self.reviewed.len() >= TOKENS && !self.reviewed.contains_key(&key) {
            self.drop_one();
        }
        self.reviewed.insert(key, (verdict, now));
    }

    /// The API could not be asked. Returns what counts until it can.
    pub(super) fn fail(&mut self, key: Key, now: Instant) -> Option<Verdict> {
        self.failed = Some(now);
        let (verdict, at) = *self.reviewed.get(&key)?;
        let lasts = verdict == Verdict::Allowed && now.saturating_duration_since(at) < IN_AN_OUTAGE;
        lasts.then_some(verdict)
    }

    /// Forgets a refused token, or else the allowed one that was reviewed first.
    fn drop_one(&mut self) {
        let order = |(verdict, at): &(Verdict, Instant)| (*verdict == Verdict::Allowed, *at);
        let first = self.reviewed.iter().min_by_key(|(_, reviewed)| order(reviewed));
        if let Some(key) = first.map(|(key, _)| *key) {
            self.reviewed.remove(&key);
        }
    }
}

fn counts_for(verdict: Verdict, nodes: u32) -> Duration {
    match verdict {
        Verdict::Allowed => ALLOWED.max(ALLOWED_PER_NODE.saturating_mul(nodes)),
        Verdict::Unauthenticated | Verdict::Forbidden => REFUSED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const ONE: Key = [1; 32];

    fn key(number: u32) -> Key {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&number.to_le_bytes());
        key
    }

    /// What is known so long after this verdict.
    fn known(verdict: Verdict, after: Duration, nodes: u32) -> Known {
        let now = Instant::now();
        let mut grants = Grants::default();
        grants.learn(ONE, verdict, now);
        grants.look(ONE, now + after, nodes)
    }

    #[test]
    fn a_verdict_counts_for_its_time_and_is_asked_for_again() {
        for (verdict, time) in [
            (Verdict::Allowed, ALLOWED),
            (Verdict::Unauthenticated, REFUSED),
            (Verdict::Forbidden, REFUSED),
        ] {
            assert_eq!(
                known(verdict, time.checked_sub(SECOND).unwrap(), 5),
                Known::Verdict(verdict)
            );
            assert_eq!(known(verdict, time, 5), Known::Nothing);
        }
    }

    #[test]
    fn a_fleet_of_5000_reviews_the_token_of_a_prometheus_20_times_a_second() {
        let lasts = Duration::from_secs(250);
        assert_eq!(known(Verdict::Allowed, lasts, 5000), Known::Nothing);
        assert_eq!(
            known(Verdict::Allowed, lasts.checked_sub(SECOND).unwrap(), 5000),
            Known::Verdict(Verdict::Allowed)
        );
        let reviews_a_second = 5000 / lasts.as_secs();
        assert_eq!(reviews_a_second, 20);
    }

    #[test]
    fn in_an_outage_an_allowed_token_goes_on_and_no_other_does() {
        let now = Instant::now();
        let mut grants = Grants::default();
        grants.learn(ONE, Verdict::Allowed, now);
        grants.learn(key(2), Verdict::Forbidden, now);
        let later = now + ALLOWED;
        assert_eq!(grants.look(ONE, later, 5), Known::Nothing);
        assert_eq!(grants.fail(ONE, later), Some(Verdict::Allowed));
        assert_eq!(grants.fail(key(2), later), None);
        assert_eq!(grants.fail(key(3), later), None);
        // For a moment nobody is asked.
        assert_eq!(grants.look(ONE, later, 5), Known::Verdict(Verdict::Allowed));
        assert_eq!(grants.look(key(2), later, 5), Known::Unavailable);
        assert_eq!(grants.look(key(3), later, 5), Known::Unavailable);
        assert_eq!(grants.look(key(3), later + PAUSE, 5), Known::Nothing);
        // Not for ever.
        let end = now + IN_AN_OUTAGE;
        assert_eq!(grants.fail(ONE, end), None);
        assert_eq!(grants.look(ONE, end, 5), Known::Unavailable);
    }

    #[test]
    fn unknown_tokens_are_reviewed_once_a_second_and_known_ones_always() {
        let now = Instant::now();
        let mut grants = Grants::default();
        grants.learn(ONE, Verdict::Allowed, now);
        let taken = |grants: &mut Grants, after: Duration| {
            let taken = (10..30).filter(|number| grants.takes(key(*number), now + after));
            taken.count()
        };
        assert_eq!(taken(&mut grants, Duration::ZERO), 8);
        assert_eq!(taken(&mut grants, SECOND / 2), 0);
        assert_eq!(taken(&mut grants, SECOND), 1);
        assert_eq!(taken(&mut grants, SECOND * 4), 3);
        assert_eq!(taken(&mut grants, SECOND * 1000), 8);
        assert!(grants.takes(ONE, now + SECOND * 1000));
    }

    #[test]
    fn wrong_tokens_displace_no_right_one_and_memory_is_bounded() {
        let now = Instant::now();
        let mut grants = Grants::default();
        grants.learn(ONE, Verdict::Allowed, now);
        for number in 0..1000 {
            grants.learn(key(number), Verdict::Unauthenticated, now + SECOND);
        }
        assert_eq!(grants.reviewed.len(), TOKENS);
        assert_eq!(
            grants.look(ONE, now + SECOND, 5),
            Known::Verdict(Verdict::Allowed)
        );
        for number in 0..1000 {
            grants.learn(key(number), Verdict::Allowed, now + SECOND);
        }
        assert_eq!(grants.reviewed.len(), TOKENS);
    }
}
