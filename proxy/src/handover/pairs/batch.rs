//! The form of a batch: a sealed file with a text that describes the connections, and after it the bytes that were read and
//! not yet written. The sockets travel beside it, the client's before its upstream's, in the order of the text.
//!
//! A field that only a later release knows is ignored. Where it must not be, that release raises the protocol's version.

use std::{
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{FULL, MAX_PAIRS};
use crate::{
    balance::PathKey,
    connection::transfer::{Given, Passport, Progress, Sockets},
    handover::sealed,
    relay::{DirectionState, PairState, Phase},
};

/// The largest file that is read: what fills a batch, the last pair's two tails, and the text.
const LARGEST: usize = 2 * FULL;

/// What the name of the file in memory is, as `/proc/PID/fd` shows it.
const NAME: &str = "trivet-pairs";

/// Why a batch cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is no description of connections.
    #[error("the description of the connections cannot be read")]
    Text(#[from] serde_json::Error),
    /// The file does not hold what the text says.
    #[error("the file holds {bytes} bytes of connections, and its text says {announced}")]
    OtherLength {
        /// What the text says.
        announced: u64,
        /// What is there.
        bytes: u64,
    },
    /// Other sockets came than those that the text describes.
    #[error("{announced} sockets belong to the batch, and {present} are there")]
    Sockets {
        /// How many belong to it.
        announced: usize,
        /// How many are there.
        present: usize,
    },
    /// More connections than a batch may hold.
    #[error("the batch has {count} connections, more than {MAX_PAIRS}")]
    TooMany {
        /// How many.
        count: usize,
    },
    /// Its file cannot be used.
    #[error("failed to use the file of a batch")]
    File(#[from] sealed::Error),
}

/// A connection in the text.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    client: SocketAddr,
    listener: SocketAddr,
    /// Only a process that knows extra listeners is given their connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    extra_listener: Option<String>,
    #[serde(default)]
    age_milliseconds: u64,
    /// None while the connection is being opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    upstream: Option<UpstreamEntry>,
    /// While the connection is being opened, what the client has said.
    #[serde(default)]
    sent: DirectionEntry,
    #[serde(default)]
    received: DirectionEntry,
    #[serde(default)]
    unanswered: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct UpstreamEntry {
    member: String,
    address: SocketAddr,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first_byte_milliseconds: Option<u64>,
    #[serde(default)]
    hedged: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    drains_within_milliseconds: Option<u64>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DirectionEntry {
    #[serde(default)]
    moved: u64,
    /// How many bytes of the file are its.
    #[serde(default)]
    held: u64,
    #[serde(default)]
    phase: Phase,
}

/// A batch as it is sent.
#[derive(Debug)]
pub struct Written {
    /// The file.
    pub file: OwnedFd,
    /// The length of the text.
    pub text: u64,
    /// The length of the bytes.
    pub bytes: u64,
}

/// How many bytes of a connection go into the file.
pub fn held(passport: &Passport) -> usize {
    let (sent, received) = bytes_of(passport);
    sent.len() + received.len()
}

/// How many sockets it has.
pub fn sockets(passport: &Passport) -> usize {
    match passport.progress {
        Progress::Opening { .. } => 1,
        Progress::Established { .. } => 2,
    }
}

/// The sockets of a connection in their order.
pub fn descriptors(sockets: &Sockets) -> impl Iterator<Item = BorrowedFd<'_>> {
    let upstream = sockets.upstream.as_ref();
    [sockets.client.as_fd()]
        .into_iter()
        .chain(upstream.map(AsFd::as_fd))
}

/// Writes these connections.
pub fn write<'a>(passports: impl Iterator<Item = &'a Passport> + Clone) -> Result<Written, Error> {
    let entries: Vec<_> = passports.clone().map(Entry::of).collect();
    let text = serde_json::to_vec(&entries)?;
    let bytes: Vec<_> = passports
        .flat_map(|passport| <[_; 2]>::from(bytes_of(passport)))
        .collect();
    let content = [text.as_slice()]
        .into_iter()
        .chain(bytes.iter().map(|bytes| &bytes[..]));
    Ok(Written {
        file: sealed::write(NAME, content).map_err(sealed::Error::from)?,
        text: text.len() as u64,
        bytes: bytes.iter().map(|bytes| bytes.len() as u64).sum(),
    })
}

/// Reads the connections of a batch.
pub fn read(file: OwnedFd, text: u64, bytes: u64) -> Result<Vec<Passport>, Error> {
    let content = sealed::read(file, text.saturating_add(bytes), LARGEST)?;
    // No longer than the content, which has the sum of both.
    let text = usize::try_from(text).unwrap_or(usize::MAX);
    decode(content.into(), text)
}

/// Reads the connections from the content of the file, of which so many bytes are the text.
pub fn decode(mut content: Bytes, text: usize) -> Result<Vec<Passport>, Error> {
    let text = content.split_to(text.min(content.len()));
    let entries: Vec<Entry> = serde_json::from_slice(&text)?;
    let count = entries.len();
    if count > MAX_PAIRS {
        return Err(Error::TooMany { count });
    }
    let lengths = entries
        .iter()
        .flat_map(|entry| [entry.sent.held, entry.received.held]);
    let announced = lengths.fold(0_u64, u64::saturating_add);
    let bytes = content.len() as u64;
    if announced != bytes {
        return Err(Error::OtherLength { announced, bytes });
    }
    Ok(entries
        .into_iter()
        .map(|entry| entry.passport(&mut content))
        .collect())
}

fn bytes_of(passport: &Passport) -> (Bytes, Bytes) {
    match &passport.progress {
        Progress::Opening { heard } => (heard.clone(), Bytes::new()),
        Progress::Established { pair, .. } => (pair.sent.tail.clone(), pair.received.tail.clone()),
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Entry {
    fn of(passport: &Passport) -> Self {
        let base = Self {
            client: passport.client,
            listener: passport.listener,
            extra_listener: passport.extra_listener.clone(),
            age_milliseconds: milliseconds(passport.age),
            upstream: None,
            sent: DirectionEntry::default(),
            received: DirectionEntry::default(),
            unanswered: 0,
        };
        match &passport.progress {
            Progress::Opening { heard } => Self {
                sent: DirectionEntry {
                    held: heard.len() as u64,
                    ..DirectionEntry::default()
                },
                ..base
            },
            Progress::Established { upstream, pair } => Self {
                upstream: Some(UpstreamEntry {
                    member: upstream.path.member.clone(),
                    address: upstream.path.address,
                    first_byte_milliseconds: upstream.first_byte.map(milliseconds),
                    hedged: upstream.hedged,
                    drains_within_milliseconds: upstream.drains_within.map(milliseconds),
                }),
                sent: DirectionEntry::of(&pair.sent),
                received: DirectionEntry::of(&pair.received),
                unanswered: pair.unanswered,
                ..base
            },
        }
    }

    /// Its bytes are the next ones of the content, which has them all.
    fn passport(self, content: &mut Bytes) -> Passport {
        let sent = self.sent.state(content);
        let received = self.received.state(content);
        let progress = match self.upstream {
            None => Progress::Opening { heard: sent.tail },
            Some(UpstreamEntry {
                member,
                address,
                first_byte_milliseconds,
                hedged,
                drains_within_milliseconds,
            }) => Progress::Established {
                upstream: Given {
                    path: PathKey { member, address },
                    first_byte: first_byte_milliseconds.map(Duration::from_millis),
                    hedged,
                    drains_within: drains_within_milliseconds.map(Duration::from_millis),
                },
                pair: PairState {
                    sent,
                    received,
                    unanswered: self.unanswered,
                },
            },
        };
        Passport {
            client: self.client,
            listener: self.listener,
            extra_listener: self.extra_listener,
            age: Duration::from_millis(self.age_milliseconds),
            progress,
        }
    }
}

impl DirectionEntry {
    fn of(state: &DirectionState) -> Self {
        Self {
            moved: state.moved,
            held: state.tail.len() as u64,
            phase: state.phase,
        }
    }

    fn state(&self, content: &mut Bytes) -> DirectionState {
        let held = usize::try_from(self.held)
            .unwrap_or(usize::MAX)
            .min(content.len());
        let tail = content.split_to(held);
        DirectionState {
            moved: self.moved,
            // A slice would keep the whole batch for as long as the slowest reader of it takes.
            tail: Bytes::copy_from_slice(&tail),
            phase: self.phase,
        }
    }
}
