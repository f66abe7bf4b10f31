//! The trailer that shows that a holder of the group's key sent an advertisement (draft-cassen-vrrp-auth-hmac, as keepalived
//! 2.4.3 has it in `auth_hmac`): 28 bytes behind the addresses.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | 1: HMAC-SHA256, truncated to 128 bits |
//! | 1 | the number of the key |
//! | 2 | 0 |
//! | 8 | the sender's [`Stamp`] |
//! | 16 | the signature |
//!
//! The signature covers a header of 20 bytes (the versions of IP and VRRP, the VRID, 0, the source's address filled up with
//! zeros), the message with 0 in the place of its checksum, and the trailer with 0 in the place of the signature. So no trailer
//! fits the message of another sender, virtual router or family. The destination is not covered: each peer gets the same
//! trailer. keepalived 2.4.0 and 2.4.1 sign otherwise; they understand nobody else.

#[cfg(test)]
mod tests;

use std::{fmt, hint, num::NonZeroU8, ops::RangeInclusive};

use ring::hmac;

use super::{
    address::Address,
    advertisement::{HEAD, VERSION},
    sequence::Stamp,
};

/// How many bytes a trailer has.
pub const TRAILER: usize = 28;

/// How many bytes the secret of a key may have: keepalived's bounds. Fewer would weaken the signature, more are hashed first.
pub const SECRET: RangeInclusive<usize> = 32..=64;

/// HMAC-SHA256, truncated to 128 bits.
const TYPE: u8 = 1;

/// The bytes of a message before its checksum.
type Head = [u8; HEAD - 2];

/// The bytes of a trailer before the signature.
type Prefix = [u8; TRAILER - size_of::<Signature>()];

/// What is sent of the HMAC.
type Signature = [u8; 16];

/// A secret that the members of a group share, and its number. A group that changes its key has both for a while, and signs
/// with one.
#[derive(Clone)]
pub struct Key {
    number: NonZeroU8,
    secret: hmac::Key,
}

impl Key {
    /// A key with this number, 1 to 255, and this secret: see [`SECRET`].
    pub fn try_new(number: u8, secret: &[u8]) -> Result<Self, KeyError> {
        let bytes = secret.len();
        if !SECRET.contains(&bytes) {
            return Err(KeyError::Length { bytes });
        }
        Ok(Self {
            number: NonZeroU8::new(number).ok_or(KeyError::Number)?,
            secret: hmac::Key::new(hmac::HMAC_SHA256, secret),
        })
    }

    /// The number by which a trailer names it.
    pub fn number(&self) -> u8 {
        self.number.get()
    }
}

/// Shows the number only.
impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Key").field(&self.number).finish()
    }
}

/// Why a key cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Its number is 0.
    #[error("the number of a key is 1 to 255, not 0")]
    Number,
    /// Its secret is too short or too long.
    #[error("the secret of a key has {} to {} bytes, not {bytes}", SECRET.start(), SECRET.end())]
    Length {
        /// The length.
        bytes: usize,
    },
}

/// Why nothing shows that a holder of a key sent a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// It has no trailer. While a group begins to sign, its members accept this.
    #[error("the advertisement is not signed")]
    Missing,
    /// Its trailer is of another form.
    #[error("the type of the trailer is {found}, not {TYPE}")]
    Type {
        /// The type.
        found: u8,
    },
    /// The reserved bytes of its trailer are not 0.
    #[error("the reserved bytes of the trailer are not 0")]
    Reserved,
    /// It is signed with a key that the receiver does not have.
    #[error("the advertisement is signed with key {number}, which is not known")]
    UnknownKey {
        /// The key's number.
        number: u8,
    },
    /// The signature is not of this message and this source.
    #[error("the signature is wrong")]
    Signature,
}

impl Rejection {
    /// The word for conditions, logs and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Missing => "Unsigned",
            Self::Type { .. } => "TrailerType",
            Self::Reserved => "TrailerReserved",
            Self::UnknownKey { .. } => "UnknownKey",
            Self::Signature => "Signature",
        }
    }
}

/// A trailer that has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trailer<'a> {
    prefix: &'a Prefix,
    signature: &'a Signature,
}

impl<'a> Trailer<'a> {
    /// None if these are not as many bytes as a trailer has.
    pub(super) fn split(bytes: &'a [u8]) -> Option<Self> {
        let (prefix, signature) = bytes.split_first_chunk()?;
        let signature = signature.try_into().ok()?;
        Some(Self { prefix, signature })
    }

    /// The sender's stamp, if one of these keys signed this message of this source.
    pub(super) fn verify<A: Address>(
        &self,
        keys: &[Key],
        source: A,
        head: Head,
        addresses: &[u8],
    ) -> Result<Stamp, Rejection> {
        let [found, number, reserved_1, reserved_2, stamp @ ..] = *self.prefix;
        if found != TYPE {
            return Err(Rejection::Type { found });
        }
        if [reserved_1, reserved_2] != [0, 0] {
            return Err(Rejection::Reserved);
        }
        let mut named = keys.iter().filter(|key| key.number() == number).peekable();
        if named.peek().is_none() {
            return Err(Rejection::UnknownKey { number });
        }
        if named.any(|key| {
            let expected = signature(key, source, head, addresses, self.prefix);
            are_equal(&expected, self.signature)
        }) {
            Ok(Stamp::from_bytes(stamp))
        } else {
            Err(Rejection::Signature)
        }
    }
}

/// The trailer of a message that this source sends.
pub(super) fn trailer<A: Address>(
    key: &Key,
    stamp: Stamp,
    source: A,
    head: Head,
    addresses: &[u8],
) -> Vec<u8> {
    let prefix = [&[TYPE, key.number(), 0, 0][..], &stamp.to_bytes()].concat();
    let signature = signature(key, source, head, addresses, &prefix);
    [&prefix[..], &signature].concat()
}

fn signature<A: Address>(key: &Key, source: A, head: Head, addresses: &[u8], prefix: &[u8]) -> Signature {
    let [_, vrid, ..] = head;
    let mut hmac = hmac::Context::with_key(&key.secret);
    hmac.update(&[A::VERSION, VERSION, vrid, 0]);
    hmac.update(source.octets().as_ref());
    hmac.update(A::FILL);
    hmac.update(&head);
    hmac.update(&[0; HEAD - size_of::<Head>()]);
    hmac.update(addresses);
    hmac.update(prefix);
    hmac.update(&[0; size_of::<Signature>()]);
    let mut truncated = Signature::default();
    let tag = hmac.sign();
    truncated
        .iter_mut()
        .zip(tag.as_ref())
        .for_each(|(to, byte)| *to = *byte);
    truncated
}

/// Takes as long for each pair of signatures, so that nobody finds one byte by byte.
fn are_equal(left: &Signature, right: &Signature) -> bool {
    let differences = left
        .iter()
        .zip(right)
        .fold(0, |found, (left, right)| found | (left ^ right));
    hint::black_box(differences) == 0
}
