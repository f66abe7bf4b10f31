//! Certificates from files.

use std::{path::Path, sync::Arc};

use anyhow::{Context, Result};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use trivet_lab::behaviour::Identity;

/// The TLS configuration of a server with this certificate.
pub(crate) fn load(identity: &Identity) -> Result<Arc<ServerConfig>> {
    let failed = |path: &Path| format!("failed to read {}", path.display());
    let certificate = CertificateDer::from_pem_file(&identity.certificate)
        .with_context(|| failed(&identity.certificate))?;
    let key = PrivateKeyDer::from_pem_file(&identity.key).with_context(|| failed(&identity.key))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    Ok(Arc::new(config))
}
