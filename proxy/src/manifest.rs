//! The manifest of the standby: a static pod, which kubelet starts without an API server.
//!
//! It is printed by `trivet-proxy manifest`, before there is a cluster, or written by `trivet-proxy write-manifest` on each
//! node of one. Nothing in it refers to an object of the API, because kubelet refuses a static pod that does.

pub mod arrival;
pub mod confinement;
pub mod directory;
pub mod file;
pub mod members;
pub mod names;
mod pod;
pub mod retirement;
pub mod seed;

use std::net::SocketAddr;

use sha2::{Digest, Sha256};
use tracing::Level;

use self::{
    confinement::Confinement,
    file::ManifestName,
    names::{Image, Namespace, PoolName, Zone},
};
use crate::{document::seed::Seed, log::LogFormat};

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
    /// The document of its first start; none where it finds one on the node's disk.
    pub seed: Option<Seed>,
    /// The zone of its node, if it is known. No label of the node comes to a static pod.
    pub zone: Option<Zone>,
    /// Where it serves metrics and how it logs.
    pub output: Output,
    /// The `connection.drainTimeoutSeconds` of its documents.
    pub drain_timeout_seconds: u32,
    /// How the node confines it.
    pub confinement: Confinement,
    /// What reads the manifest.
    pub platform: Platform,
}

/// Where a standby serves metrics and how it logs. What is none has the default of `trivet-proxy run`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Where it serves metrics.
    pub metrics_address: Option<SocketAddr>,
    /// From which level on it logs.
    pub log_level: Option<Level>,
    /// How.
    pub log_format: Option<LogFormat>,
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
    /// The name of the pod and of its file. It has a hash of the content, so that a changed manifest is another pod to
    /// kubelet: the old one runs until its file is removed, and there is never a moment without a standby.
    pub name: ManifestName,
    /// The YAML.
    pub text: String,
}

/// Renders the manifest.
pub fn render(standby: &Standby) -> Result<Manifest, serde_saphyr::ser::Error> {
    let pool = &standby.pool;
    let content = pod::render(standby, "", "").to_string();
    let mut template = format!("{:x}", Sha256::digest(content));
    template.truncate(DIGITS);
    let name = ManifestName::new(pool, &template);
    let pod = pod::render(standby, &name.to_string(), &template);
    let (document, place) = match standby.platform {
        Platform::Kubelet => (pod, format!("File: {}", name.file())),
        Platform::Talos => (
            pod::in_machine_configuration(pod),
            "A patch of Talos' machine configuration".to_owned(),
        ),
    };
    let author = match standby.seed {
        Some(_) => "printed by `trivet-proxy manifest`",
        None => "written by `trivet-proxy write-manifest`, which replaces it",
    };
    let yaml = serde_saphyr::to_string(&document)?;
    let text = format!("# The standby of pool {pool}, {author}. {place}\n{yaml}");
    Ok(Manifest { name, text })
}

#[cfg(test)]
mod tests;
