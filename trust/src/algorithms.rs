//! The signature algorithms that certificates and handshakes may use: ring's, and ECDSA with P-521 or SHA-512.
//!
//! Go's clients accept both, so probes must accept them too; ring implements neither. Verification handles public data
//! only, so it does not matter that the added curves are not written in assembly.

use std::sync::LazyLock;

use p256::ecdsa::{Error, signature::hazmat::PrehashVerifier};
use rustls::{
    SignatureScheme,
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring},
    pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, alg_id},
};
use sha2::{Digest, Sha256, Sha384, Sha512};

type Algorithm = &'static dyn SignatureVerificationAlgorithm;

/// ring's provider, which accepts these algorithms as well.
pub fn provider() -> CryptoProvider {
    CryptoProvider {
        signature_verification_algorithms: WebPkiSupportedAlgorithms {
            all: &ALL,
            mapping: &MAPPING,
        },
        ..ring::default_provider()
    }
}

const P256_SHA512: Algorithm = &Ecdsa(Curve::P256, Hash::Sha512);
const P384_SHA512: Algorithm = &Ecdsa(Curve::P384, Hash::Sha512);
const P521_SHA256: Algorithm = &Ecdsa(Curve::P521, Hash::Sha256);
const P521_SHA384: Algorithm = &Ecdsa(Curve::P521, Hash::Sha384);
const P521_SHA512: Algorithm = &Ecdsa(Curve::P521, Hash::Sha512);

static ALL: LazyLock<Vec<Algorithm>> = LazyLock::new(|| {
    let added = [P256_SHA512, P384_SHA512, P521_SHA256, P521_SHA384, P521_SHA512];
    let ring = ring::default_provider().signature_verification_algorithms.all;
    [ring, &added].concat()
});

static MAPPING: LazyLock<Vec<(SignatureScheme, &'static [Algorithm])>> = LazyLock::new(|| {
    let by_scheme = BY_SCHEME.iter();
    by_scheme
        .map(|(scheme, algorithms)| (*scheme, algorithms.as_slice()))
        .collect()
});

static BY_SCHEME: LazyLock<Vec<(SignatureScheme, Vec<Algorithm>)>> = LazyLock::new(|| {
    let ring = ring::default_provider().signature_verification_algorithms.mapping;
    let extended = ring
        .iter()
        .map(|(scheme, algorithms)| (*scheme, [algorithms, added(*scheme)].concat()));
    let new = SignatureScheme::ECDSA_NISTP521_SHA512;
    extended.chain([(new, added(new).to_vec())]).collect()
});

/// The algorithms of a scheme that ring lacks. In TLS 1.2 a scheme names the hash but not the curve, so it has several
/// algorithms; in TLS 1.3 only the first one counts.
fn added(scheme: SignatureScheme) -> &'static [Algorithm] {
    match scheme {
        SignatureScheme::ECDSA_NISTP256_SHA256 => &[P521_SHA256],
        SignatureScheme::ECDSA_NISTP384_SHA384 => &[P521_SHA384],
        SignatureScheme::ECDSA_NISTP521_SHA512 => &[P521_SHA512, P384_SHA512, P256_SHA512],
        _ => &[],
    }
}

/// ECDSA over this curve, of this hash.
#[derive(Debug)]
struct Ecdsa(Curve, Hash);

#[derive(Debug)]
enum Curve {
    P256,
    P384,
    P521,
}

#[derive(Debug)]
enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

impl SignatureVerificationAlgorithm for Ecdsa {
    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        match self.0 {
            Curve::P256 => alg_id::ECDSA_P256,
            Curve::P384 => alg_id::ECDSA_P384,
            Curve::P521 => alg_id::ECDSA_P521,
        }
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        match self.1 {
            Hash::Sha256 => alg_id::ECDSA_SHA256,
            Hash::Sha384 => alg_id::ECDSA_SHA384,
            Hash::Sha512 => alg_id::ECDSA_SHA512,
        }
    }

    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        let hash = match self.1 {
            Hash::Sha256 => Sha256::digest(message).to_vec(),
            Hash::Sha384 => Sha384::digest(message).to_vec(),
            Hash::Sha512 => Sha512::digest(message).to_vec(),
        };
        let verified = match self.0 {
            Curve::P256 => p256(public_key, &hash, signature),
            Curve::P384 => p384(public_key, &hash, signature),
            Curve::P521 => p521(public_key, &hash, signature),
        };
        verified.map_err(|_error| InvalidSignature)
    }
}

fn p256(key: &[u8], hash: &[u8], signature: &[u8]) -> Result<(), Error> {
    use p256::ecdsa::{DerSignature, VerifyingKey};
    VerifyingKey::from_sec1_bytes(key)?.verify_prehash(hash, &DerSignature::from_bytes(signature)?)
}

fn p384(key: &[u8], hash: &[u8], signature: &[u8]) -> Result<(), Error> {
    use p384::ecdsa::{DerSignature, VerifyingKey};
    VerifyingKey::from_sec1_bytes(key)?.verify_prehash(hash, &DerSignature::from_bytes(signature)?)
}

fn p521(key: &[u8], hash: &[u8], signature: &[u8]) -> Result<(), Error> {
    use p521::ecdsa::{Signature, VerifyingKey};
    // The crate refuses a hash that is shorter than half of the field, which SHA-256 is by one byte. Leading zeros do not
    // change its value.
    let padded = [vec![0; P521_FIELD.saturating_sub(hash.len())], hash.to_vec()].concat();
    VerifyingKey::from_sec1_bytes(key)?.verify_prehash(&padded, &Signature::from_der(signature)?)
}

/// The length of an element of P-521's field, in bytes.
const P521_FIELD: usize = 66;
