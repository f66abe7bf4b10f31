//! Stale documents: valid ones that a source offers and that are not followed, because their revision is not above that
//! of the document in force.
//!
//! Usually a stale document is a mounted ConfigMap that lags behind the watch. It can also be the only right one: on a host
//! that is reused in a new cluster, the cache holds a document of the old cluster, whose revision may be higher. Then its
//! authority verifies no member. So while that authority verifies none, a stale document with another authority is followed
//! if its authority verifies a member whose certificate that of the document in force does not verify. A source of such a
//! document can also offer one with a higher revision, so the rule gives it no new power; and a document from the cache is
//! never followed this way.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::debug;

use super::{Documents, InForce};
use crate::{
    balance::{View, health::Reason},
    probe,
    settings::{self, Settings},
    source::Source,
    upstream::Upstreams,
    warnings::{Topic, Warnings},
};

/// How long a document must be in force before its authority can count as failed: by then every member has been probed.
const SETTLE: Duration = Duration::from_secs(5);

/// How long a stale document with the same authority causes no warning: kubelet updates a mounted ConfigMap within about
/// 90 s.
const MOUNT_LAG: Duration = Duration::from_secs(120);

/// The pause between two checks of the stale documents.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The wait between two attempts to verify the members of one stale document. It doubles up to the longest, so that a
/// fleet with such a document does not load its apiservers with handshakes.
const FIRST_WAIT: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_secs(120);

/// The limit of one answer while the members are verified.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// How many addresses are probed at once.
const ASKED_AT_ONCE: usize = 8;

/// A stale document.
#[derive(Clone, Debug)]
pub struct StaleDocument {
    /// The document and what follows from it.
    pub settings: Arc<Settings>,
    /// The original text.
    pub text: Arc<str>,
    /// What offers it.
    pub source: Source,
    /// Whether it has the revision of the document in force, but another content.
    pub is_twin: bool,
    /// Since when it is offered.
    pub since: Instant,
}

/// The facts that decide the next step for a stale document.
#[derive(Clone, Copy, Debug)]
struct Facts {
    /// It has the authority of the document in force.
    same_authority: bool,
    kind: Kind,
    /// The authority of the document in force verifies a member.
    in_force_verifies: bool,
    in_force_for: Duration,
    offered_for: Duration,
}

/// What a stale document is if it has the authority of the one in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// One that usually lags behind, and that is told if it lasts.
    Older,
    /// An edit by hand, which is told at once.
    Twin,
    /// The seed: every other document comes before it, so it is never told.
    Seed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It may be a lag.
    Wait,
    /// Warn, and follow nothing.
    Warn,
    /// Warn, and follow it if its authority verifies a member and that of the document in force does not.
    Verify,
}

/// When to verify a stale document's members next.
#[derive(Debug)]
struct Attempt {
    hash: String,
    due: Instant,
    wait: Duration,
}

/// Watches the stale documents without end: warns of them, and follows one whose authority verifies a member.
pub async fn resolve(documents: Arc<Documents>, upstreams: Arc<Upstreams>, warnings: Arc<Warnings>) {
    let mut offered = documents.subscribe_stale();
    let mut attempts = HashMap::new();
    loop {
        let stale = offered.borrow_and_update().clone();
        for source in Source::ALL {
            if !stale.iter().any(|stale| stale.source == source) {
                warnings.clear(Topic::Document(source));
                attempts.remove(&source);
            }
        }
        for stale in &stale {
            look_at(stale, &documents, &upstreams, &warnings, &mut attempts).await;
        }
        let next = (!stale.is_empty()).then(|| Instant::now() + LOOK_EVERY);
        let changed = offered.changed();
        match next {
            // Either way the loop looks again; the sender lives as long as `documents`.
            Some(next) => drop(timeout_at(next, changed).await),
            None => drop(changed.await),
        }
        // Several offers in a short time cause one check.
        sleep_until(Instant::now() + LOOK_EVERY / 10).await;
    }
}

async fn look_at(
    stale: &StaleDocument,
    documents: &Documents,
    upstreams: &Upstreams,
    warnings: &Warnings,
    attempts: &mut HashMap<Source, Attempt>,
) {
    let Some(in_force) = documents.in_force() else {
        return;
    };
    let now = Instant::now();
    let next = step(Facts {
        same_authority: authority(&stale.settings) == authority(&in_force.settings),
        kind: match stale.source {
            Source::Seed => Kind::Seed,
            Source::File | Source::Cache | Source::Watch | Source::Handover if stale.is_twin => Kind::Twin,
            Source::File | Source::Cache | Source::Watch | Source::Handover => Kind::Older,
        },
        in_force_verifies: upstreams.view().iter().any(is_verified),
        in_force_for: now.saturating_duration_since(in_force.since),
        offered_for: now.saturating_duration_since(stale.since),
    });
    if next == Step::Wait {
        return;
    }
    let (reason, message) = warning(stale, &in_force, next);
    warnings.raise(Topic::Document(stale.source), reason, message);
    if next == Step::Verify
        && is_due(attempts, stale, now)
        && is_right(&stale.settings, &in_force.settings).await
    {
        documents.follow_stale(stale, &in_force);
    }
}

fn step(facts: Facts) -> Step {
    let Facts {
        same_authority,
        kind,
        in_force_verifies,
        in_force_for,
        offered_for,
    } = facts;
    if !same_authority && !in_force_verifies {
        return if in_force_for >= SETTLE {
            Step::Verify
        } else {
            Step::Wait
        };
    }
    match kind {
        Kind::Twin => Step::Warn,
        Kind::Older if offered_for >= MOUNT_LAG => Step::Warn,
        Kind::Older | Kind::Seed => Step::Wait,
    }
}

/// Reason and message for the log and the status.
fn warning(stale: &StaleDocument, in_force: &InForce, step: Step) -> (&'static str, String) {
    let (offered, current) = (
        stale.settings.document.revision,
        in_force.settings.document.revision,
    );
    let (by, from) = (stale.source.as_str(), in_force.source.as_str());
    if step == Step::Verify {
        return (
            "OtherAuthority",
            format!(
                "no member has a certificate of the authority of document {current} (from {from}); {by} offers document {offered} with another authority, which is followed once that authority verifies a member"
            ),
        );
    }
    if stale.is_twin {
        return (
            "SameRevision",
            format!(
                "{by} offers another document of revision {current}, which is in force from {from}; raise the revision to have it followed"
            ),
        );
    }
    (
        "OlderRevision",
        format!(
            "{by} offers document {offered}, but document {current} (from {from}) is in force and its revision is higher; raise the revision to have it followed"
        ),
    )
}

pub(super) fn authority(settings: &Settings) -> &str {
    settings.document.tls.ca_bundle.trim()
}

/// Whether the path's last answer was verified.
fn is_verified(view: &View) -> bool {
    match view.reason {
        Reason::Answering
        | Reason::Withheld
        | Reason::Recovering
        | Reason::HeldDown
        | Reason::NotReady
        | Reason::Late
        | Reason::EtcdFailed => true,
        Reason::Remembered | Reason::Untrusted | Reason::NotProbed | Reason::Refused | Reason::Silent => {
            false
        }
    }
}

/// Whether the members of this document must be verified now; if so, schedules the next attempt.
fn is_due(attempts: &mut HashMap<Source, Attempt>, stale: &StaleDocument, now: Instant) -> bool {
    let hash = &stale.settings.document.hash;
    let attempt = attempts
        .entry(stale.source)
        .or_insert_with(|| Attempt::first(hash, now));
    if attempt.hash != *hash {
        *attempt = Attempt::first(hash, now);
    }
    if attempt.due > now {
        return false;
    }
    attempt.due = now + attempt.wait;
    attempt.wait = (attempt.wait * 2).min(LONGEST_WAIT);
    true
}

impl Attempt {
    fn first(hash: &str, now: Instant) -> Self {
        Self {
            hash: hash.to_owned(),
            due: now,
            wait: FIRST_WAIT,
        }
    }
}

/// Whether a member shows a certificate that the stale document's authority verifies and that of the document in force does
/// not. The first member whose certificate the stale document's authority verifies decides.
async fn is_right(stale: &Settings, in_force: &Settings) -> bool {
    let members = stale.document.members.iter();
    let addresses: Vec<_> = members
        .flat_map(settings::paths)
        .map(|path| path.address)
        .collect();
    let verdicts = stream::iter(addresses).map(|address| verdict(address, stale, in_force));
    let mut verdicts = verdicts.buffer_unordered(ASKED_AT_ONCE);
    while let Some(verdict) = verdicts.next().await {
        if let Some(is_right) = verdict {
            return is_right;
        }
    }
    false
}

/// Which document is right by the certificate at this address; none where it does not tell. The health of the members does
/// not tell either: one that refuses a single probe looks like one that the document in force does not verify.
async fn verdict(address: SocketAddr, stale: &Settings, in_force: &Settings) -> Option<bool> {
    let verified = probe::verified_answer(address, stale, ANSWER_LIMIT).await;
    verified
        .inspect_err(|error| debug!(%address, error, "the stale document's authority does not verify"))
        .ok()?;
    let reply = probe::answer(address, in_force, ANSWER_LIMIT).await.ok()?;
    Some(!reply.trusted())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOREIGN: Facts = Facts {
        same_authority: false,
        kind: Kind::Older,
        in_force_verifies: false,
        in_force_for: SETTLE,
        offered_for: Duration::ZERO,
    };

    #[test]
    fn another_authority_is_verified_once_that_in_force_had_its_time_and_verified_none() {
        assert_eq!(step(FOREIGN), Step::Verify);
        for not_yet in [
            Facts {
                in_force_for: SETTLE / 2,
                ..FOREIGN
            },
            Facts {
                in_force_verifies: true,
                ..FOREIGN
            },
            Facts {
                same_authority: true,
                ..FOREIGN
            },
        ] {
            assert_eq!(step(not_yet), Step::Wait, "{not_yet:?}");
        }
    }

    #[test]
    fn a_seed_is_no_news_unless_the_document_in_force_is_of_another_cluster() {
        let seed = Facts {
            kind: Kind::Seed,
            offered_for: 10 * MOUNT_LAG,
            ..FOREIGN
        };
        assert_eq!(step(seed), Step::Verify);
        for same_cluster in [
            Facts {
                same_authority: true,
                ..seed
            },
            Facts {
                in_force_verifies: true,
                ..seed
            },
        ] {
            assert_eq!(step(same_cluster), Step::Wait);
        }
    }

    #[test]
    fn a_lag_of_the_mount_is_no_news_and_more_is() {
        for same_authority in [true, false] {
            let facts = Facts {
                same_authority,
                in_force_verifies: true,
                ..FOREIGN
            };
            assert_eq!(step(facts), Step::Wait);
            let long = Facts {
                offered_for: MOUNT_LAG,
                ..facts
            };
            assert_eq!(step(long), Step::Warn);
            let twin = Facts {
                kind: Kind::Twin,
                ..facts
            };
            assert_eq!(step(twin), Step::Warn);
        }
    }
}
