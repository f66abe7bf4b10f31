//! The manifest of the standby: a static pod, which kubelet starts without an API server.
//!
//! It is printed by `trivet-proxy manifest`, before there is a cluster, or written by `trivet-proxy write-manifest` on each
//! node of one. Nothing in it refers to an object of the API, because kubelet refuses a static pod that does.

pub mod arrival;
pub mod confinement;
pub mod directory;
pub mod file;
pub mod leftovers;
pub mod members;
pub mod names;
mod pod;
pub mod retirement;
pub mod seed;

use std::{borrow::Cow, net::SocketAddr};

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
    /// The document that it starts with where it finds none on the node's disk.
    pub seed: Option<Seed>,
    /// What makes the manifest.
    pub author: Author,
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

/// What makes a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Author {
    /// `trivet-proxy manifest`, for a provisioning tool. Another seed is another manifest.
    Command,
    /// `trivet-proxy write-manifest`, on a node of a cluster. The seed is no part of the manifest's name: members come and go,
    /// and a standby that runs has learned them from the proxy that serves.
    Writer,
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
    let named = match standby.author {
        Author::Command => Cow::Borrowed(standby),
        Author::Writer => Cow::Owned(Standby {
            seed: None,
            ..standby.clone()
        }),
    };
    let content = pod::render(&named, "", "").to_string();
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
    let author = match standby.author {
        Author::Command => "printed by `trivet-proxy manifest`",
        Author::Writer => "written by `trivet-proxy write-manifest`, which replaces it",
    };
    let yaml = serde_saphyr::to_string(&document)?;
    let text = format!("# The standby of pool {pool}, {author}. {place}\n{yaml}");
    Ok(Manifest { name, text })
}

/// A manifest without the variable of its seed. In the YAML that [`render`] makes, what belongs to an entry of a list is
/// indented deeper than the entry.
fn without_seed(text: &str) -> String {
    let mut seed = None;
    let kept = text.lines().filter(|line| {
        let content = line.trim_start();
        let indent = line.len() - content.len();
        if content == format!("- name: {}", pod::SEED) {
            seed = Some(indent);
        } else if seed.is_some_and(|entry| indent <= entry && !content.is_empty()) {
            seed = None;
        }
        seed.is_none()
    });
    kept.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests;
