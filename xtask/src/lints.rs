//! Lints of the whole workspace, by the compiler of its tests.

use std::process::Command;

use trivet_testbed::setup::LINTS;

/// Has a build of cargo's lint what it compiles, and fail by any warning.
///
/// `cargo clippy` checks everything once more beside a build, which takes four minutes of two CPUs from a clean checkout; this
/// costs as good as nothing. Every build of a suite must go this way: cargo compiles the workspace again when its compiler
/// changes.
pub(crate) fn also_deny(cargo: &mut Command) {
    cargo.envs(LINTS);
}
