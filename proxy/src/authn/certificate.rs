//! The certificate of the metrics at the node's addresses: made at each start, signed by itself, and nobody's but this
//! process's.
//!
//! It keeps a caller's token from those who listen on the network. Nobody can verify it, so a caller that must know whom it
//! sends its token to should send one that can do nothing but read metrics. It has nothing to do with the traffic of clients,
//! for which a proxy holds no key.

use std::{net::IpAddr, sync::Arc};

use rcgen::{CertificateParams, DnType, KeyPair, SanType};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be made.
    #[error("failed to make the certificate of the metrics")]
    Make(#[from] rcgen::Error),
    /// It cannot be used.
    #[error("failed to use the certificate of the metrics")]
    Use(#[from] rustls::Error),
}

/// A server of these addresses with a key and a certificate of its own.
pub fn server(addresses: &[IpAddr]) -> Result<Arc<ServerConfig>, Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "trivet-proxy");
    params.subject_alt_names = addresses.iter().copied().map(SanType::IpAddress).collect();
    let certificate = params.self_signed(&key)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)?;
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_of_both_families_gets_a_certificate() {
        let addresses = ["10.0.0.11", "fd00::11"].map(|address| address.parse().unwrap());
        server(&addresses).unwrap();
    }
}
