//! What a bare machine needs before a cluster can start: root, Debian's packages, Rust's musl target.
//!
//! It installs what is missing and changes nothing on a machine that has everything.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::progress::Progress;
use crate::quiet;

/// An executable file, and the Debian package that contains it.
pub type Tool = (&'static str, &'static str);

/// Plain names are programs, looked for in `PATH` and the system's directories.
const TOOLS: [Tool; 22] = [
    ("containerd", "containerd"),
    ("containerd-shim-runc-v2", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("/usr/lib/cni/bridge", "containernetworking-plugins"),
    ("/usr/lib/cni/host-local", "containernetworking-plugins"),
    ("/usr/lib/cni/loopback", "containernetworking-plugins"),
    ("/usr/lib/cni/portmap", "containernetworking-plugins"),
    ("nft", "nftables"),
    ("iptables", "iptables"),
    ("ip", "iproute2"),
    ("mount", "mount"),
    ("nsenter", "util-linux"),
    ("unshare", "util-linux"),
    ("setpriv", "util-linux"),
    ("setsid", "util-linux"),
    ("chrt", "util-linux"),
    ("curl", "curl"),
    // For the alerts.
    ("prometheus", "prometheus"),
    ("promtool", "prometheus"),
    // The linker for every Rust program, and the C compiler for the C parts of the static ones.
    ("cc", "gcc"),
    ("musl-gcc", "musl-tools"),
];

/// Directories that hold system programs, searched even when `PATH` (after `su`, say) leaves them out.
const SYSTEM_DIRECTORIES: [&str; 4] = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin"];

/// Checks that we are root and installs the packages and the Rust target that are missing.
pub fn packages(progress: &Progress) -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the testbed makes namespaces, mounts and cgroups and must run as root: \
         try `sudo --preserve-env=HOME env \"PATH=$PATH\" make …`"
    );
    install(progress, &missing(&search_path(), &TOOLS))?;
    add_rust_target(progress)
}

/// Installs the Debian packages of those tools that are missing, for callers that need more than the cluster does.
pub fn tools(progress: &Progress, tools: &[Tool]) -> Result<()> {
    install(progress, &missing(&search_path(), tools))
}

/// The target of our static binaries: musl, on the architecture of this machine.
pub(crate) fn rust_target() -> String {
    format!("{}-unknown-linux-musl", std::env::consts::ARCH)
}

fn search_path() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(SYSTEM_DIRECTORIES.map(PathBuf::from))
        .collect()
}

/// The tools found in none of the directories.
fn missing<'a>(directories: &[PathBuf], tools: &'a [Tool]) -> Vec<&'a Tool> {
    // `join` with an absolute path gives that path, so files outside PATH need no case of their own.
    let present = |file: &str| directories.iter().any(|directory| directory.join(file).exists());
    tools.iter().filter(|(file, _)| !present(file)).collect()
}

fn install(progress: &Progress, missing: &[&Tool]) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let files = words(missing.iter().map(|(file, _)| *file));
    let mut packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
    packages.sort_unstable();
    packages.dedup();
    let wanted = words(packages.iter().copied());
    if !Path::new("/usr/bin/apt-get").exists() {
        bail!(
            "not found: {files}. On Debian and its kin the packages are `{wanted}`; this machine has no apt-get, \
             so install your distribution's own (CNI plugins are expected in /usr/lib/cni) and try again"
        );
    }
    let way_out = || format!("failed to install {wanted} (for {files}); install them by hand and try again");
    apt_get(progress, "updating the list of Debian packages", &["update"]).with_context(way_out)?;
    let arguments = [
        &["install", "--yes", "--no-install-recommends"],
        packages.as_slice(),
    ]
    .concat();
    apt_get(progress, &format!("installing {wanted}"), &arguments).with_context(way_out)
}

fn apt_get(progress: &Progress, doing: &str, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command
        .arg("--quiet")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive");
    // A machine that has just booted may be updating itself: wait for apt's lock instead of failing.
    command.args(["--option", "DPkg::Lock::Timeout=300"]);
    quiet::run(progress, doing, &mut command).map(drop)
}

/// Adds the musl target's standard library to the toolchain, unless it is installed already, by rustup or otherwise.
fn add_rust_target(progress: &Progress) -> Result<()> {
    let target = rust_target();
    let sysroot = quiet::run(
        progress,
        "asking rustc for its sysroot",
        Command::new("rustc").args(["--print", "sysroot"]),
    )
    .context(
        "Rust is needed to build Trivet: install it from https://rustup.rs, or see that root's PATH has it",
    )?;
    let sysroot = String::from_utf8(sysroot).context("rustc's sysroot is not UTF-8")?;
    if Path::new(sysroot.trim())
        .join("lib/rustlib")
        .join(&target)
        .join("lib")
        .exists()
    {
        return Ok(());
    }
    let mut rustup = Command::new("rustup");
    rustup.args(["target", "add", &target]);
    quiet::run(progress, &format!("adding the Rust target {target}"), &mut rustup)
        .map(drop)
        .with_context(|| {
            format!(
                "the Rust target {target} is missing, and the images hold nothing but static binaries; \
             without rustup, install your distribution's standard library for that target"
            )
        })
}

fn words<'a>(items: impl Iterator<Item = &'a str>) -> String {
    items.collect::<Vec<_>>().join(" ")
}

/// The program cargo: the one that runs this process, if any.
///
/// Its environment does not have the variables that cargo has set for this package. Build scripts such as ring's depend on
/// them, and cargo would rebuild everything that depends on ring, for two minutes, for each different package that calls it.
pub fn cargo() -> Command {
    let path = std::env::var_os("CARGO");
    apart_from_cargo(path.as_deref().unwrap_or(OsStr::new("cargo")))
}

/// A command that runs where nothing else wants the CPU, and ends with the thread that starts it, however that ends:
/// sched(7), `SCHED_IDLE`; prctl(2), `PR_SET_PDEATHSIG`.
pub(crate) fn idle(command: &Command) -> Command {
    let mut idle = apart_from_cargo("setpriv".as_ref());
    idle.args(["--pdeathsig", "TERM", "chrt", "--idle", "0"])
        .arg(command.get_program())
        .args(command.get_args())
        .stdin(Stdio::null());
    if let Some(directory) = command.get_current_dir() {
        idle.current_dir(directory);
    }
    idle
}

/// With these, cargo has clippy compile the workspace and deny all warnings. clippy is a driver of rustc; the variables are
/// those by which `cargo clippy` calls it, and the words of the second one are divided by that string.
pub const LINTS: [(&str, &str); 2] = [
    ("RUSTC_WORKSPACE_WRAPPER", "clippy-driver"),
    (
        "CLIPPY_ARGS",
        "--deny__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__",
    ),
];

/// A program without the variables that cargo sets for the package it runs. A cargo that finds them builds again what
/// depends on them. Nor does it have [`LINTS`]: what a test that is linted builds is compiled as it ships.
pub(crate) fn apart_from_cargo(program: &OsStr) -> Command {
    let mut command = Command::new(program);
    for (name, value) in std::env::vars_os() {
        if name.to_str().is_some_and(is_of_one_package) || is_of_lints(&name, &value) {
            command.env_remove(name);
        }
    }
    command
}

/// A user may have another wrapper.
fn is_of_lints(name: &OsStr, value: &OsStr) -> bool {
    LINTS
        .iter()
        .any(|(lint, wanted)| name == *lint && value == *wanted)
}

/// What cargo sets for the programs and build scripts of one package, by its reference's chapter on environment variables.
fn is_of_one_package(variable: &str) -> bool {
    ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"]
        .iter()
        .any(|prefix| variable.starts_with(prefix))
        || ["CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE", "OUT_DIR"].contains(&variable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_is_told_of_no_package_and_of_all_that_users_set() {
        // `cargo test` has told us of ours.
        let told: Vec<_> = std::env::vars()
            .filter(|(name, _)| is_of_one_package(name))
            .collect();
        assert!(!told.is_empty());
        let cargo = cargo();
        for (name, _) in told {
            let removed = cargo
                .get_envs()
                .any(|(key, value)| key == name.as_str() && value.is_none());
            assert!(removed, "{name}");
        }
        for kept in ["CARGO_HOME", "CARGO_TARGET_DIR", "CARGO_BUILD_JOBS", "RUSTFLAGS"] {
            assert!(!is_of_one_package(kept), "{kept}");
        }
    }

    #[test]
    fn what_a_linted_test_builds_is_not_linted_and_the_wrapper_of_a_user_stays() {
        for (name, value) in LINTS {
            assert!(is_of_lints(name.as_ref(), value.as_ref()), "{name}");
            assert!(!is_of_lints(name.as_ref(), "sccache".as_ref()), "{name}");
        }
    }

    #[test]
    fn a_tool_is_missing_only_when_no_directory_holds_it() {
        let here = tempfile::tempdir().unwrap();
        std::fs::write(here.path().join("present"), "").unwrap();
        let absolute = here.path().join("present").to_str().unwrap().to_owned().leak();
        let tools = [
            ("present", "a"),
            (absolute, "b"),
            ("absent", "c"),
            ("/no/such/file", "d"),
        ];

        let directories = [PathBuf::from("/no/such/directory"), here.path().to_owned()];
        let missing: Vec<_> = missing(&directories, &tools)
            .iter()
            .map(|(_, package)| *package)
            .collect();

        assert_eq!(missing, ["c", "d"]);
    }
}
