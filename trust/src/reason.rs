//! The message for a failed TLS handshake with a member: the reason and the remedy.

use rustls::{AlertDescription, CertificateError, Error};

/// Why the handshake or the verification failed.
pub fn reason(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(error) => certificate(error),
        // The alert has no details. The likely reason is that the peers have no algorithm in common.
        Error::AlertReceived(AlertDescription::HandshakeFailure) => {
            "it ends the handshake: its certificate's key is of an algorithm that Trivet does not verify (Ed448, say), or \
             they share no cipher"
                .to_owned()
        }
        error => error.to_string(),
    }
}

fn certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::NotValidForNameContext { expected, presented } => {
            let names: Vec<_> = presented.iter().map(|name| name_of(name)).collect();
            let has = if names.is_empty() {
                "it has no name".to_owned()
            } else {
                format!("it has the names {}", names.join(", "))
            };
            format!(
                "{has} and not {}; set healthCheck.tlsServerName to a name that the certificates of all members have",
                expected.to_str()
            )
        }
        CertificateError::UnsupportedSignatureAlgorithmContext {
            signature_algorithm_id,
            ..
        } => format!(
            "it is signed with {}, which Trivet does not verify; issue it anew with ECDSA, RSA of 2048 bits or more, or \
             Ed25519",
            algorithm(signature_algorithm_id)
        ),
        CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext {
            signature_algorithm_id,
            public_key_algorithm_id,
        } => format!(
            "its signature is {} with a key of {}, which Trivet does not verify; issue it anew with ECDSA, RSA of 2048 \
             bits or more, or Ed25519",
            algorithm(signature_algorithm_id),
            algorithm(public_key_algorithm_id)
        ),
        error => Error::InvalidCertificate(error.clone()).to_string(),
    }
}

/// The plain name in rustls' output for a name of a certificate, such as `DnsName("kubernetes")`.
fn name_of(presented: &str) -> &str {
    let inner = presented
        .split_once('(')
        .and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(presented).trim_matches('"')
}

/// The name of an AlgorithmIdentifier (RFC 5280), or its numbers. A key on an elliptic curve is named after its curve.
fn algorithm(der: &[u8]) -> String {
    let Some((first, rest)) = identifier(der) else {
        return "an unknown algorithm".to_owned();
    };
    match (first.as_str(), identifier(rest)) {
        (EC_PUBLIC_KEY, Some((curve, _))) => named(&curve),
        _ => named(&first),
    }
}

const EC_PUBLIC_KEY: &str = "1.2.840.10045.2.1";

fn named(identifier: &str) -> String {
    let known = NAMES.iter().find(|(known, _)| *known == identifier);
    known.map_or_else(
        || format!("algorithm {identifier}"),
        |(_, name)| (*name).to_owned(),
    )
}

const NAMES: &[(&str, &str)] = &[
    ("1.2.840.113549.1.1.1", "RSA"),
    ("1.2.840.113549.1.1.4", "RSA with MD5"),
    ("1.2.840.113549.1.1.5", "RSA with SHA-1"),
    ("1.2.840.113549.1.1.10", "RSA-PSS"),
    ("1.2.840.113549.1.1.11", "RSA with SHA-256"),
    ("1.2.840.113549.1.1.12", "RSA with SHA-384"),
    ("1.2.840.113549.1.1.13", "RSA with SHA-512"),
    ("1.2.840.113549.1.1.14", "RSA with SHA-224"),
    ("1.2.840.10040.4.3", "DSA with SHA-1"),
    ("1.2.840.10045.4.1", "ECDSA with SHA-1"),
    ("1.2.840.10045.4.3.1", "ECDSA with SHA-224"),
    ("1.2.840.10045.4.3.2", "ECDSA with SHA-256"),
    ("1.2.840.10045.4.3.3", "ECDSA with SHA-384"),
    ("1.2.840.10045.4.3.4", "ECDSA with SHA-512"),
    ("1.2.840.10045.3.1.7", "P-256"),
    ("1.3.132.0.10", "secp256k1"),
    ("1.3.132.0.33", "P-224"),
    ("1.3.132.0.34", "P-384"),
    ("1.3.132.0.35", "P-521"),
    ("1.3.101.112", "Ed25519"),
    ("1.3.101.113", "Ed448"),
];

/// The OBJECT IDENTIFIER at the start of `der` in dotted form, and what follows it.
fn identifier(der: &[u8]) -> Option<(String, &[u8])> {
    let (&[0x06, length], rest) = der.split_first_chunk::<2>()? else {
        return None;
    };
    let (content, rest) = rest.split_at_checked(length.into())?;
    let mut arcs = Vec::new();
    let mut arc: u64 = 0;
    for byte in content {
        arc = arc.checked_mul(128)? + u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            arcs.push(arc);
            arc = 0;
        }
    }
    let (first, others) = arcs.split_first()?;
    // The first two arcs share a number.
    let top = (first / 40).min(2);
    let arcs = [top, first - 40 * top].into_iter().chain(others.iter().copied());
    let text: Vec<_> = arcs.map(|arc| arc.to_string()).collect();
    Some((text.join("."), rest))
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::ServerName;

    use super::*;

    #[test]
    fn a_certificate_without_the_name_says_which_it_has_and_what_to_set() {
        let error = Error::InvalidCertificate(CertificateError::NotValidForNameContext {
            expected: ServerName::try_from("kubernetes").unwrap(),
            presented: vec![
                "DnsName(\"api.example.com\")".to_owned(),
                "IpAddress(10.0.0.1)".to_owned(),
            ],
        });
        assert_eq!(
            reason(&error),
            "it has the names api.example.com, 10.0.0.1 and not kubernetes; set healthCheck.tlsServerName to a name that \
             the certificates of all members have"
        );
    }

    #[test]
    fn an_algorithm_is_told_by_its_name() {
        // SEQUENCE content of RSA with SHA-1, with its NULL parameter.
        let sha1 = [0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 5, 0x05, 0];
        assert_eq!(algorithm(&sha1), "RSA with SHA-1");
        assert_eq!(algorithm(&[0x06, 3, 0x2b, 0x65, 0x71]), "Ed448");
        let secp256k1 = [
            0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 0x06, 5, 0x2b, 0x81, 0x04, 0, 0x0a,
        ];
        assert_eq!(algorithm(&secp256k1), "secp256k1");
        assert_eq!(algorithm(&[0x06, 3, 0x2b, 0x65, 0x01]), "algorithm 1.3.101.1");
        for broken in [&[][..], &[0x06], &[0x06, 9, 1], &[0x30, 0]] {
            assert_eq!(algorithm(broken), "an unknown algorithm");
        }
        let error = Error::InvalidCertificate(CertificateError::UnsupportedSignatureAlgorithmContext {
            signature_algorithm_id: sha1.to_vec(),
            supported_algorithms: Vec::new(),
        });
        assert!(reason(&error).contains("RSA with SHA-1"), "{}", reason(&error));
    }
}
