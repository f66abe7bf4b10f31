//! What the operator knows of each apiserver, folded from its probes.
//!
//! The operator's view decides nothing about traffic: each proxy judges for itself. It is shown in the status, and it
//! holds back an edit or a removal that would leave nobody to talk to. What the proxies of Ready nodes see counts as well
//! ([`sighting`]): the operator's pod is one place of many.

pub mod sighting;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::time::Instant;
use trivet_crds::pool::MemberHealth;

use self::sighting::Sightings;

/// Silent probes in a row before an apiserver that answered is called Down: one lost answer is no news.
const SILENT_LIMIT: u32 = 2;

/// The pause between two questions for the release of an apiserver that answers all the time: an upgrade restarts it, and
/// then it is asked anyway.
const VERSION_INTERVAL: Duration = Duration::from_secs(300);

/// What one probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Verified, and ready.
    Ready,
    /// Verified, and it refuses to tell a stranger whether it is ready.
    Withheld,
    /// Verified, and not ready, with its own words.
    NotReady(String),
    /// It is there and closes the connection: starting, stopping, or nothing listens.
    Refused(String),
    /// It answers with a certificate that the cluster's authorities do not vouch for.
    Untrusted(String),
    /// Nothing within the time.
    Silent,
}

impl Answer {
    /// Whether an apiserver of this cluster has answered.
    pub fn is_verified(&self) -> bool {
        match self {
            Self::Ready | Self::Withheld | Self::NotReady(_) => true,
            Self::Refused(_) | Self::Untrusted(_) | Self::Silent => false,
        }
    }
}

/// What is known of one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// The state that the status shows.
    pub state: MemberHealth,
    /// Why it is not Up, or what is unusual about it.
    pub message: String,
    /// The last verified answer.
    pub verified_at: Option<Instant>,
    /// The first probe.
    pub known_since: Instant,
    /// The last probe.
    pub probed_at: Instant,
    /// Whether a TLS server answered lately, be it the wrong one. A refused connection counts as no answer: firewalls
    /// refuse connections too.
    pub is_reached: bool,
    /// The release that it names, and when it was asked. It may be another one once it has not answered for a moment.
    pub version: Option<(String, Instant)>,
    silent: u32,
}

impl Health {
    /// Folds one answer into what was known.
    pub fn observe(previous: Option<&Self>, answer: Answer, now: Instant) -> Self {
        let verified_at = if answer.is_verified() {
            Some(now)
        } else {
            previous.and_then(|old| old.verified_at)
        };
        let silent = match answer {
            Answer::Silent => previous.map_or(SILENT_LIMIT, |old| old.silent.saturating_add(1)),
            _ => 0,
        };
        let is_reached = match answer {
            Answer::Ready | Answer::Withheld | Answer::NotReady(_) | Answer::Untrusted(_) => true,
            Answer::Silent => silent < SILENT_LIMIT && previous.is_some_and(|old| old.is_reached),
            Answer::Refused(_) => false,
        };
        let (state, message) = match (answer, previous) {
            (Answer::Ready, _) => (MemberHealth::Up, String::new()),
            (Answer::Withheld, _) => (
                MemberHealth::Up,
                "it does not tell anonymous callers whether it is ready".to_owned(),
            ),
            (Answer::NotReady(why), _) => (MemberHealth::Unready, format!("it is not ready: {why}")),
            (Answer::Refused(why), _) => (MemberHealth::Unready, format!("it refuses connections: {why}")),
            (Answer::Untrusted(why), _) => (
                MemberHealth::Unready,
                format!("its certificate does not verify: {why}"),
            ),
            (Answer::Silent, Some(old)) if silent < SILENT_LIMIT => (old.state, old.message.clone()),
            (Answer::Silent, _) => (MemberHealth::Down, "it does not answer".to_owned()),
        };
        Self {
            state,
            message,
            verified_at,
            known_since: previous.map_or(now, |old| old.known_since),
            probed_at: now,
            version: previous
                .and_then(|old| old.version.clone())
                .filter(|_| is_reached && verified_at == Some(now)),
            is_reached,
            silent,
        }
    }

    /// Whether the last probe has brought a verified answer.
    pub fn is_verified(&self) -> bool {
        self.verified_at == Some(self.probed_at)
    }

    /// For how long probes have brought no verified answer. Before the first probe nothing is known.
    fn unverified_for(&self) -> Duration {
        let since = self.verified_at.unwrap_or(self.known_since);
        self.probed_at.saturating_duration_since(since)
    }
}

/// What is known of all addresses, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Healths {
    probed: BTreeMap<SocketAddr, Health>,
    seen: Sightings,
}

impl Healths {
    /// What the operator knows of the member with these addresses: its best address speaks for it.
    pub fn of(&self, addresses: &[IpAddr], port: u16) -> Option<&Health> {
        self.at(addresses, port).min_by_key(|health| rank(health.state))
    }

    /// What the nodes see.
    pub fn sightings(&self) -> &Sightings {
        &self.seen
    }

    /// The release that the member with these addresses names.
    pub fn version(&self, addresses: &[IpAddr], port: u16) -> Option<&str> {
        let mut named = self
            .at(addresses, port)
            .filter_map(|health| health.version.as_ref());
        named
            .find(|(version, _)| !version.is_empty())
            .map(|(version, _)| version.as_str())
    }

    /// The last verified answer from any of these addresses, to the operator or to a proxy.
    pub fn verified_at(&self, addresses: &[IpAddr], port: u16) -> Option<Instant> {
        self.at(addresses, port)
            .filter_map(|health| health.verified_at)
            .chain(self.seen.of(addresses, port).verified_at)
            .max()
    }

    /// Whether the member with these addresses is Up, for the operator or for most nodes.
    pub fn is_up(&self, addresses: &[IpAddr], port: u16) -> bool {
        self.of(addresses, port)
            .is_some_and(|health| health.state == MemberHealth::Up)
            || self.seen.of(addresses, port).is_up_for_most()
    }

    /// Whether an apiserver of the cluster answers at any of these addresses, ready or not.
    pub fn is_verified(&self, addresses: &[IpAddr], port: u16) -> bool {
        self.at(addresses, port).any(Health::is_verified) || self.seen.of(addresses, port).reachable > 0
    }

    /// Whether all of these addresses have been probed for `delay` without a verified answer, to the operator or to a proxy.
    pub fn is_gone(&self, addresses: &[IpAddr], port: u16, delay: Duration) -> bool {
        addresses.iter().all(|ip| {
            let health = self.probed.get(&SocketAddr::new(*ip, port));
            let seen_at = self.seen.of(&[*ip], port).verified_at;
            health.is_some_and(|health| {
                let is_unseen = |seen: Instant| health.probed_at.saturating_duration_since(seen) >= delay;
                health.unverified_for() >= delay && seen_at.is_none_or(is_unseen)
            })
        })
    }

    /// Whether any of these addresses answers, well or badly.
    pub fn is_reached(&self, addresses: &[IpAddr], port: u16) -> bool {
        self.at(addresses, port).any(|health| health.is_reached)
            || self.seen.of(addresses, port).reachable > 0
    }

    /// What the operator knows of one address.
    pub fn get(&self, address: &SocketAddr) -> Option<&Health> {
        self.probed.get(address)
    }

    /// Folds one answer in; true if the address's state is another one now.
    pub fn observe(&mut self, address: SocketAddr, answer: Answer, now: Instant) -> bool {
        let old = self.probed.get(&address);
        let new = Health::observe(old, answer, now);
        let changed = old.map(|health| health.state) != Some(new.state);
        self.probed.insert(address, new);
        changed
    }

    /// Adds what the nodes see.
    pub fn see(&mut self, seen: Sightings) {
        self.seen = seen;
    }

    /// Whether an address that answers is to be asked for its release.
    pub fn wants_version(&self, address: &SocketAddr, now: Instant) -> bool {
        self.probed.get(address).is_some_and(|health| {
            let is_old = |(_, at): &(String, Instant)| now.saturating_duration_since(*at) >= VERSION_INTERVAL;
            health.is_verified() && health.version.as_ref().is_none_or(is_old)
        })
    }

    /// Notes the release that an address names; empty if it names none.
    pub fn set_version(&mut self, address: &SocketAddr, version: String, now: Instant) {
        if let Some(health) = self.probed.get_mut(address) {
            health.version = Some((version, now));
        }
    }

    /// Forgets the addresses that `wanted` does not name.
    pub fn retain(&mut self, wanted: impl Fn(&SocketAddr) -> bool) {
        self.probed.retain(|address, _| wanted(address));
    }

    /// The health of those of these addresses that have been probed.
    fn at(&self, addresses: &[IpAddr], port: u16) -> impl Iterator<Item = &Health> {
        let health = move |ip: &IpAddr| self.probed.get(&SocketAddr::new(*ip, port));
        addresses.iter().filter_map(health)
    }
}

fn rank(state: MemberHealth) -> u8 {
    match state {
        MemberHealth::Up => 0,
        MemberHealth::Unready => 1,
        MemberHealth::Down => 2,
        MemberHealth::Unknown => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(answers: &[Answer]) -> Health {
        let now = Instant::now();
        let mut health = None;
        for answer in answers {
            health = Some(Health::observe(health.as_ref(), answer.clone(), now));
        }
        health.unwrap()
    }

    #[test]
    fn one_lost_answer_is_no_news_two_are() {
        assert_eq!(folded(&[Answer::Ready, Answer::Silent]).state, MemberHealth::Up);
        assert_eq!(
            folded(&[Answer::Ready, Answer::Silent, Answer::Silent]).state,
            MemberHealth::Down
        );
        assert_eq!(
            folded(&[Answer::Ready, Answer::Silent, Answer::Ready, Answer::Silent]).state,
            MemberHealth::Up
        );
    }

    #[test]
    fn what_was_never_heard_is_down_at_once() {
        assert_eq!(folded(&[Answer::Silent]).state, MemberHealth::Down);
    }

    #[test]
    fn only_verified_answers_count_as_answers() {
        assert!(
            folded(&[Answer::Untrusted("expired".into())])
                .verified_at
                .is_none()
        );
        assert!(folded(&[Answer::Refused("refused".into())]).verified_at.is_none());
        assert!(
            folded(&[Answer::NotReady("[-]etcd failed".into())])
                .verified_at
                .is_some()
        );
        assert!(
            folded(&[Answer::Ready, Answer::Silent, Answer::Silent])
                .verified_at
                .is_some()
        );
    }

    #[test]
    fn what_refuses_or_stays_silent_is_not_reached() {
        for (answers, is_reached) in [
            (vec![Answer::NotReady("etcd".into())], true),
            (vec![Answer::Untrusted("expired".into())], true),
            (vec![Answer::Ready, Answer::Silent], true),
            (vec![Answer::Ready, Answer::Silent, Answer::Silent], false),
            (vec![Answer::Ready, Answer::Refused("refused".into())], false),
            (vec![Answer::Refused("refused".into()), Answer::Silent], false),
        ] {
            assert_eq!(folded(&answers).is_reached, is_reached, "{answers:?}");
        }
    }

    #[test]
    fn an_apiserver_that_answers_no_strangers_is_not_down() {
        assert_eq!(folded(&[Answer::Withheld]).state, MemberHealth::Up);
    }

    #[test]
    fn what_gives_no_verified_answer_for_the_delay_is_gone() {
        let (start, address) = (Instant::now(), SocketAddr::from(([10, 0, 0, 1], 6443)));
        let delay = Duration::from_secs(300);
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut healths = Healths::default();
        let is_gone = |healths: &Healths| healths.is_gone(&[address.ip()], 6443, delay);
        assert!(!is_gone(&healths), "it has not been probed yet");
        for (seconds, answer, expected) in [
            (0, Answer::Silent, false),
            (299, Answer::Untrusted("expired".to_owned()), false),
            (300, Answer::Silent, true),
            (301, Answer::NotReady("etcd".to_owned()), false),
            (600, Answer::Refused("refused".to_owned()), false),
            (601, Answer::Silent, true),
        ] {
            healths.observe(address, answer, at(seconds));
            assert_eq!(is_gone(&healths), expected, "at {seconds} s");
        }
        let other = IpAddr::from([10, 0, 0, 2]);
        assert!(!healths.is_gone(&[address.ip(), other], 6443, delay));
    }

    #[test]
    fn a_release_is_asked_for_once_and_again_after_a_silence() {
        let (start, address) = (Instant::now(), SocketAddr::from(([10, 0, 0, 1], 6443)));
        let mut healths = Healths::default();
        assert!(!healths.wants_version(&address, start), "it has not answered yet");
        healths.observe(address, Answer::Ready, start);
        assert!(healths.wants_version(&address, start));
        healths.set_version(&address, "v1.34.4".to_owned(), start);
        healths.observe(address, Answer::Ready, start);
        assert!(!healths.wants_version(&address, start));
        assert!(healths.wants_version(&address, start + VERSION_INTERVAL));
        assert_eq!(healths.version(&[address.ip()], 6443), Some("v1.34.4"));
        let later = start + Duration::from_secs(1);
        healths.observe(address, Answer::Refused("refused".to_owned()), later);
        assert_eq!(healths.version(&[address.ip()], 6443), None);
        healths.observe(address, Answer::Ready, later);
        assert!(healths.wants_version(&address, later));
    }

    #[test]
    fn a_member_s_best_address_speaks_for_it() {
        let now = Instant::now();
        let (four, six): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap());
        let mut healths = Healths::default();
        healths.observe(SocketAddr::new(four, 6443), Answer::Silent, now);
        healths.observe(
            SocketAddr::new(six, 6443),
            Answer::Ready,
            now + Duration::from_secs(1),
        );
        assert!(healths.is_up(&[four, six], 6443));
        assert!(!healths.is_up(&[four], 6443));
        assert_eq!(
            healths.verified_at(&[four, six], 6443),
            Some(now + Duration::from_secs(1))
        );
        assert!(healths.of(&[four], 7000).is_none());
    }
}
