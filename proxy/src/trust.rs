//! Verification of the members' certificates. Probes finish the handshake first and verify then, so that a bad
//! certificate is an outcome and not an I/O error. A connection that carries a token verifies during the handshake.

use std::sync::Arc;

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use trivet_crds::wire::Tls;

/// Whether a certificate is one of this cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateStatus {
    /// An authority of the cluster signed it for the right name, and it is valid now.
    Verified,
    /// An authority of the cluster signed it for the right name, but its dates or this node's clock are wrong.
    OutOfDate,
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
    verifier: Arc<WebPkiServerVerifier>,
    server_name: ServerName<'static>,
    probing: Arc<ClientConfig>,
    strict: Arc<ClientConfig>,
}

impl Trust {
    /// Parses a document's `tls`.
    pub fn new(tls: &Tls) -> Result<Self, Error> {
        let provider = Arc::new(ring::default_provider());
        let roots = Arc::new(roots(&tls.ca_bundle)?);
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
            .build()
            .map_err(|error| Error::Bundle(error.to_string()))?;
        let server_name = ServerName::try_from(tls.server_name.clone())
            .map_err(|_invalid| Error::ServerName(tls.server_name.clone()))?;
        let strict = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut probing = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(KeyOnly(provider)))
            .with_no_client_auth();
        // A resumed session shows no certificate to verify.
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

    /// For connections that carry a token: the handshake fails unless the certificate verifies.
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
                Some(time) if verify(time).is_ok() => CertificateStatus::OutOfDate,
                Some(_) | None => CertificateStatus::Untrusted(error.to_string()),
            },
        }
    }
}

/// A time at which the certificate is valid, if its dates are why verification failed.
fn valid_time(error: &rustls::Error) -> Option<UnixTime> {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. }) => {
            Some(*not_after)
        }
        rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. }) => {
            Some(*not_before)
        }
        _ => None,
    }
}

fn roots(bundle: &str) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        let certificate = certificate.map_err(|error| Error::Bundle(error.to_string()))?;
        roots
            .add(certificate)
            .map_err(|error| Error::Bundle(error.to_string()))?;
    }
    Ok(roots)
}

/// Verifies that the peer holds the key of the certificate it shows. The certificate itself is left to
/// [`Trust::judge`].
#[derive(Debug)]
struct KeyOnly(Arc<CryptoProvider>);

impl ServerCertVerifier for KeyOnly {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
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
        assert_eq!(judged(NAME, 2020), CertificateStatus::OutOfDate);
        assert_eq!(judged(NAME, 2030), CertificateStatus::OutOfDate);
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
