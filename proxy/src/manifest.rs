//! The manifest of the standby: a static pod, which kubelet starts without an API server.
//!
//! It is made here and printed by `trivet-proxy manifest`, before there is a cluster. Nothing in it refers to an object of
//! the API, because kubelet refuses a static pod that does.

pub mod members;
pub mod names;
mod pod;
pub mod seed;

use sha2::{Digest, Sha256};

use self::names::{Image, Namespace, PoolName};
use crate::document::seed::Seed;

/// How many hexadecimal digits of the hash are in the name.
const DIGITS: usize = 8;

/// What makes up a standby.
#[derive(Clone, Debug)]
pub struct Standby {
    /// The pool for which it stands by.
    pub pool: PoolName,
    /// The image of the proxy.
    pub image: Image,
    /// Where its mirror pod is shown once there is an API.
    pub namespace: Namespace,
    /// The document of its first start.
    pub seed: Seed,
    /// The seed's `connection.drainTimeoutSeconds`.
    pub drain_timeout_seconds: u32,
    /// What reads the manifest.
    pub platform: Platform,
}

/// What reads the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Platform {
    /// Kubelet, from its directory of static pods.
    Kubelet,
    /// Talos: a patch of the machine's configuration.
    Talos,
}

/// A manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The name of the pod, and of its file without `.yaml`. It has a hash of the content, so that a changed manifest is
    /// another pod to kubelet: the old one runs until its file is removed, and there is never a moment without a standby.
    pub name: String,
    /// The hash in the name, by which the standby tells the other processes of its node which manifest it has.
    pub template: String,
    /// The YAML.
    pub text: String,
}

/// Renders the manifest.
pub fn render(standby: &Standby) -> Result<Manifest, serde_saphyr::ser::Error> {
    let pool = &standby.pool;
    let content = pod::render(standby, "", "").to_string();
    let mut template = format!("{:x}", Sha256::digest(content));
    template.truncate(DIGITS);
    let name = format!("trivet-{pool}-{template}");
    let pod = pod::render(standby, &name, &template);
    let (document, place) = match standby.platform {
        Platform::Kubelet => (pod, format!("File: {name}.yaml")),
        Platform::Talos => (
            pod::in_machine_configuration(pod),
            "A patch of Talos' machine configuration".to_owned(),
        ),
    };
    let yaml = serde_saphyr::to_string(&document)?;
    let text = format!("# The standby of pool {pool}, printed by `trivet-proxy manifest`. {place}\n{yaml}");
    Ok(Manifest {
        name,
        template,
        text,
    })
}

#[cfg(test)]
mod tests;
