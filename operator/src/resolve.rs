//! Resolves the DNS names of `spec.members`, so that no proxy ever needs DNS.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use futures::future::join_all;
use tokio::net::lookup_host;
use tokio::time::{Instant, timeout};

use crate::plan::masters::is_usable;

/// How long an address counts that a name no longer resolves to. A server that answers with a part of its addresses for a
/// moment must not change what proxies follow.
const MISSING_LIMIT: Duration = Duration::from_secs(300);

/// A pass does not wait longer for names. The last known addresses stay in force meanwhile.
const TIMEOUT: Duration = Duration::from_millis(800);

/// What names are resolved to, or why not.
pub type Answers = BTreeMap<String, Result<Vec<IpAddr>, String>>;

/// What names resolved to: each address, and since when answers are without it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names(BTreeMap<String, BTreeMap<IpAddr, Option<Instant>>>);

impl Names {
    /// Adds answers, and returns them with the addresses that they are without for less than [`MISSING_LIMIT`], in a fixed
    /// order. A lookup that fails says nothing about the addresses; the plan keeps those in force.
    pub fn observe(&mut self, answers: Answers, now: Instant) -> Answers {
        self.0.retain(|name, _| answers.contains_key(name));
        let remembered = answers.into_iter().map(|(name, answer)| {
            let answer = answer.map(|found| {
                let known = self.0.entry(name.clone()).or_default();
                for (ip, missing_since) in known.iter_mut() {
                    *missing_since = match missing_since {
                        _ if found.contains(ip) => None,
                        Some(since) => Some(*since),
                        None => Some(now),
                    };
                }
                known.extend(found.into_iter().map(|ip| (ip, None)));
                known.retain(|_, missing_since| {
                    missing_since.is_none_or(|since| now.saturating_duration_since(since) < MISSING_LIMIT)
                });
                known.keys().copied().collect()
            });
            (name, answer)
        });
        remembered.collect()
    }
}

/// Every listed address that is a name, resolved or with the reason why not.
pub async fn names(listed: impl Iterator<Item = &String>) -> Answers {
    let names: BTreeSet<_> = listed
        .filter(|text| text.parse::<IpAddr>().is_err())
        .cloned()
        .collect();
    join_all(names.into_iter().map(resolve))
        .await
        .into_iter()
        .collect()
}

async fn resolve(name: String) -> (String, Result<Vec<IpAddr>, String>) {
    let found = match timeout(TIMEOUT, lookup_host((name.as_str(), 0))).await {
        Ok(Ok(sockets)) => {
            // In a fixed order: servers rotate theirs, and that is no change.
            let usable: BTreeSet<_> = sockets.map(|socket| socket.ip()).filter(is_usable).collect();
            if usable.is_empty() {
                Err("it has no address that other hosts can reach".to_owned())
            } else {
                Ok(usable.into_iter().collect())
            }
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} ms", TIMEOUT.as_millis())),
    };
    (name, found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "api.example.com";

    fn ips(numbers: &[u8]) -> Vec<IpAddr> {
        numbers
            .iter()
            .map(|number| IpAddr::from([10, 0, 0, *number]))
            .collect()
    }

    fn answer(names: &mut Names, numbers: &[u8], now: Instant) -> Vec<IpAddr> {
        let answers = [(NAME.to_owned(), Ok(ips(numbers)))].into();
        names.observe(answers, now).remove(NAME).unwrap().unwrap()
    }

    #[test]
    fn an_answer_with_a_part_of_the_addresses_for_a_moment_changes_nothing() {
        let (mut names, now) = (Names::default(), Instant::now());
        assert_eq!(answer(&mut names, &[3, 1, 2], now), ips(&[1, 2, 3]));
        for (seconds, part) in [(30, &[2][..]), (60, &[3, 1]), (90, &[2, 3, 1]), (360, &[1, 2])] {
            let found = answer(&mut names, part, now + Duration::from_secs(seconds));
            assert_eq!(found, ips(&[1, 2, 3]), "after {seconds} s");
        }
    }

    #[test]
    fn an_address_that_answers_are_without_for_long_is_forgotten() {
        let (mut names, now) = (Names::default(), Instant::now());
        answer(&mut names, &[1, 2], now);
        let later = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(answer(&mut names, &[2, 3], later(10)), ips(&[1, 2, 3]));
        assert_eq!(answer(&mut names, &[2, 3], later(309)), ips(&[1, 2, 3]));
        assert_eq!(answer(&mut names, &[2, 3], later(310)), ips(&[2, 3]));
    }

    #[test]
    fn a_failing_lookup_forgets_no_address() {
        let (mut names, now) = (Names::default(), Instant::now());
        answer(&mut names, &[1, 2], now);
        let failed: Answers = [(NAME.to_owned(), Err("timed out".to_owned()))].into();
        let later = now + Duration::from_secs(3600);
        assert_eq!(names.observe(failed.clone(), later), failed);
        assert_eq!(answer(&mut names, &[1], later), ips(&[1, 2]));
    }
}
