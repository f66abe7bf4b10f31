//! The annotation with which a pool's owner switches the guard off, once.
//!
//! It names the generation of the spec, so that it does not hold for later ones, and it is used up by the first removal or
//! edit that the guard would have refused: an annotation that is forgotten must not leave the pool unguarded. What was
//! used is noted beside the document, in the same write.

use kube::ResourceExt;
use trivet_crds::pool::ApiserverPool;

use super::facts::Memory;

/// The annotation. Its value is the pool's generation.
pub const ALLOW_SHRINK: &str = "trivet.dev/allow-shrink";

/// What the annotation says for this generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Permission {
    /// Nothing.
    None,
    /// It can be used, and is then noted by this name.
    Open(String),
    /// It has been used.
    Used,
}

impl Permission {
    /// The permission that stands on `pool`.
    pub fn of(pool: &ApiserverPool, memory: &Memory) -> Self {
        let Some(generation) = named_generation(pool, ALLOW_SHRINK) else {
            return Self::None;
        };
        // A pool that is created anew counts its generations from 1 again.
        let name = format!("{}/{generation}", pool.uid().unwrap_or_default());
        if memory.used_permission == name {
            Self::Used
        } else {
            Self::Open(name)
        }
    }

    /// Whether it can be used.
    pub fn is_open(&self) -> bool {
        match self {
            Self::Open(_) => true,
            Self::None | Self::Used => false,
        }
    }

    /// What is to be noted as used.
    pub fn used(&self, is_used_now: bool, memory: &Memory) -> String {
        match self {
            Self::Open(name) if is_used_now => name.clone(),
            Self::Open(_) | Self::None | Self::Used => memory.used_permission.clone(),
        }
    }

    /// What the owner is told while the annotation stands. `is_used_now`: by this pass.
    pub fn note(&self, is_used_now: bool) -> Option<String> {
        match self {
            Self::None => None,
            Self::Open(_) if !is_used_now => Some(format!(
                "the guard is off for this generation: the annotation {ALLOW_SHRINK} lets the next removal or edit pass \
                 that the guard would refuse; remove the annotation to switch the guard on"
            )),
            Self::Open(_) | Self::Used => Some(format!(
                "the annotation {ALLOW_SHRINK} has been used for this generation and the guard is on again"
            )),
        }
    }
}

/// The generation of `pool`, if this annotation of it names that one: so it holds for one state of the spec and not for
/// later ones.
pub fn named_generation(pool: &ApiserverPool, annotation: &str) -> Option<i64> {
    let said = pool.annotations().get(annotation)?;
    let generation = pool.metadata.generation?;
    (said.trim() == generation.to_string()).then_some(generation)
}
