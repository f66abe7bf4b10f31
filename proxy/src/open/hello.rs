//! Recognises a TLS ClientHello that may be sent twice: to a server that has not answered it, nothing has happened.

/// The longest first flight that is kept. With post-quantum key shares a ClientHello has about 1.8 KB.
pub const LONGEST: usize = 16 * 1024;

/// What the client's first bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The beginning of what may become a ClientHello.
    Incomplete,
    /// Exactly one ClientHello that announces no early data.
    Replayable,
    /// Anything else: must be sent once only.
    Other,
}

const HANDSHAKE_RECORD: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const EARLY_DATA: u16 = 42;
const RECORD_HEADER: usize = 5;
const MESSAGE_HEADER: usize = 4;

/// Classifies the client's first bytes.
pub fn classify(bytes: &[u8]) -> Kind {
    let Some((header, record)) = bytes.split_at_checked(RECORD_HEADER) else {
        let plausible = bytes
            .iter()
            .zip([HANDSHAKE_RECORD, 3])
            .all(|(byte, expected)| *byte == expected);
        return if plausible { Kind::Incomplete } else { Kind::Other };
    };
    let &[HANDSHAKE_RECORD, 3, _, high, low] = header else {
        return Kind::Other;
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if RECORD_HEADER + length > LONGEST || record.len() > length {
        return Kind::Other;
    }
    if record.len() < length {
        return Kind::Incomplete;
    }
    match announces_early_data(record) {
        Some(false) => Kind::Replayable,
        Some(true) | None => Kind::Other,
    }
}

/// Whether a whole ClientHello announces early data; none if it is no well-formed ClientHello (RFC 8446, 4.1.2), or one
/// that goes on in another record.
fn announces_early_data(record: &[u8]) -> Option<bool> {
    let (header, body) = record.split_at_checked(MESSAGE_HEADER)?;
    let &[CLIENT_HELLO, high, middle, low] = header else {
        return None;
    };
    if u32::from_be_bytes([0, high, middle, low]) != u32::try_from(body.len()).ok()? {
        return None;
    }
    let mut rest = Cursor(body);
    // Version and random; session id; cipher suites; compression methods.
    rest.take(2 + 32)?;
    let session = rest.byte()?;
    rest.take(session.into())?;
    let suites = rest.short()?;
    rest.take(suites.into())?;
    let compressions = rest.byte()?;
    rest.take(compressions.into())?;
    if rest.0.is_empty() {
        return Some(false);
    }
    let length = rest.short()?;
    let mut extensions = Cursor(rest.take(length.into())?);
    while !extensions.0.is_empty() {
        if extensions.short()? == EARLY_DATA {
            return Some(true);
        }
        let length = extensions.short()?;
        extensions.take(length.into())?;
    }
    rest.0.is_empty().then_some(false)
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn short(&mut self) -> Option<u16> {
        let &[high, low] = self.take(2)? else { return None };
        Some(u16::from_be_bytes([high, low]))
    }
}
