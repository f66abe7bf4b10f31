//! The health of every member as a node's proxy reports it, from one moment to another.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use tokio::task::JoinHandle;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;
use trivet_testbed::Host;

use crate::inside::inside;
use crate::proxies;

/// The pause between two looks: shorter than any state that matters to a client.
const LOOK: Duration = Duration::from_millis(100);

/// A proxy under observation.
#[derive(Debug)]
pub struct Health {
    stop: CancellationToken,
    seen: JoinHandle<Result<Seen>>,
}

/// The states that a proxy has reported for its members.
#[derive(Debug, Clone, Default)]
pub struct Seen(Vec<(Timestamp, BTreeMap<String, String>)>);

impl Health {
    /// Observes `host`'s proxy until `finish` is called.
    pub fn watch(host: &Host) -> Self {
        let stop = CancellationToken::new();
        let (host, stopped) = (host.clone(), stop.clone());
        let look = move || async move {
            let (mut clock, mut seen) = (interval(LOOK), Seen::default());
            while stopped.run_until_cancelled(clock.tick()).await.is_some() {
                seen.0.push((Timestamp::now(), proxies::read().await?.states()));
            }
            Ok(seen)
        };
        let seen = tokio::spawn(async move { inside(&host, look).await? });
        Self { stop, seen }
    }

    /// Ends the observation.
    pub async fn finish(self) -> Result<Seen> {
        self.stop.cancel();
        self.seen.await.context("the observation was lost")?
    }
}

impl Seen {
    /// When a member first was in `state`, at `since` or later.
    pub fn first(&self, member: &str, state: &str, since: Timestamp) -> Option<Timestamp> {
        let mut later = self.0.iter().filter(|(at, _)| *at >= since);
        later
            .find(|(_, states)| states.get(member).is_some_and(|found| found == state))
            .map(|(at, _)| *at)
    }

    /// Every state that a member was in.
    pub fn states_of(&self, member: &str) -> BTreeSet<&str> {
        self.states_between(member, Timestamp::MIN, Timestamp::MAX)
    }

    /// Every state that a member was in from one moment until another.
    pub fn states_between(&self, member: &str, from: Timestamp, until: Timestamp) -> BTreeSet<&str> {
        self.0
            .iter()
            .filter(|(at, _)| (from..until).contains(at))
            .filter_map(|(_, states)| states.get(member))
            .map(String::as_str)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_counts_from_the_moment_that_is_asked_for() {
        let second = |second| Timestamp::from_second(second).unwrap();
        let cp1 = |state: &str| BTreeMap::from([("cp1".to_owned(), state.to_owned())]);
        let seen = Seen(vec![
            (second(1), cp1("Down")),
            (second(2), cp1("Up")),
            (second(3), cp1("Down")),
        ]);
        assert_eq!(seen.first("cp1", "Down", second(2)), Some(second(3)));
        assert_eq!(seen.first("cp1", "Up", second(3)), None);
        assert_eq!(seen.states_of("cp1"), ["Down", "Up"].into());
        assert!(seen.states_of("cp2").is_empty());
        assert_eq!(seen.states_between("cp1", second(2), second(3)), ["Up"].into());
    }
}
