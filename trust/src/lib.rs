//! Verification of the members' certificates, the same for operator and proxies: both accept what Go's clients accept, and
//! give the same reason if a certificate does not verify.
//!
//! The proxies' probes finish the handshake first and then verify, so that a bad certificate is an outcome and not an I/O
//! error. The watch, which sends a token, verifies during the handshake, as the operator's probes do.

mod algorithms;
mod certificate;
mod reason;
mod verifier;

pub use algorithms::provider;
pub use certificate::{Certificate, Dates};
pub use reason::reason;

use std::net::IpAddr;
use std::sync::Arc;

use rustls::{
    CertificateError, ClientConfig,
    client::{Resumption, danger::ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use trivet_crds::wire::Tls;

use self::verifier::{KeyOnly, Members};

/// Whether a certificate is one of this cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateStatus {
    /// An authority of the cluster signed it for the right name, and it is valid now.
    Verified,
    /// An authority of the cluster signed it for the right name, but its dates or this node's clock are wrong.
    OutOfDate(Dates),
    /// It is not a certificate of this cluster, for this reason.
    Untrusted(String),
}

/// Why a document's certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bundle holds no certificate, or one that cannot be parsed.
    #[error("tls.caBundle must hold the cluster's authorities as PEM certificates: {0}")]
    Bundle(String),
    /// The name is neither a DNS name nor an IP address.
    #[error("tls.serverName {0:?} must be a DNS name or an IP address")]
    ServerName(String),
    /// The TLS library rejects the parameters.
    #[error("failed to set up TLS")]
    Tls(#[from] rustls::Error),
}

/// The authorities and the server name of one document, ready for use.
#[derive(Debug)]
pub struct Trust {
    verifier: Arc<Members>,
    server_name: ServerName<'static>,
    probing: Arc<ClientConfig>,
    strict: Arc<ClientConfig>,
}

impl Trust {
    /// Parses a document's `tls`.
    pub fn new(tls: &Tls) -> Result<Self, Error> {
        let provider = Arc::new(provider());
        let bundle = certificates(&tls.ca_bundle)?;
        let verifier = Arc::new(Members::new(bundle, Arc::clone(&provider)).map_err(Error::Bundle)?);
        let server_name = ServerName::try_from(tls.server_name.clone())
            .map_err(|_invalid| Error::ServerName(tls.server_name.clone()))?;
        let config = |verifier: Arc<dyn ServerCertVerifier>| {
            let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_safe_default_protocol_versions()?
                .dangerous();
            Ok::<_, rustls::Error>(
                builder
                    .with_custom_certificate_verifier(verifier)
                    .with_no_client_auth(),
            )
        };
        let strict = config(Arc::<Members>::clone(&verifier))?;
        let mut probing = config(Arc::new(KeyOnly(Arc::clone(&provider))))?;
        // A resumed session transfers no certificate to verify.
        probing.resumption = Resumption::disabled();
        Ok(Self {
            verifier,
            server_name,
            probing: Arc::new(probing),
            strict: Arc::new(strict),
        })
    }

    /// The name that each member's certificate must contain.
    pub fn server_name(&self) -> ServerName<'static> {
        self.server_name.clone()
    }

    /// For probes: the handshake accepts any certificate, and [`Trust::judge`] verifies it afterwards.
    pub fn probing(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.probing)
    }

    /// For the proxies' watch and the operator's probes: the handshake fails unless the certificate verifies.
    pub fn strict(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.strict)
    }

    /// Verifies the certificates that a member has shown, at the time `now`.
    pub fn judge(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> CertificateStatus {
        let Some((leaf, intermediates)) = chain.split_first() else {
            return CertificateStatus::Untrusted("no certificate shown".to_owned());
        };
        let verify = |at| {
            self.verifier
                .verify_server_cert(leaf, intermediates, &self.server_name, &[], at)
        };
        match verify(now) {
            Ok(_) => CertificateStatus::Verified,
            Err(error) => match valid_time(&error) {
                Some((dates, time)) if verify(time).is_ok() => CertificateStatus::OutOfDate(dates),
                Some(_) | None => CertificateStatus::Untrusted(reason(&error)),
            },
        }
    }

    /// What the certificate that a member has shown says of itself, whether or not it verifies. `addresses` are those
    /// under which clients reach the member.
    pub fn read(&self, chain: &[CertificateDer<'_>], addresses: &[IpAddr]) -> Certificate {
        Certificate::read(self.verifier.as_ref(), chain, &self.server_name, addresses)
    }
}

/// What is wrong with the dates, and a time at which the certificate is valid, if its dates are why verification failed.
fn valid_time(error: &rustls::Error) -> Option<(Dates, UnixTime)> {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. }) => {
            Some((Dates::Expired, *not_after))
        }
        rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. }) => {
            Some((Dates::NotYetValid, *not_before))
        }
        _ => None,
    }
}

fn certificates(bundle: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates = CertificateDer::pem_slice_iter(bundle.as_bytes());
    let certificates: Result<_, _> = certificates.collect();
    certificates.map_err(|error| Error::Bundle(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};

    use super::*;

    const NAME: &str = "kubernetes";

    fn authority() -> (Issuer<'static, KeyPair>, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let bundle = params.self_signed(&key).unwrap().pem();
        (Issuer::new(params, key), bundle)
    }

    /// A certificate for `name`, valid in 2026.
    fn certificate(name: &str, issuer: &Issuer<'static, KeyPair>) -> CertificateDer<'static> {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(2027, 1, 1);
        params
            .signed_by(&KeyPair::generate().unwrap(), issuer)
            .unwrap()
            .der()
            .clone()
    }

    fn judged(name: &str, year: u64) -> CertificateStatus {
        let (issuer, ca_bundle) = authority();
        let trust = Trust::new(&Tls {
            ca_bundle,
            server_name: NAME.to_owned(),
        })
        .unwrap();
        // The middle of the year, leap days aside.
        let time = UnixTime::since_unix_epoch(Duration::from_secs((year - 1970) * 31_557_600 + 15_000_000));
        trust.judge(&[certificate(name, &issuer)], time)
    }

    #[test]
    fn a_good_certificate_is_verified() {
        assert_eq!(judged(NAME, 2026), CertificateStatus::Verified);
    }

    #[test]
    fn wrong_dates_are_distinguished_from_a_foreign_certificate() {
        assert_eq!(
            judged(NAME, 2020),
            CertificateStatus::OutOfDate(Dates::NotYetValid)
        );
        assert_eq!(judged(NAME, 2030), CertificateStatus::OutOfDate(Dates::Expired));
    }

    #[test]
    fn a_certificate_for_another_name_is_untrusted_at_any_time() {
        for year in [2020, 2026, 2030] {
            assert!(
                matches!(judged("example.com", year), CertificateStatus::Untrusted(_)),
                "{year}"
            );
        }
    }

    #[test]
    fn a_certificate_of_another_authority_is_untrusted() {
        let (_, ca_bundle) = authority();
        let (other, _) = authority();
        let trust = Trust::new(&Tls {
            ca_bundle,
            server_name: NAME.to_owned(),
        })
        .unwrap();
        let certificate = trust.judge(&[certificate(NAME, &other)], UnixTime::now());
        assert!(
            matches!(certificate, CertificateStatus::Untrusted(_)),
            "{certificate:?}"
        );
        assert!(matches!(
            trust.judge(&[], UnixTime::now()),
            CertificateStatus::Untrusted(_)
        ));
    }

    const P256: &str = include_str!("../tests/certificates/p256-ca.crt");
    const P384: &str = include_str!("../tests/certificates/p384-ca.crt");
    const P521: &str = include_str!("../tests/certificates/p521-ca.crt");

    fn judged_by(bundle: &str, certificate: CertificateDer<'_>) -> CertificateStatus {
        let trust = Trust::new(&Tls {
            ca_bundle: bundle.to_owned(),
            server_name: NAME.to_owned(),
        });
        let july_2027 = UnixTime::since_unix_epoch(Duration::from_secs(1_815_000_000));
        trust.unwrap().judge(&[certificate], july_2027)
    }

    #[test]
    fn what_gos_clients_accept_beyond_ring_is_verified() {
        for (bundle, certificate) in [
            (P256, &include_bytes!("../tests/certificates/p256-sha512.crt")[..]),
            (P384, include_bytes!("../tests/certificates/p384-sha512.crt")),
            (P521, include_bytes!("../tests/certificates/p521-sha256.crt")),
            (P521, include_bytes!("../tests/certificates/p521-sha384.crt")),
            (P521, include_bytes!("../tests/certificates/p521-sha512.crt")),
        ] {
            let certificate = CertificateDer::from_pem_slice(certificate).unwrap();
            assert_eq!(
                judged_by(bundle, certificate.clone()),
                CertificateStatus::Verified,
                "{bundle}"
            );
            let mut forged = certificate.to_vec();
            *forged.last_mut().unwrap() ^= 1;
            let forged = judged_by(bundle, forged.into());
            assert!(
                matches!(forged, CertificateStatus::Untrusted(_)),
                "{bundle}: {forged:?}"
            );
        }
    }

    /// A certificate that has signed itself, of an authority or not.
    fn own_authority(is_ca: IsCa, name: &str, until: i32) -> rcgen::Certificate {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.is_ca = is_ca;
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap()
    }

    #[test]
    fn a_certificate_that_is_its_own_authority_is_verified_by_its_name_and_dates() {
        for is_ca in [
            IsCa::NoCa,
            IsCa::ExplicitNoCa,
            IsCa::Ca(BasicConstraints::Unconstrained),
        ] {
            let judge = |name, until| {
                let certificate = own_authority(is_ca, name, until);
                judged_by(&certificate.pem(), certificate.der().clone())
            };
            assert_eq!(judge(NAME, 2030), CertificateStatus::Verified, "{is_ca:?}");
            assert_eq!(
                judge(NAME, 2027),
                CertificateStatus::OutOfDate(Dates::Expired),
                "{is_ca:?}"
            );
            for until in [2027, 2030] {
                let other = judge("example.com", until);
                assert!(
                    matches!(other, CertificateStatus::Untrusted(_)),
                    "{is_ca:?}: {other:?}"
                );
            }
        }
    }

    #[test]
    fn an_authority_that_is_not_in_the_bundle_is_untrusted() {
        let is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = own_authority(is_ca, NAME, 2030);
        let bundle = own_authority(is_ca, NAME, 2030).pem();
        let certificate = judged_by(&bundle, certificate.der().clone());
        assert!(
            matches!(certificate, CertificateStatus::Untrusted(_)),
            "{certificate:?}"
        );
    }

    #[test]
    fn an_error_names_the_field_of_the_document() {
        for bundle in [
            "",
            "nonsense",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            let tls = Tls {
                ca_bundle: bundle.to_owned(),
                server_name: NAME.to_owned(),
            };
            let message = Trust::new(&tls).unwrap_err().to_string();
            assert!(message.contains("tls.caBundle"), "{bundle:?}: {message}");
        }
        let (_, ca_bundle) = authority();
        let message = Trust::new(&Tls {
            ca_bundle,
            server_name: "not a name".to_owned(),
        })
        .unwrap_err()
        .to_string();
        assert!(message.contains("tls.serverName"), "{message}");
    }
}
