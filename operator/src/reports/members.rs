//! A member as a node reports it: what of it the operator uses.

use std::net::SocketAddr;

use k8s_openapi::jiff::Timestamp;
use trivet_crds::report::{
    CertificateState, LastAnswer, ReportedCertificate, ReportedHealth, ReportedMember, ReportedStanding,
};

/// The longest quoted words of a proxy, in characters.
const WORDS_LIMIT: usize = 200;

/// A member as a node reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenMember {
    /// Its name.
    pub name: String,
    /// The address that the node uses, if it can be read.
    pub address: Option<SocketAddr>,
    /// Its place in the document that the proxy follows; none by a proxy of an earlier release.
    pub standing: Option<ReportedStanding>,
    /// Its health there.
    pub health: ReportedHealth,
    /// What the last probe brought; none by a proxy of an earlier release.
    pub last_answer: Option<LastAnswer>,
    /// The connections of the node to it.
    pub connections: u32,
    /// How many of them must end before it is switched off.
    pub leaving_connections: u32,
    /// Why it is not Up.
    pub last_error: String,
    /// The certificate that it has shown.
    pub certificate: Option<SeenCertificate>,
}

/// A certificate that a member has shown to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenCertificate {
    /// Whether it verifies there.
    pub state: CertificateState,
    /// The end of its validity, if it can be read.
    pub not_after: Option<Timestamp>,
    /// The addresses of listeners that it does not cover.
    pub uncovered: Vec<String>,
}

impl From<ReportedMember> for SeenMember {
    fn from(member: ReportedMember) -> Self {
        Self {
            address: member.address.parse().ok(),
            name: member.name,
            standing: member.standing,
            health: member.health,
            last_answer: member.last_answer,
            connections: member.connections,
            leaving_connections: member.leaving_connections,
            last_error: member.last_error.chars().take(WORDS_LIMIT).collect(),
            certificate: member.certificate.map(SeenCertificate::from),
        }
    }
}

impl From<ReportedCertificate> for SeenCertificate {
    fn from(certificate: ReportedCertificate) -> Self {
        Self {
            state: certificate.state,
            not_after: certificate.not_after.parse().ok(),
            uncovered: certificate.uncovered_addresses,
        }
    }
}

impl SeenMember {
    /// Whether an apiserver of the cluster has answered the last probe of the node. A proxy of an earlier release says so
    /// of what is Up alone.
    pub fn is_verified(&self) -> bool {
        match self.last_answer {
            Some(LastAnswer::Verified) => true,
            Some(LastAnswer::Unverified | LastAnswer::NoAnswer) => false,
            Some(LastAnswer::Unknown) | None => self.health == ReportedHealth::Up,
        }
    }

    /// Whether it should be Up on the node and is not. A proxy of an earlier release does not say what should.
    pub fn is_ailing(&self) -> bool {
        let is_active = matches!(self.standing, Some(ReportedStanding::Active) | None);
        is_active && self.health != ReportedHealth::Up
    }

    /// Whether the pool's status says the same of both: not of the counts.
    pub fn says_the_same(&self, other: &Self) -> bool {
        let facts = |member: &Self| {
            (
                member.address,
                member.standing,
                member.health,
                member.last_answer,
                member.leaving_connections > 0,
            )
        };
        self.name == other.name && facts(self) == facts(other) && self.certificate == other.certificate
    }
}
