//! A client's first flight: what may be sent twice must never be more than one whole ClientHello without early data.

use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ClientConfig, ClientConnection, ConnectionCommon, RootCertStore, ServerConfig, ServerConnection,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use trivet_proxy::open::hello::{Kind, LONGEST, classify};

use crate::search::{fuzz, keep};

const EARLY_DATA: u16 = 42;
const RECORD_HEADER: usize = 5;

#[test]
fn however_it_is_split_a_first_flight_is_decided_once() {
    fuzz("first_flight", &[plain_hello(), early_hello()], decided_once);
}

#[test]
fn a_real_hello_is_replayable_unless_it_announces_early_data() {
    assert_eq!(classify(&plain_hello()), Kind::Replayable);
    assert_eq!(classify(&early_hello()), Kind::Other);
}

/// Undecided up to some length, decided there, and beyond it nothing that may be sent twice: so whatever pieces arrive,
/// the proxy decides the same or on the safe side.
fn decided_once(whole: &[u8]) {
    let kinds: Vec<_> = (0..=whole.len())
        .map(|length| classify(&whole[..length]))
        .collect();
    let Some(decided) = kinds.iter().position(|kind| *kind != Kind::Incomplete) else {
        assert!(whole.len() < LONGEST, "waits for ever");
        return;
    };
    assert!(
        kinds[decided + 1..].iter().all(|kind| *kind == Kind::Other),
        "{whole:x?}"
    );
    if kinds[decided] == Kind::Replayable {
        assert!(decided <= LONGEST);
        let early = announcing_early_data(&whole[..decided]);
        assert!(
            early.is_none_or(|early| classify(&early) == Kind::Other),
            "{whole:x?}"
        );
    }
}

/// The same ClientHello with an empty extension more; none where there is no room for it.
fn announcing_early_data(hello: &[u8]) -> Option<Vec<u8>> {
    let mut hello = hello.to_vec();
    let session = usize::from(hello[43]);
    let suites = 44 + session;
    let compressions = suites + 2 + usize::from(u16::from_be_bytes([hello[suites], hello[suites + 1]]));
    let extensions = compressions + 1 + usize::from(hello[compressions]);
    if extensions == hello.len() {
        hello.extend([0, 0]);
    }
    hello.extend(EARLY_DATA.to_be_bytes());
    hello.extend([0, 0]);
    let length = |from: usize| u16::try_from(hello.len() - from).ok();
    let (record, message, all) = (
        length(RECORD_HEADER)?,
        length(RECORD_HEADER + 4)?,
        length(extensions + 2)?,
    );
    hello[3..5].copy_from_slice(&record.to_be_bytes());
    hello[6..9].copy_from_slice(&[0, message.to_be_bytes()[0], message.to_be_bytes()[1]]);
    hello[extensions..extensions + 2].copy_from_slice(&all.to_be_bytes());
    Some(hello)
}

fn plain_hello() -> Vec<u8> {
    hello_of(&client(RootCertStore::empty()))
}

/// What a client sends that knows the server and begins with a request.
fn early_hello() -> Vec<u8> {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["kubernetes".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let client = client(roots);
    let mut server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .unwrap();
    server.max_early_data_size = 1024;
    let mut near = ClientConnection::new(Arc::clone(&client), "kubernetes".try_into().unwrap()).unwrap();
    let mut far = ServerConnection::new(Arc::new(server)).unwrap();
    // Three turns are a handshake, and the tickets that follow it.
    for _ in 0..3 {
        pass(&mut near, &mut far);
        pass(&mut far, &mut near);
    }
    assert!(!near.is_handshaking());
    hello_of(&client)
}

fn client(roots: RootCertStore) -> Arc<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.enable_early_data = true;
    Arc::new(config)
}

fn hello_of(client: &Arc<ClientConfig>) -> Vec<u8> {
    let mut connection = ClientConnection::new(Arc::clone(client), "kubernetes".try_into().unwrap()).unwrap();
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).unwrap();
    hello
}

fn pass<A, B>(from: &mut ConnectionCommon<A>, to: &mut ConnectionCommon<B>) {
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).unwrap();
    }
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        to.read_tls(&mut rest).unwrap();
        to.process_new_packets().unwrap();
    }
}

#[test]
#[ignore = "writes the corpus anew"]
fn keep_real_first_flights() {
    keep("first_flight", "plain", &plain_hello());
    keep("first_flight", "early-data", &early_hello());
    keep(
        "first_flight",
        "http",
        b"GET / HTTP/1.1\r\nhost: kubernetes\r\n\r\n",
    );
}
