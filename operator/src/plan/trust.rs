//! What apiservers are verified by is replaced only by what verifies one of them.
//!
//! A typo in `healthCheck.tlsServerName`, or a wrong bundle in place of the cluster's authorities, would make every certificate
//! a foreign one: proxies go on with the members that have proved themselves, but none that starts could prove one, and none
//! could read the correction from an apiserver. What the proxies see says nothing about it, because they verify by the document
//! in force; the operator's own probes do.

use trivet_crds::pool::ApiserverPoolSpec;
use trivet_crds::wire::Member;

use super::facts::{Facts, Hindrance};
use super::rejection::Rejection;
use crate::health::{Health, Healths};

/// The reason word where the cluster's authorities are not followed.
pub const AUTHORITIES_REFUSED: &str = "AuthoritiesRefused";

/// Keeps the authorities in force where the cluster's verify no member in force, and those in force do.
pub fn settle(mut facts: Facts) -> Facts {
    let Some(document) = &facts.current.document else {
        return facts;
    };
    let in_force = document.tls.clone();
    if in_force.ca_bundle == facts.authorities || !is_only_in_force_good(&facts) {
        return facts;
    }
    let why = why(&facts);
    facts.authorities = in_force.ca_bundle;
    facts.hindrances.push(Hindrance {
        reason: AUTHORITIES_REFUSED,
        note: format!(
            "the authorities in the operator's ca.crt verify no member, and those in force do ({why}): the latter stay; \
             correct the ConfigMap kube-root-ca.crt (--root-ca-file of kube-controller-manager)"
        ),
    });
    facts
}

/// The facts once [`settle`] has kept the authorities: where the spec asks for nothing else, the members are judged by what is
/// in force.
pub fn judged_by_what_is_in_force(mut facts: Facts, server_name: &str) -> Facts {
    let is_same = facts.current.document.as_ref().is_some_and(|document| {
        document.tls.ca_bundle == facts.authorities && document.tls.server_name == server_name
    });
    if is_same && let Some(healths) = facts.healths_by_last_good.take() {
        facts.healths = healths;
    }
    facts
}

/// Rejects a server name that no certificate of a member in force has, while they have the one in force.
pub fn check_server_name(spec: &ApiserverPoolSpec, facts: &Facts) -> Result<(), Rejection> {
    let name = &spec.health_check.tls_server_name;
    let document = facts.current.document.as_ref();
    let Some(document) = document.filter(|document| document.tls.server_name != *name) else {
        return Ok(());
    };
    if !is_only_in_force_good(facts) {
        return Ok(());
    }
    Err(Rejection::ServerName {
        name: name.clone(),
        in_force: document.tls.server_name.clone(),
        why: why(facts),
    })
}

/// Whether the operator verifies a member in force by what is in force, and none by what is asked for.
fn is_only_in_force_good(facts: &Facts) -> bool {
    let in_force = facts.healths_by_last_good.as_ref();
    in_force.is_some_and(|healths| verifies_one(healths, facts)) && !verifies_one(&facts.healths, facts)
}

fn verifies_one(healths: &Healths, facts: &Facts) -> bool {
    probed(healths, facts).any(Health::is_verified)
}

/// What the operator's own probes have found at the addresses of the members in force.
fn probed<'a>(healths: &'a Healths, facts: &'a Facts) -> impl Iterator<Item = &'a Health> {
    let sockets = facts.current.members.iter().flat_map(Member::sockets);
    sockets.filter_map(move |socket| healths.get(&socket))
}

/// What is wrong with the certificate of a member, by what is asked for.
fn why(facts: &Facts) -> String {
    let told = probed(&facts.healths, facts).find(|health| health.is_reached && !health.message.is_empty());
    told.map_or_else(
        || "none has answered a probe by it yet".to_owned(),
        |health| health.message.clone(),
    )
}
