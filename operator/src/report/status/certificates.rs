//! The condition CertificateMatches: what the certificates say that members have shown to the nodes' probes.
//!
//! It is information, and no part of Ready: a proxy passes TLS through, and only the client decides what it accepts.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;
use trivet_crds::pool::PoolMemberState;
use trivet_crds::report::CertificateState;

use super::Seen;
use super::undated::{Holds, Undated};
use crate::reports::members::SeenCertificate;
use crate::reports::words::listed;

/// How long before its end a certificate is warned of: longer than any holiday, and kubeadm renews at each upgrade.
const WARN_BEFORE_SECONDS: i64 = 30 * 24 * 60 * 60;

/// A message tells of up to this many members for each kind of fault.
const MEMBERS_LIMIT: usize = 5;

/// A fault of certificates, the gravest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Expired,
    NotYetValid,
    ClockSkew,
    Untrusted,
    ExpiresSoon,
    NamesMissing,
}

impl Fault {
    fn reason(self) -> &'static str {
        match self {
            Self::Expired => EXPIRED,
            Self::NotYetValid => NOT_YET_VALID,
            Self::ClockSkew => "ClockSkew",
            Self::Untrusted => "Untrusted",
            Self::ExpiresSoon => EXPIRES_SOON,
            Self::NamesMissing => "NamesMissing",
        }
    }
}

/// The reason where a certificate has expired.
pub(in crate::report) const EXPIRED: &str = "Expired";

/// The reason where one is not valid yet.
pub(in crate::report) const NOT_YET_VALID: &str = "NotYetValid";

/// The reason where one expires within 30 days.
pub(in crate::report) const EXPIRES_SOON: &str = "ExpiresSoon";

/// What the nodes have seen of one member's certificates.
type Shown<'a> = [(&'a str, &'a SeenCertificate)];

/// The condition.
pub(super) fn matches(seen: &Seen<'_>) -> Undated {
    let shown = shown(seen);
    if shown.is_empty() {
        let message = "no node has reported a certificate of a member yet";
        return Undated::unknown("NotReported", message.to_owned());
    }
    let mut faults: BTreeMap<Fault, Vec<String>> = BTreeMap::new();
    let mut uncovered = BTreeSet::new();
    for (member, certificates) in &shown {
        for (fault, words) in dates(member, certificates, seen.now) {
            faults.entry(fault).or_default().push(words);
        }
        if let Some(words) = untrusted(member, certificates, seen) {
            faults.entry(Fault::Untrusted).or_default().push(words);
        }
        // Thousands of nodes tell of the same few addresses: they are not collected to be sorted.
        let mut lacking = BTreeSet::new();
        lacking.extend(
            certificates
                .iter()
                .flat_map(|(_, certificate)| &certificate.uncovered),
        );
        if !lacking.is_empty() {
            let names: Vec<_> = lacking.iter().map(|name| name.as_str()).collect();
            let words = format!("{member} (lacks {})", names.join(", "));
            faults.entry(Fault::NamesMissing).or_default().push(words);
            uncovered.extend(lacking);
        }
    }
    let Some(gravest) = faults.keys().next() else {
        return Undated {
            holds: Holds::True,
            reason: "Matches",
            message: "the certificates of all members are valid and cover the addresses of the listeners"
                .to_owned(),
        };
    };
    let words = faults.iter().map(|(fault, words)| match fault {
        Fault::NamesMissing => names_missing(words, &uncovered, seen),
        Fault::Expired | Fault::NotYetValid | Fault::ClockSkew | Fault::Untrusted | Fault::ExpiresSoon => {
            some(words, "; ")
        }
    });
    Undated::no(gravest.reason(), words.collect::<Vec<_>>().join("; "))
}

/// What the Ready nodes have seen, by member. Of a disabled one nobody cares.
fn shown<'a>(seen: &Seen<'a>) -> BTreeMap<&'a str, Vec<(&'a str, &'a SeenCertificate)>> {
    let members = seen.plan.members.iter();
    let used: BTreeSet<_> = members
        .filter(|member| member.state != PoolMemberState::Disabled)
        .map(|member| member.name.as_str())
        .collect();
    let mut shown: BTreeMap<&str, Vec<_>> = BTreeMap::new();
    for report in seen.fleet.of_ready_nodes() {
        for member in report
            .members
            .iter()
            .filter(|member| used.contains(member.name.as_str()))
        {
            if let Some(certificate) = &member.certificate {
                let of_member = shown.entry(&member.name).or_default();
                of_member.push((report.node.as_str(), certificate));
            }
        }
    }
    shown
}

/// What is wrong with the dates. Nodes that do not agree have different clocks.
fn dates(member: &str, certificates: &Shown<'_>, now: Timestamp) -> Vec<(Fault, String)> {
    let nodes_with = |state| -> Vec<String> {
        let nodes = certificates
            .iter()
            .filter(|(_, certificate)| certificate.state == state);
        nodes.map(|(node, _)| (*node).to_owned()).collect()
    };
    let verified = certificates
        .iter()
        .filter(|(_, certificate)| certificate.state == CertificateState::Verified)
        .count();
    let mut faults = Vec::new();
    for (state, fault, is, clock) in [
        (CertificateState::Expired, Fault::Expired, "has expired", "ahead"),
        (
            CertificateState::NotYetValid,
            Fault::NotYetValid,
            "is not valid yet",
            "behind",
        ),
    ] {
        let nodes = nodes_with(state);
        if nodes.is_empty() {
            continue;
        }
        if verified > nodes.len() {
            let words = format!(
                "for {} the certificate of {member} {is}, and for {verified} other nodes it is valid: see whether the \
                 clock there is {clock}",
                listed(nodes.into_iter())
            );
            faults.push((Fault::ClockSkew, words));
        } else {
            let end = end(certificates).filter(|_| fault == Fault::Expired);
            let end = end.map_or_else(String::new, |end| format!(" on {}", day(end)));
            let words = format!(
                "the certificate of {member} {is}{end}: clients refuse it; renew it, or correct the clocks of the nodes"
            );
            faults.push((fault, words));
        }
    }
    let ends_soon = |end: &Timestamp| {
        let left = end.as_second().saturating_sub(now.as_second());
        (0..=WARN_BEFORE_SECONDS).contains(&left)
    };
    if let Some(end) = end(certificates).filter(ends_soon).filter(|_| faults.is_empty()) {
        let words = format!("the certificate of {member} expires on {}: renew it", day(end));
        faults.push((Fault::ExpiresSoon, words));
    }
    faults
}

/// The first end of validity: a member that has renewed its certificate shows the new one on new connections.
fn end(certificates: &Shown<'_>) -> Option<Timestamp> {
    let ends = certificates
        .iter()
        .filter_map(|(_, certificate)| certificate.not_after);
    ends.min()
}

fn day(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d").to_string()
}

fn untrusted(member: &str, certificates: &Shown<'_>, seen: &Seen<'_>) -> Option<String> {
    let nodes: Vec<_> = certificates
        .iter()
        .filter(|(_, certificate)| certificate.state == CertificateState::Untrusted)
        .map(|(node, _)| (*node).to_owned())
        .collect();
    let first = nodes.first()?.clone();
    let mut reports = seen.fleet.of_ready_nodes().filter(|report| report.node == first);
    let members = reports.next().map(|report| &report.members);
    let why = members.and_then(|members| members.iter().find(|seen| seen.name == member));
    let why = why.map_or("", |member| member.last_error.as_str());
    Some(format!(
        "the certificate of {member} does not verify for {}: {why}",
        listed(nodes.into_iter())
    ))
}

fn names_missing(members: &[String], uncovered: &BTreeSet<&String>, seen: &Seen<'_>) -> String {
    let names: Vec<_> = uncovered.iter().map(|name| name.as_str()).collect();
    let endpoints = seen.plan.endpoints.join(" and ");
    format!(
        "certificates do not have the addresses of the listeners: {}; in kubeconfigs that name {endpoints} set \
         tls-server-name: {}, or issue the certificates anew with {} too (certSANs of kubeadm's apiServer)",
        some(members, ", "),
        seen.server_name,
        names.join(" and ")
    )
}

/// The first of them, and how many more there are.
fn some(words: &[String], between: &str) -> String {
    let named: Vec<_> = words.iter().take(MEMBERS_LIMIT).map(String::as_str).collect();
    let named = named.join(between);
    match words.len().saturating_sub(MEMBERS_LIMIT) {
        0 => named,
        more => format!("{named}{between}and {more} more"),
    }
}
