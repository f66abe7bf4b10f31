//! What a certificate says of itself: until when it is valid, and which addresses it does not cover.

use std::net::IpAddr;
use std::time::Duration;

use rustls::{
    CertificateError,
    client::{danger::ServerCertVerifier, verify_server_name},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};

/// After every date that a certificate can have: the first second of the year 10000 (RFC 5280, 4.1.2.5).
const AFTER_ALL: Duration = Duration::from_secs(253_402_300_800);

/// What is wrong with the dates of a certificate, or with the clock that they are compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dates {
    /// They are in the past.
    Expired,
    /// They are in the future.
    NotYetValid,
}

/// What a certificate says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certificate {
    /// The end of its validity, in Unix seconds, where that can be read.
    pub not_after: Option<u64>,
    /// Those of the asked addresses that are not among its names.
    pub uncovered: Vec<IpAddr>,
}

impl Certificate {
    pub(super) fn read(
        verifier: &dyn ServerCertVerifier,
        chain: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        addresses: &[IpAddr],
    ) -> Self {
        let Some((leaf, intermediates)) = chain.split_first() else {
            return Self::default();
        };
        // webpki looks at the dates of the certificate itself before anything else, and names them where they are wrong.
        let at = UnixTime::since_unix_epoch(AFTER_ALL);
        let not_after = match verifier.verify_server_cert(leaf, intermediates, server_name, &[], at) {
            Err(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext {
                not_after, ..
            })) => Some(not_after.as_secs()),
            Ok(_) | Err(_) => None,
        };
        let uncovered = ParsedCertificate::try_from(leaf).map_or_else(
            |_unreadable| Vec::new(),
            |parsed| {
                let lacks = |ip: &&IpAddr| verify_server_name(&parsed, &ServerName::from(**ip)).is_err();
                addresses.iter().filter(lacks).copied().collect()
            },
        );
        Self { not_after, uncovered }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use rcgen::{CertificateParams, KeyPair, SanType, date_time_ymd};
    use trivet_crds::wire::Tls;

    use super::*;
    use crate::Trust;

    const LISTENERS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

    /// A certificate with these names and addresses, valid until the first of a month of 2027, and its own authority.
    fn issued(names: &[SanType], month: u8) -> (CertificateDer<'static>, Trust) {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names.to_vec();
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(2027, month, 1);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let tls = Tls {
            ca_bundle: certificate.pem(),
            server_name: "kubernetes".to_owned(),
        };
        (certificate.der().clone(), Trust::new(&tls).unwrap())
    }

    fn read(names: &[SanType], month: u8) -> Certificate {
        let (certificate, trust) = issued(names, month);
        trust.read(&[certificate], &LISTENERS)
    }

    #[test]
    fn the_end_of_the_validity_is_read_whoever_signed_it_and_whatever_its_name() {
        let kubernetes = SanType::DnsName("kubernetes".try_into().unwrap());
        let other = SanType::DnsName("example.com".try_into().unwrap());
        for names in [vec![kubernetes], vec![other], Vec::new()] {
            assert_eq!(read(&names, 1).not_after, Some(1_798_761_600), "{names:?}");
        }
        assert_eq!(read(&[], 2).not_after, Some(1_801_440_000));
    }

    #[test]
    fn the_addresses_that_it_does_not_cover_are_named() {
        let [four, six] = LISTENERS;
        let kubernetes = SanType::DnsName("kubernetes".try_into().unwrap());
        assert_eq!(read(std::slice::from_ref(&kubernetes), 1).uncovered, LISTENERS);
        let one = [kubernetes, SanType::IpAddress(four)];
        assert_eq!(read(&one, 1).uncovered, [six]);
        let both = [SanType::IpAddress(four), SanType::IpAddress(six)];
        assert_eq!(read(&both, 1).uncovered, [IpAddr::V4(Ipv4Addr::LOCALHOST); 0]);
    }

    #[test]
    fn what_is_no_certificate_says_nothing() {
        let (_, trust) = issued(&[], 1);
        assert_eq!(trust.read(&[], &LISTENERS), Certificate::default());
        let garbage = CertificateDer::from(vec![1, 2, 3]);
        assert_eq!(trust.read(&[garbage], &LISTENERS), Certificate::default());
    }
}
