//! A cluster's certificate authority.

use std::{fs, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, date_time_ymd,
};
use rustls::{ClientConfig, pki_types::CertificateDer};
use trivet_instruments::SERVER_NAME;

use crate::behaviour::Identity;

/// When a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dates {
    /// Long before and after today.
    Good,
    /// Until long ago.
    Expired,
    /// Until so long from now.
    ExpiresIn(Duration),
}

/// Signs apiservers' certificates.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    bundle: String,
}

impl Authority {
    /// A new one.
    pub fn new() -> Result<Self> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key)?;
        Ok(Self {
            bundle: certificate.pem(),
            certificate: certificate.der().clone(),
            issuer: Issuer::new(params, key),
        })
    }

    /// Its certificate as a wire document carries it, PEM.
    pub fn bundle(&self) -> &str {
        &self.bundle
    }

    /// Signs a certificate and writes it, and its key, as `name` into a directory.
    pub fn sign(&self, directory: &Path, name: &str, dates: Dates) -> Result<Identity> {
        let mut params = CertificateParams::new(names())?;
        match dates {
            Dates::Good => {}
            Dates::Expired => {
                params.not_before = date_time_ymd(2001, 1, 1);
                params.not_after = date_time_ymd(2002, 1, 1);
            }
            Dates::ExpiresIn(rest) => {
                params.not_after = (std::time::SystemTime::now() + rest).into();
            }
        }
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let identity = Identity {
            certificate: directory.join(format!("{name}.crt")),
            key: directory.join(format!("{name}.key")),
        };
        fs::write(&identity.certificate, certificate.pem())
            .and_then(|()| fs::write(&identity.key, key.serialize_pem()))
            .with_context(|| format!("failed to write the certificate of {name}"))?;
        Ok(identity)
    }
}

/// The names of a real apiserver's certificate and some more, so that the certificate is longer than 1000 bytes, like a
/// real one with an RSA key.
fn names() -> Vec<String> {
    let usual = [
        SERVER_NAME,
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ];
    let more = (1..=32).map(|index| format!("control-plane-{index:02}.example.com"));
    usual.map(str::to_owned).into_iter().chain(more).collect()
}

/// The TLS configuration of a client that trusts exactly these authorities.
pub(crate) fn trusting(authorities: &[&Authority]) -> Result<Arc<ClientConfig>> {
    trivet_instruments::trusting(authorities.iter().map(|authority| authority.certificate.clone()))
}
