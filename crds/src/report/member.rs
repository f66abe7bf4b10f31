//! A member as one node reaches it.

use serde::{Deserialize, Serialize};

/// The most addresses of listeners that a certificate is said not to cover.
pub const MAX_UNCOVERED: usize = 8;

/// A member as one node reaches it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ReportedMember {
    /// The member's name.
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 253)))]
    pub name: String,
    /// The address that the node uses, IP and port.
    #[cfg_attr(feature = "crd", schemars(length(min = 1, max = 64)))]
    pub address: String,
    /// Its place in the document that the proxy follows. Active: it gets connections. Draining, Disabled: its owner says so.
    /// Removed: the document does not have it, and connections to it are left. LastResort: it is of an earlier document, or
    /// a further endpoint, and serves while no other answers. Absent in reports of earlier releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standing: Option<ReportedStanding>,
    /// Up: it gets connections. Unready: it answers, and gets connections only while none is Up. Down: it does not answer.
    pub health: ReportedHealth,
    /// What the last probe brought. Verified: an answer under a certificate of the cluster. Unverified: an answer under
    /// another one. NoAnswer: none. Absent before the first probe, and in reports of earlier releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_answer: Option<LastAnswer>,
    /// How long the last probe took; absent where it had no answer.
    #[cfg_attr(feature = "crd", schemars(range(min = 0)))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_probe_milliseconds: Option<u32>,
    /// The connections of this node to it when the report was written, those of processes that hand over or end too.
    #[cfg_attr(feature = "crd", schemars(range(min = 0)))]
    #[serde(default)]
    pub connections: u32,
    /// How many of them must end before it is switched off: all of them unless it is Active, and those over an address
    /// that it no longer has.
    #[cfg_attr(feature = "crd", schemars(range(min = 0)))]
    #[serde(default, skip_serializing_if = "crate::is_default")]
    pub leaving_connections: u32,
    /// Why it is not Up; absent if it is.
    #[cfg_attr(feature = "crd", schemars(length(max = 512)))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub last_error: String,
    /// The certificate that it has shown to the last probe; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<ReportedCertificate>,
}

/// The place of a member in the document of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub enum ReportedStanding {
    #[allow(missing_docs, reason = "the field's documentation tells them apart")]
    Active,
    #[allow(missing_docs, reason = "the field's documentation tells them apart")]
    Draining,
    #[allow(missing_docs, reason = "the field's documentation tells them apart")]
    Removed,
    #[allow(missing_docs, reason = "the field's documentation tells them apart")]
    LastResort,
    #[allow(missing_docs, reason = "the field's documentation tells them apart")]
    Disabled,
    #[allow(missing_docs, reason = "a word of a later release")]
    #[cfg_attr(feature = "crd", schemars(skip))]
    #[serde(other)]
    Unknown,
}

/// The health of a member as one node sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub enum ReportedHealth {
    #[allow(missing_docs, reason = "the field's documentation tells the states apart")]
    Up,
    #[allow(missing_docs, reason = "the field's documentation tells the states apart")]
    Unready,
    #[allow(missing_docs, reason = "the field's documentation tells the states apart")]
    Down,
}

impl ReportedHealth {
    /// The word in the API and in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "Up",
            Self::Unready => "Unready",
            Self::Down => "Down",
        }
    }
}

/// What a probe brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub enum LastAnswer {
    #[allow(missing_docs, reason = "the field's documentation tells them apart")]
    Verified,
    #[allow(missing_docs, reason = "the field's documentation tells them apart")]
    Unverified,
    #[allow(missing_docs, reason = "the field's documentation tells them apart")]
    NoAnswer,
    #[allow(missing_docs, reason = "a word of a later release")]
    #[cfg_attr(feature = "crd", schemars(skip))]
    #[serde(other)]
    Unknown,
}

/// A certificate as a member has shown it to a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ReportedCertificate {
    /// Verified: an authority of the cluster has signed it for healthCheck.tlsServerName, and it is valid by the clock of
    /// the node. Expired, NotYetValid: but for its dates, or for that clock. Untrusted: anything else.
    pub state: CertificateState,
    /// The end of its validity; absent where it cannot be read.
    #[cfg_attr(
        feature = "crd",
        schemars(length(max = 40), extend("format" = "date-time"))
    )]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub not_after: String,
    /// The addresses of the pool's listeners that are not among its names. A client that is given such an address must be
    /// given tls-server-name too.
    #[cfg_attr(feature = "crd", schemars(length(max = 8), inner(length(max = 64))))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uncovered_addresses: Vec<String>,
}

/// Whether a certificate verifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub enum CertificateState {
    #[allow(missing_docs, reason = "the field's documentation tells the states apart")]
    Verified,
    #[allow(missing_docs, reason = "the field's documentation tells the states apart")]
    Expired,
    #[allow(missing_docs, reason = "the field's documentation tells the states apart")]
    NotYetValid,
    #[allow(missing_docs, reason = "the field's documentation tells the states apart")]
    Untrusted,
    #[allow(missing_docs, reason = "a word of a later release")]
    #[cfg_attr(feature = "crd", schemars(skip))]
    #[serde(other)]
    Unknown,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_member_of_an_earlier_release_is_read_and_words_of_a_later_one_are_left_open() {
        let earlier = json!({ "name": "cp1", "address": "10.0.0.1:6443", "health": "Up", "connections": 3 });
        let member: ReportedMember = serde_json::from_value(earlier.clone()).unwrap();
        assert_eq!((member.standing, member.last_answer), (None, None));
        assert_eq!(
            serde_json::to_value(&member).unwrap(),
            earlier,
            "and is written as it was"
        );

        let mut later = earlier;
        later["standing"] = "Resting".into();
        later["lastAnswer"] = "Guessed".into();
        later["certificate"] = json!({ "state": "Revoked", "serial": 7 });
        later["aField"] = json!([1]);
        let member: ReportedMember = serde_json::from_value(later).unwrap();
        assert_eq!(member.standing, Some(ReportedStanding::Unknown));
        assert_eq!(member.last_answer, Some(LastAnswer::Unknown));
        assert_eq!(member.certificate.unwrap().state, CertificateState::Unknown);
    }
}
