//! A cluster's certificate authority.

use std::sync::Arc;

use p521::ecdsa::{Signature, SigningKey, signature::hazmat::PrehashSigner};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, SignatureAlgorithm, SignatureScheme, SupportedProtocolVersion,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
    sign::{self, CertifiedKey, Signer, SingleCertAndKey},
};
use sha2::{Digest, Sha512};

/// The name in every certificate, as in a real cluster.
pub(crate) const NAME: &str = "kubernetes";

/// An authority with a P-521 key, whose signatures are of SHA-512.
pub(crate) const P521_BUNDLE: &str = include_str!("../../../../trust/tests/certificates/p521-ca.crt");

/// The certificate that it signed, for a key on P-521.
pub(crate) fn p521_server() -> Arc<ServerConfig> {
    let certificate = include_bytes!("../../../../trust/tests/certificates/p521-sha512.crt");
    let certificate = CertificateDer::from_pem_slice(certificate).unwrap();
    let key = PrivatePkcs8KeyDer::from_pem_slice(include_bytes!(
        "../../../../trust/tests/certificates/p521-sha512.key"
    ))
    .unwrap();
    // The last number of the key's fixed encoding; rustls with ring signs with no such key by itself.
    let scalar = p521_scalar(key.secret_pkcs8_der());
    let key = CertifiedKey::new(vec![certificate], Arc::new(P521Key(scalar.to_vec())));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    Arc::new(config)
}

/// The 66 bytes after the tag and length of the OCTET STRING of RFC 5915's ECPrivateKey.
fn p521_scalar(pkcs8: &[u8]) -> &[u8] {
    let start = pkcs8
        .windows(5)
        .position(|bytes| bytes == [2, 1, 1, 4, 66])
        .unwrap()
        + 5;
    &pkcs8[start..start + 66]
}

#[derive(Clone, Debug)]
struct P521Key(Vec<u8>);

impl sign::SigningKey for P521Key {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let known = offered.contains(&SignatureScheme::ECDSA_NISTP521_SHA512);
        known.then(|| Box::new(self.clone()) as _)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for P521Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let key = SigningKey::from_slice(&self.0).unwrap();
        let signature: Signature = key.sign_prehash(&Sha512::digest(message)).unwrap();
        Ok(signature.to_der().as_bytes().to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP521_SHA512
    }
}

/// A server of this version of TLS with a good certificate, which wants one of its clients.
pub(crate) fn demanding_server(
    authority: &Authority,
    version: &'static SupportedProtocolVersion,
) -> Arc<ServerConfig> {
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate.clone()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let (certificate, key) = authority.certify(CertificateParams::new([NAME.to_owned()]).unwrap());
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(vec![certificate], key)
        .unwrap();
    Arc::new(config)
}

/// Signs apiservers' certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    /// What a wire document carries.
    pub(crate) bundle: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        Self {
            bundle: certificate.pem(),
            certificate: certificate.der().clone(),
            issuer: Issuer::new(params, key),
        }
    }

    /// A good certificate.
    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        self.sign(CertificateParams::new([NAME.to_owned()]).unwrap())
    }

    /// A certificate that was good long ago.
    pub(crate) fn expired_server(&self) -> Arc<ServerConfig> {
        let mut params = CertificateParams::new([NAME.to_owned()]).unwrap();
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
        self.sign(params)
    }

    /// A client that trusts this authority only.
    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config)
    }

    /// A certificate that it signs, and its key.
    fn certify(&self, params: CertificateParams) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        (certificate.der().clone(), key)
    }

    fn sign(&self, params: CertificateParams) -> Arc<ServerConfig> {
        let (certificate, key) = self.certify(params);
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        Arc::new(config)
    }
}
