//! Bytes of netlink messages and their attributes, in the machine's byte order (netlink(7)). Knows no socket.

/// The length of a message's header.
const HEADER: usize = 16;

/// The length of an attribute's header.
const ATTRIBUTE: usize = 4;

/// Messages and attributes begin at multiples of it.
const ALIGNMENT: usize = 4;

/// An attribute's kind without its flags (`NLA_F_NESTED`, `NLA_F_NET_BYTEORDER`).
const KIND: u16 = 0x3fff;

/// Says that an attribute holds attributes: nftables insists on it.
const NESTED: u16 = 0x8000;

/// A message to the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl Request {
    /// A request with the fixed header of its family and [`attribute`]s. `NLM_F_REQUEST` is added to the flags.
    pub fn new(kind: u16, flags: u16, header: &[u8], attributes: &[u8]) -> Self {
        const NLM_F_REQUEST: u16 = 1;
        let mut body = header.to_vec();
        align(&mut body);
        body.extend(attributes);
        Self {
            kind,
            flags: flags | NLM_F_REQUEST,
            body,
        }
    }

    /// The same, to be acknowledged.
    #[must_use]
    pub fn acknowledged(mut self) -> Self {
        const NLM_F_ACK: u16 = 4;
        self.flags |= NLM_F_ACK;
        self
    }

    /// Its bytes.
    pub(super) fn encode(&self, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(HEADER.saturating_add(self.body.len())).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(HEADER.saturating_add(self.body.len()));
        bytes.extend(length.to_ne_bytes());
        bytes.extend(self.kind.to_ne_bytes());
        bytes.extend(self.flags.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        // The port of the socket: the kernel knows it.
        bytes.extend([0; 4]);
        bytes.extend(&self.body);
        align(&mut bytes);
        bytes
    }
}

/// The bytes of one attribute. Those of several are concatenated. A value has less than 64 KiB.
pub fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(ATTRIBUTE.saturating_add(value.len())).unwrap_or(u16::MAX);
    let mut bytes = Vec::with_capacity(usize::from(length).next_multiple_of(ALIGNMENT));
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    align(&mut bytes);
    bytes
}

/// The bytes of an attribute that holds attributes.
pub fn nested(kind: u16, attributes: &[u8]) -> Vec<u8> {
    attribute(kind | NESTED, attributes)
}

/// A message from the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Its kind, `RTM_*` for example.
    pub kind: u16,
    /// `NLM_F_*`.
    pub flags: u16,
    /// The number of the request that it answers.
    pub sequence: u32,
    /// The fixed header of its family, and attributes.
    pub body: &'a [u8],
}

impl<'a> Message<'a> {
    /// The attributes after a fixed header of this length.
    pub fn attributes(&self, header: usize) -> impl Iterator<Item = (u16, &'a [u8])> + use<'a> {
        attributes(
            self.body
                .get(header.next_multiple_of(ALIGNMENT)..)
                .unwrap_or_default(),
        )
    }
}

/// The messages of a datagram, up to the first one that is malformed.
pub fn messages(datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = usize::try_from(word(rest, 0)?).ok()?;
        let message = Message {
            kind: half_word(rest, 4)?,
            flags: half_word(rest, 6)?,
            sequence: word(rest, 8)?,
            body: rest.get(HEADER..length)?,
        };
        rest = rest.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
        Some(message)
    })
}

/// The kinds and values of attributes, up to the first one that is malformed.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(half_word(rest, 0)?);
        let found = (half_word(rest, 2)? & KIND, rest.get(ATTRIBUTE..length)?);
        rest = rest.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
        Some(found)
    })
}

/// 32 bits at an offset.
pub fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes
        .get(offset..)?
        .first_chunk()
        .copied()
        .map(u32::from_ne_bytes)
}

/// 16 bits at an offset.
pub fn half_word(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes
        .get(offset..)?
        .first_chunk()
        .copied()
        .map(u16::from_ne_bytes)
}

fn align(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let mut written = attribute(3, b"eth0\0");
        written.extend(nested(4, &attribute(5, &[6])));
        let datagram = Request::new(16, 0x100, &[1; 17], &written).encode(7);
        assert_eq!(datagram.len() % ALIGNMENT, 0);
        let both: Vec<_> = [datagram.clone(), datagram].concat();
        let read: Vec<_> = messages(&both).collect();
        assert_eq!(read.len(), 2);
        assert_eq!((read[1].kind, read[1].flags, read[1].sequence), (16, 0x101, 7));
        let parts: Vec<_> = read[1].attributes(17).collect();
        assert_eq!(parts[0], (3, &b"eth0\0"[..]));
        assert_eq!(parts[1].0, 4);
        assert_eq!(attributes(parts[1].1).collect::<Vec<_>>(), [(5, &[6][..])]);
    }

    #[test]
    fn a_length_that_is_too_short_or_too_long_ends_the_reading() {
        let whole = Request::new(16, 0, &[0; 4], &attribute(1, &[2; 8])).encode(1);
        assert_eq!(messages(&whole[..whole.len() - 1]).count(), 0);
        let mut short = whole.clone();
        short[0] = 15;
        assert_eq!(messages(&short).count(), 0);
        assert_eq!(attributes(&[3, 0, 1, 0]).count(), 0);
        assert_eq!(attributes(&[0; 8]).count(), 0);
    }

    proptest! {
        #[test]
        fn no_bytes_are_read_for_ever_or_beyond_their_end(
            bytes in prop::collection::vec(prop_oneof![0..40_u8, any::<u8>()], 0..400)
        ) {
            let mut read = 0;
            for message in messages(&bytes) {
                read += HEADER + message.body.len();
                let inner: usize = message.attributes(4).map(|(_, value)| ATTRIBUTE + value.len()).sum();
                prop_assert!(inner <= message.body.len());
            }
            prop_assert!(read <= bytes.len());
        }
    }
}
