//! `make bench`: builds the measuring program and hands it the rest of the command line.

use std::ffi::OsString;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use trivet_testbed::setup;

/// It has dependencies that nothing else here needs: it is built only when it is asked for, and optimised, because a
/// slow client would measure itself.
pub(crate) fn run(root: &Path, arguments: &[OsString]) -> Result<()> {
    let mut cargo = setup::cargo();
    cargo.args(["run", "--quiet", "--release", "--package", "trivet-bench", "--"]);
    let status = cargo.args(arguments).current_dir(root).status();
    let status = status.context("failed to start cargo")?;
    ensure!(status.success(), "the benchmark ended with {status}");
    Ok(())
}
