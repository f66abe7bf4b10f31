//! This checkout's images on every host, imported once per content.

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

use anyhow::{Context, Result};
use sha2::{Digest as _, Sha256};
use trivet_testbed::{Cluster, Host, Progress, images};

use super::{FIRST_MASTER, Installation, NAMESPACE, Server};
use crate::say::say;

/// The file on each host with the digest of its imported images. It is in containerd's directory, so that both are deleted
/// together.
const MARK: &str = "/var/lib/containerd/trivet-images.sha256";

/// The images of this process, which are built and read once.
static IMAGES: OnceLock<Images> = OnceLock::new();

struct Images {
    archives: Vec<PathBuf>,
    /// Of all their bytes.
    digest: String,
}

impl Installation {
    /// Builds the images and imports them where they are not yet; pods of older ones are replaced. Returns whether any were
    /// imported.
    pub(super) async fn load_images(&self) -> Result<bool> {
        let imported = self.disturb(import).await?;
        if imported {
            say("new images: replacing the pods that run older ones");
            // A kubelet needs the API to start its new proxy, and must not reach it through the old one, which is deleted.
            self.point_workers(&Server::Master(FIRST_MASTER.to_owned()))
                .await?;
            // The tag is the same, so nothing rolls out by itself. Where nothing runs, nothing is deleted.
            // Where nothing runs, nothing is allowed to go either.
            self.allow_pods_to_go("--all").await.ok();
            let delete = format!("delete pods --all --namespace {NAMESPACE} --ignore-not-found");
            self.tools().kubectl(&delete).await?;
        }
        Ok(imported)
    }

    /// The same for a host that has just joined: nothing older can run there.
    pub(super) async fn give_images(&self) -> Result<()> {
        self.disturb(import).await.map(drop)
    }
}

/// Whether any host was given new images.
fn import(cluster: &Cluster) -> Result<bool> {
    let Images { archives, digest } = images()?;
    let has_them = |host: &Host| fs::read_to_string(host.file(MARK)).is_ok_and(|found| found == *digest);
    let hosts = cluster.hosts();
    if hosts.iter().all(has_them) {
        return Ok(false);
    }
    for archive in archives {
        cluster.load_image(archive)?;
    }
    for host in &hosts {
        let path = host.file(MARK);
        fs::write(&path, digest).with_context(|| format!("failed to write {}", path.display()))?;
    }
    Ok(true)
}

/// The archives of the images.
pub(super) fn archives() -> Result<&'static [PathBuf]> {
    Ok(&images()?.archives)
}

fn images() -> Result<&'static Images> {
    if let Some(images) = IMAGES.get() {
        return Ok(images);
    }
    let archives = images::build(&Progress::new())?;
    let mut digest = Sha256::new();
    for archive in &archives {
        digest.update(fs::read(archive).with_context(|| format!("failed to read {}", archive.display()))?);
    }
    let digest = format!("{:x}", digest.finalize());
    Ok(IMAGES.get_or_init(|| Images { archives, digest }))
}
