//! What makes a standby warm: the document in force and what the node has learned about its members.
//!
//! It may be larger than a record, so it travels as a [`sealed`] file. The record ([`super::record::Snapshot`]) says how long
//! the text in it is.

use std::{collections::BTreeSet, net::SocketAddr, os::fd::OwnedFd};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::sealed;
use crate::balance::PathKey;

/// The largest snapshot. A ConfigMap holds 1 MiB, so the document in force always fits.
pub const MAX_SNAPSHOT: usize = 4 * 1024 * 1024;

/// What the name of the file in memory is, as `/proc/PID/fd` shows it.
const NAME: &str = "trivet-snapshot";

/// Why a snapshot cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is larger than [`MAX_SNAPSHOT`].
    #[error("the snapshot has {bytes} bytes, more than {MAX_SNAPSHOT}")]
    TooLarge {
        /// Its size.
        bytes: u64,
    },
    /// Its content is no snapshot.
    #[error("the snapshot cannot be read")]
    Content(#[from] serde_json::Error),
    /// Its file cannot be used.
    #[error("failed to use the file of a snapshot")]
    File(#[from] sealed::Error),
}

/// What makes a standby warm.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WarmState {
    /// The text of the document in force; none if there is no document yet.
    pub document: Option<String>,
    /// How often a stale document was followed, see [`crate::document::InForce::replacements`].
    #[serde(default)]
    pub replacements: u64,
    /// The texts of earlier documents, the latest first.
    #[serde(default)]
    pub earlier: Vec<String>,
    /// The paths that have given this node a verified answer.
    #[serde(default, with = "proven")]
    pub proven: BTreeSet<PathKey>,
    /// The node's zone, which no static pod is told; empty if unknown.
    #[serde(default)]
    pub zone: String,
    /// The fields that a later release writes.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl WarmState {
    /// Writes it to a sealed file in memory. Returns its length too. The oldest of the earlier documents are left out if
    /// they do not fit.
    pub fn write(&self) -> Result<(OwnedFd, u64), Error> {
        let text = self.encode()?;
        let file = sealed::write(NAME, [text.as_slice()]).map_err(sealed::Error::from)?;
        Ok((file, text.len() as u64))
    }

    /// Reads it from a sealed file of this length.
    pub fn read(descriptor: OwnedFd, announced: u64) -> Result<Self, Error> {
        Self::decode(&sealed::read(descriptor, announced, MAX_SNAPSHOT)?)
    }

    /// Reads it from its text.
    pub fn decode(text: &[u8]) -> Result<Self, Error> {
        Ok(serde_json::from_slice(text)?)
    }

    /// Its text, at most [`MAX_SNAPSHOT`] bytes.
    pub fn encode(&self) -> Result<Vec<u8>, Error> {
        let mut text = serde_json::to_vec(self)?;
        let mut fewer = self.clone();
        while text.len() > MAX_SNAPSHOT {
            if fewer.earlier.pop().is_none() {
                let bytes = text.len() as u64;
                return Err(Error::TooLarge { bytes });
            }
            text = serde_json::to_vec(&fewer)?;
        }
        Ok(text)
    }
}

/// The form of proven paths: a list of members with one address each.
mod proven {
    use serde::{Deserializer, Serializer};

    use super::{BTreeSet, Deserialize, PathKey, Serialize, SocketAddr};

    #[derive(Serialize, Deserialize)]
    struct Entry<Name> {
        member: Name,
        address: SocketAddr,
    }

    pub(super) fn serialize<S: Serializer>(
        proven: &BTreeSet<PathKey>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(proven.iter().map(|path| Entry {
            member: path.member.as_str(),
            address: path.address,
        }))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeSet<PathKey>, D::Error> {
        let entries = Vec::<Entry<String>>::deserialize(deserializer)?.into_iter();
        Ok(entries
            .map(|entry| PathKey {
                member: entry.member,
                address: entry.address,
            })
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;

    fn warm_state() -> WarmState {
        let path = |member: &str, address: &str| PathKey {
            member: member.to_owned(),
            address: address.parse().unwrap(),
        };
        WarmState {
            document: Some(r#"{"revision": 7, "text": "\u00e9"}"#.to_owned()),
            replacements: 1,
            earlier: vec!["six".to_owned(), "five".to_owned()],
            proven: BTreeSet::from([path("cp1", "10.0.0.1:6443"), path("cp1", "[fd00::1]:6443")]),
            zone: "a".to_owned(),
            other: Map::new(),
        }
    }

    #[test]
    fn a_snapshot_is_read_as_it_was_written() {
        for warm_state in [warm_state(), WarmState::default()] {
            let (file, bytes) = warm_state.write().unwrap();
            for _receiver in 0..2 {
                let received = file.try_clone().unwrap();
                assert_eq!(WarmState::read(received, bytes).unwrap(), warm_state);
            }
        }
    }

    #[test]
    fn documents_that_do_not_fit_are_left_out_the_oldest_first() {
        let large = WarmState {
            earlier: (0..6).map(|nth| nth.to_string().repeat(1 << 20)).collect(),
            ..warm_state()
        };
        let (file, bytes) = large.write().unwrap();
        let read = WarmState::read(file, bytes).unwrap();
        assert_eq!(read.document, large.document);
        assert_eq!(read.earlier, large.earlier[..3]);
        let too_large = WarmState {
            document: Some("7".repeat(MAX_SNAPSHOT)),
            ..large
        };
        let refused = too_large.write().unwrap_err();
        assert!(matches!(refused, Error::TooLarge { .. }), "{refused:?}");
    }

    #[test]
    fn fields_of_a_later_release_are_kept_and_absent_ones_have_defaults() {
        let text = br#"{"document": null, "health": [{"member": "cp1", "state": "Up"}]}"#;
        let read = WarmState::decode(text).unwrap();
        assert_eq!(
            read,
            WarmState {
                other: read.other.clone(),
                ..WarmState::default()
            }
        );
        let again = WarmState::decode(&read.encode().unwrap()).unwrap();
        assert_eq!(again.other["health"][0]["state"], "Up");
    }

    #[test]
    fn what_is_no_snapshot_is_refused() {
        for text in [
            "",
            "[]",
            "{",
            r#"{"earlier": 1}"#,
            r#"{"proven": [{"member": "cp1"}]}"#,
        ] {
            let refused = WarmState::decode(text.as_bytes()).unwrap_err();
            assert!(matches!(refused, Error::Content(_)), "{refused:?}");
        }
    }

    proptest! {
        #[test]
        fn every_snapshot_survives_the_way(
            document in any::<Option<String>>(),
            replacements in any::<u64>(),
            earlier in prop::collection::vec(any::<String>(), 0..5),
            proven in prop::collection::btree_set((any::<String>(), any::<(IpAddr, u16)>()), 0..9),
            zone in any::<String>(),
        ) {
            let proven = proven.into_iter().map(|(member, address)| PathKey { member, address: address.into() }).collect();
            let warm_state = WarmState { document, replacements, earlier, proven, zone, other: Map::new() };
            prop_assert_eq!(WarmState::decode(&warm_state.encode().unwrap()).unwrap(), warm_state);
        }
    }
}
