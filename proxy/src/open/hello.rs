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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    /// What a real client sends first.
    fn client_hello() -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let mut client = ClientConnection::new(Arc::new(config), "kubernetes".try_into().unwrap()).unwrap();
        let mut hello = Vec::new();
        client.write_tls(&mut hello).unwrap();
        hello
    }

    /// The same with one more, empty, extension.
    fn with_extension(kind: u16) -> Vec<u8> {
        let mut hello = client_hello();
        hello.extend(kind.to_be_bytes());
        hello.extend([0, 0]);
        let record = u16::try_from(hello.len() - RECORD_HEADER).unwrap();
        hello[3..5].copy_from_slice(&record.to_be_bytes());
        hello[7..9].copy_from_slice(&(record - 4).to_be_bytes());
        // The extensions' length lies behind session id, suites and compressions.
        let session = usize::from(hello[43]);
        let suites = 44 + session;
        let compressions = suites + 2 + usize::from(u16::from_be_bytes([hello[suites], hello[suites + 1]]));
        let extensions = compressions + 1 + usize::from(hello[compressions]);
        let length = u16::from_be_bytes([hello[extensions], hello[extensions + 1]]) + 4;
        hello[extensions..extensions + 2].copy_from_slice(&length.to_be_bytes());
        hello
    }

    #[test]
    fn a_real_client_hello_is_replayable() {
        assert_eq!(classify(&client_hello()), Kind::Replayable);
    }

    #[test]
    fn every_beginning_of_it_is_incomplete() {
        let hello = client_hello();
        for length in 0..hello.len() {
            assert_eq!(classify(&hello[..length]), Kind::Incomplete, "{length}");
        }
    }

    #[test]
    fn what_follows_it_is_sent_once_only() {
        let mut hello = client_hello();
        hello.push(0);
        assert_eq!(classify(&hello), Kind::Other);
    }

    #[test]
    fn announced_early_data_is_sent_once_only() {
        assert_eq!(classify(&with_extension(0xfafa)), Kind::Replayable);
        assert_eq!(classify(&with_extension(EARLY_DATA)), Kind::Other);
    }

    #[test]
    fn other_protocols_are_sent_once_only() {
        for first in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            b"PRI * HTTP/2.0",
            b"SSH-2.0-x",
            b"\x16\x03\x01\xff\xff",
        ] {
            assert_eq!(classify(first), Kind::Other, "{first:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            classify(&bytes);
        }

        #[test]
        fn no_changed_byte_makes_it_panic(at in 0..200_usize, value: u8) {
            let mut hello = client_hello();
            let at = at % hello.len();
            hello[at] = value;
            classify(&hello);
        }
    }
}
