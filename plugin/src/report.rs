//! Writes what a maintainer needs to help into a tar.gz, without secrets.

mod archive;
mod gather;
mod redact;
#[cfg(test)]
mod tests;

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context, Result};

use crate::access::Cluster;
use crate::cli;
use crate::doctor;
use crate::output::text::counted;
use crate::output::{Screen, patiently};
use crate::read::Reader;
use crate::{BadUsage, Outcome};

/// Gathers and writes the archive.
pub async fn run(cluster: &Cluster, screen: &Screen, flags: cli::Report) -> Result<Outcome> {
    // Before the work, so that a wrong name costs nothing.
    let file = create(&flags.file)?;
    let reader = Reader::new(cluster.reading(), &cluster.namespace);
    let facts = patiently("reading the cluster", reader.everything(false)).await;
    let findings = doctor::findings(&facts);
    let gathered = gather::all(cluster.reading(), &cluster.namespace, i64::from(flags.log_lines));
    let mut entries = patiently("reading objects and logs", gathered).await;
    entries.push(archive::Entry::json(
        "doctor.json",
        &doctor::print::json(&facts, &findings),
    )?);
    let about = serde_json::json!({
        "plugin": env!("CARGO_PKG_VERSION"), "apiServer": facts.version, "namespace": facts.namespace, "time": facts.now,
    });
    entries.push(archive::Entry::json("versions.json", &about)?);
    archive::write(file, &entries, facts.now)
        .with_context(|| format!("failed to write {}", flags.file.display()))?;
    screen.print(&format!(
        "{}: {}; look through it before you pass it on\n",
        flags.file.display(),
        counted(entries.len(), "file")
    ))?;
    Ok(Outcome::Fine)
}

/// A new file that only its owner reads: logs and addresses are nobody else's business.
fn create(path: &Path) -> Result<std::fs::File> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    file.with_context(|| {
        BadUsage(format!(
            "failed to create {}; --file names another one",
            path.display()
        ))
    })
}
