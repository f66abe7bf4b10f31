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

/// The annotation with which the owner lets a template that has failed begin once more. Its value is the pool's generation.
pub const RETRY_ROLLOUT: &str = "trivet.dev/retry-rollout";

/// The name of the owner's request to try a failed template once more; empty if there is none.
pub fn retry(pool: &ApiserverPool) -> String {
    named_generation(pool, RETRY_ROLLOUT).map_or_else(String::new, |generation| name(pool, generation))
}

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
        let name = name(pool, generation);
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

/// A pool that is created anew counts its generations from 1 again.
fn name(pool: &ApiserverPool, generation: i64) -> String {
    format!("{}/{generation}", pool.uid().unwrap_or_default())
}

/// The generation of `pool`, if this annotation of it names that one: so it holds for one state of the spec and not for
/// later ones.
pub fn named_generation(pool: &ApiserverPool, annotation: &str) -> Option<i64> {
    let said = pool.annotations().get(annotation)?;
    let generation = pool.metadata.generation?;
    (said.trim() == generation.to_string()).then_some(generation)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_request_to_try_a_template_once_more_is_one_for_a_generation() {
        let with = |annotation: &str| -> ApiserverPool {
            serde_json::from_value(json!({
                "apiVersion": "trivet.dev/v1alpha1", "kind": "ApiserverPool", "spec": {},
                "metadata": { "name": "default", "uid": "u", "generation": 7,
                              "annotations": { RETRY_ROLLOUT: annotation } },
            }))
            .unwrap()
        };
        assert_eq!(retry(&with("7")), "u/7");
        assert_eq!(retry(&with("6")), "");
        let mut without = with("7");
        without.metadata.annotations = None;
        assert_eq!(retry(&without), "");
    }
}
