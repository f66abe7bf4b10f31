//! What the operator says of a pool, and what its objects say.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use trivet_crds::pool::{ApiserverPool, PoolMemberState};

use super::finding::Finding;
use super::images;
use super::kind::Kind;
use crate::read::{Facts, condition};

/// How long the operator may take to see an edit: its passes start within a second, and after an outage of the API its back-off
/// is up to half a minute.
const SEEN_WITHIN_SECONDS: i64 = 60;

/// The reasons of `Accepted=False` that are about a port.
const PORT_REASONS: [&str; 2] = ["ListenerConflict", "PortOfApiserver"];

pub(super) fn check(facts: &Facts, pool: &ApiserverPool) -> Vec<Finding> {
    let place = format!("pool {}", pool.name_any());
    let mut found: Vec<_> = [
        not_followed(facts, pool, &place),
        not_accepted(pool, &place),
        proxies(pool, &place),
        stands(pool, &place),
        certificates(pool, &place),
        one_member(pool, &place),
    ]
    .into_iter()
    .flatten()
    .collect();
    found.extend(images::check(facts, pool));
    found
}

fn is_false<'a>(pool: &'a ApiserverPool, type_: &str) -> Option<&'a Condition> {
    condition(pool, type_).filter(|condition| condition.status == "False")
}

fn told(condition: &Condition) -> String {
    format!("{}: {}", condition.reason, condition.message)
}

fn not_followed(facts: &Facts, pool: &ApiserverPool, place: &str) -> Option<Finding> {
    let generation = pool.metadata.generation?;
    let seen = pool.status.as_ref().and_then(|status| status.observed_generation);
    // The status's own writes have a subresource; what is left are writes of the spec and of metadata.
    let writes = pool.metadata.managed_fields.iter().flatten();
    let writes = writes.filter(|entry| entry.subresource.is_none());
    let written = writes
        .filter_map(|entry| entry.time.as_ref())
        .chain(&pool.metadata.creation_timestamp)
        .map(|time| time.0.as_second())
        .max()?;
    let waits = facts.now.saturating_sub(written);
    (seen.is_none_or(|seen| seen < generation) && waits > SEEN_WITHIN_SECONDS).then(|| {
        let seen = seen.map_or_else(|| "none".to_owned(), |seen| format!("generation {seen}"));
        let waits = crate::output::text::span(waits);
        let message =
            format!("the spec is generation {generation}, written {waits} ago; the operator has seen {seen}");
        Finding::at(Kind::NotFollowed, place, message)
    })
}

fn not_accepted(pool: &ApiserverPool, place: &str) -> Option<Finding> {
    let accepted = is_false(pool, "Accepted")?;
    let kind = if PORT_REASONS.contains(&accepted.reason.as_str()) {
        Kind::PortConflict
    } else {
        Kind::NotAccepted
    };
    Some(Finding::at(kind, place, told(accepted)))
}

fn proxies(pool: &ApiserverPool, place: &str) -> Option<Finding> {
    let available = is_false(pool, "ProxiesAvailable")?;
    Some(Finding::at(Kind::ProxiesUnavailable, place, told(available)))
}

/// A rejected spec is told by Accepted already.
fn stands(pool: &ApiserverPool, place: &str) -> Option<Finding> {
    let progressing = is_false(pool, "Progressing")?;
    is_false(pool, "Accepted")
        .is_none()
        .then(|| Finding::at(Kind::Stands, place, told(progressing)))
}

fn certificates(pool: &ApiserverPool, place: &str) -> Option<Finding> {
    let matches = condition(pool, "CertificateMatches");
    match matches.map(|matches| (matches, matches.status.as_str())) {
        Some((_, "True")) => None,
        Some((matches, "False")) => {
            let kind = match matches.reason.as_str() {
                "Expired" | "NotYetValid" | "ClockSkew" | "Untrusted" => Kind::CertificateInvalid,
                "ExpiresSoon" => Kind::CertificateExpires,
                // An operator of an earlier release.
                "NotReported" => Kind::CertificateUnknown,
                _ => Kind::CertificateNames,
            };
            Some(Finding::at(kind, place, told(matches)))
        }
        Some((matches, _)) => Some(Finding::at(Kind::CertificateUnknown, place, told(matches))),
        None => {
            let message =
                "the pool has no condition CertificateMatches: its operator has told nothing of them";
            Some(Finding::at(Kind::CertificateUnknown, place, message))
        }
    }
}

fn one_member(pool: &ApiserverPool, place: &str) -> Option<Finding> {
    let members = &pool.status.as_ref()?.members;
    let mut active = members
        .iter()
        .filter(|member| member.state == PoolMemberState::Active);
    let only = active.next()?;
    active.next().is_none().then(|| {
        let message = format!("{} is its only active member", only.name);
        Finding::at(Kind::OneMember, place, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::tests::{facts, kinds, pool, with_condition};

    fn checked(pool: &ApiserverPool) -> Vec<Finding> {
        check(&facts(), pool)
    }

    #[test]
    fn a_pool_in_order_has_no_finding() {
        assert_eq!(checked(&pool()), []);
    }

    #[test]
    fn a_rejected_spec_is_named_with_the_operators_words_and_a_port_apart() {
        for (reason, kind) in [
            ("NoHealthyMember", Kind::NotAccepted),
            ("ListenerConflict", Kind::PortConflict),
            ("PortOfApiserver", Kind::PortConflict),
        ] {
            let mut pool = with_condition("Accepted", "False", reason, "the way out");
            assert_eq!(kinds(&checked(&pool)), [kind], "{reason}");
            assert_eq!(checked(&pool)[0].message, format!("{reason}: the way out"));
            // Then the rollout stands too, and that says nothing new.
            let stands = with_condition("Progressing", "False", reason, "see Accepted");
            let status = pool.status.as_mut().unwrap();
            status
                .conditions
                .retain(|condition| condition.type_ != "Progressing");
            let progressing = stands
                .status
                .unwrap()
                .conditions
                .into_iter()
                .find(|condition| condition.type_ == "Progressing");
            status.conditions.extend(progressing);
            assert_eq!(kinds(&checked(&pool)), [kind]);
        }
    }

    #[test]
    fn conditions_that_are_false_are_findings() {
        for (type_, status, kind) in [
            ("ProxiesAvailable", "False", Kind::ProxiesUnavailable),
            ("Progressing", "False", Kind::Stands),
            ("CertificateMatches", "Unknown", Kind::CertificateUnknown),
        ] {
            let found = checked(&with_condition(type_, status, "Reason", "words"));
            assert_eq!(kinds(&found), [kind], "{type_}");
            assert_eq!(found[0].message, "Reason: words");
        }
    }

    #[test]
    fn a_certificate_that_clients_refuse_is_told_from_one_that_lacks_a_name() {
        for (reason, kind) in [
            ("NamesMissing", Kind::CertificateNames),
            ("ExpiresSoon", Kind::CertificateExpires),
            ("Expired", Kind::CertificateInvalid),
            ("NotYetValid", Kind::CertificateInvalid),
            ("ClockSkew", Kind::CertificateInvalid),
            ("Untrusted", Kind::CertificateInvalid),
            ("NotReported", Kind::CertificateUnknown),
        ] {
            let found = checked(&with_condition("CertificateMatches", "False", reason, "words"));
            assert_eq!(kinds(&found), [kind], "{reason}");
        }
    }

    #[test]
    fn a_release_without_a_condition_is_said_to_be_so() {
        let mut pool = pool();
        let conditions = &mut pool.status.as_mut().unwrap().conditions;
        conditions.retain(|condition| condition.type_ != "CertificateMatches");
        assert_eq!(kinds(&checked(&pool)), [Kind::CertificateUnknown]);
    }

    #[test]
    fn an_edit_that_the_operator_does_not_see_within_a_minute_is_named() {
        let mut facts = facts();
        let mut pool = pool();
        let written = pool.metadata.creation_timestamp.as_ref().unwrap().0.as_second();
        pool.metadata.generation = Some(9);
        facts.now = written + SEEN_WITHIN_SECONDS;
        assert_eq!(check(&facts, &pool), []);
        facts.now += 1;
        let found = check(&facts, &pool);
        assert_eq!(kinds(&found), [Kind::NotFollowed]);
        assert!(
            found[0]
                .message
                .contains("written 1m1s ago; the operator has seen generation 3"),
            "{found:?}"
        );
    }

    #[test]
    fn a_pool_with_one_active_member_is_named() {
        let mut pool = pool();
        let members = &mut pool.status.as_mut().unwrap().members;
        members[1].state = PoolMemberState::Disabled;
        assert_eq!(checked(&pool), []);
        pool.status.as_mut().unwrap().members[2].state = PoolMemberState::Draining;
        assert_eq!(checked(&pool)[0].message, "cp1 is its only active member");
    }
}
