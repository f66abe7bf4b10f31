//! Lints of the whole workspace, by the compiler of its tests.

use std::process::Command;

/// Has a build of cargo's lint what it compiles, and fail by any warning.
///
/// clippy is a driver of rustc that can compile too. `cargo clippy` checks everything once more beside a build, which takes
/// four minutes of two CPUs from a clean checkout; this costs as good as nothing. Every build of a suite must go this way:
/// cargo compiles the workspace again when the driver changes.
///
/// The variables are those by which `cargo clippy` calls its driver; the words of the second one are divided by that string.
pub(crate) fn also_deny(cargo: &mut Command) {
    cargo.env("RUSTC_WORKSPACE_WRAPPER", "clippy-driver").env(
        "CLIPPY_ARGS",
        "--deny__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__",
    );
}
