//! The release before this one, built from its commit, for upgrades from it and back to it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::binaries::{self, lock};
use crate::images;
use crate::progress::Progress;
use crate::setup;

/// The commit of the release before: the last one whose proxies share their port.
const COMMIT: &str = include_str!("../../skew/base");

/// The tag of its images, which have the version of this release otherwise.
pub const TAG: &str = "before";

/// Its programs, which are its images.
const PROGRAMS: [&str; 2] = ["trivet-operator", "trivet-proxy"];

/// What its build is told over its own profile: it is compiled unoptimised, because nobody measures how quick it is.
const PROFILE: [&str; 7] = [
    "profile.release.opt-level=0",
    "profile.release.package.trivet-proxy.codegen-units=16",
    "profile.release.package.trivet-operator.opt-level=0",
    "profile.release.package.k8s-openapi.opt-level=0",
    "profile.release.package.kube-client.opt-level=0",
    "profile.release.package.kube-core.opt-level=0",
    "profile.release.package.kube-runtime.opt-level=0",
];

/// What tells builds with another profile apart in the cache.
const BUILD: &str = "o0";

/// The release before.
#[derive(Clone, Debug)]
pub struct Release {
    /// The archives of its images, all tagged [`TAG`].
    pub archives: Vec<PathBuf>,
    /// The directory of its chart.
    pub chart: PathBuf,
}

impl Release {
    fn at(directory: &Path) -> Self {
        let archive = |program: &&str| directory.join(format!("{program}-{TAG}.tar"));
        Self {
            archives: PROGRAMS.iter().map(archive).collect(),
            chart: directory.join("chart"),
        }
    }

    fn is_complete(&self) -> bool {
        self.archives
            .iter()
            .chain([&self.chart])
            .all(|path| path.exists())
    }
}

/// Finds the release before in the cache, or builds it, which takes minutes.
pub fn before(progress: &Progress) -> Result<Release> {
    let commit = COMMIT.trim();
    let cache = binaries::cache_directory()?;
    let directory = cache.join(format!("release-{}-{BUILD}", commit.get(..12).unwrap_or(commit)));
    let release = Release::at(&directory);
    if release.is_complete() {
        return Ok(release);
    }
    let _lock = lock(progress, &cache)?;
    // The process that held the lock before may have built it.
    if !release.is_complete() {
        let partial = cache.join(".release.partial");
        binaries::remove(&partial)?;
        build(progress, commit, &partial)?;
        binaries::remove(&directory)?;
        fs::rename(&partial, &directory)
            .with_context(|| format!("failed to keep {}", directory.display()))?;
    }
    ensure!(
        release.is_complete(),
        "the release before is incomplete in {}",
        directory.display()
    );
    Ok(release)
}

fn build(progress: &Progress, commit: &str, into: &Path) -> Result<()> {
    let (sources, target) = (into.join("sources"), into.join("target"));
    check_out(commit, &sources)?;
    for program in PROGRAMS {
        let mut cargo = setup::cargo();
        cargo.current_dir(&sources).env("CARGO_TARGET_DIR", &target);
        cargo.args(["build", "--release", "--locked", "--package", program]);
        cargo.args(PROFILE.iter().flat_map(|setting| ["--config", setting]));
        images::for_hosts(&mut cargo);
        let binary = images::compiled(progress, &mut cargo, program)?;
        images::archive_into(into, &binary, program, TAG)?;
    }
    fs::rename(sources.join("charts/trivet"), into.join("chart")).context("failed to keep the chart")?;
    binaries::remove(&target)?;
    binaries::remove(&sources)
}

/// Writes the files of a commit, without a worktree that git would have to know.
fn check_out(commit: &str, into: &Path) -> Result<()> {
    fs::create_dir_all(into).with_context(|| format!("failed to create {}", into.display()))?;
    let mut archive = Command::new("git")
        .args(["archive", "--format=tar", commit])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .stdout(Stdio::piped())
        .spawn()
        .context("failed to start git")?;
    let files = archive.stdout.take().context("git archive has no output")?;
    let unpacked = Command::new("tar")
        .arg("-x")
        .current_dir(into)
        .stdin(files)
        .status();
    let archived = archive.wait().context("failed to wait for git")?;
    if !archived.success() {
        bail!(
            "commit {commit}, which tests/skew/base names, is not in this clone: fetch its history with `git fetch --unshallow`"
        );
    }
    let unpacked = unpacked.context("failed to start tar")?;
    ensure!(
        unpacked.success(),
        "tar failed to unpack the files of commit {commit}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_before_is_named_by_a_whole_commit() {
        let commit = COMMIT.trim();
        assert!(
            commit.len() == 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{commit}"
        );
    }
}
