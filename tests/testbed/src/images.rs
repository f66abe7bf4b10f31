//! Container images made here: one static binary each and nothing else, as docker-archive tars.
//!
//! No registry is involved: the tars are imported into each host's containerd.

mod archive;
mod broken;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use self::archive::Image;
pub use self::broken::{Broken, broken};
use crate::progress::Progress;
use crate::{binaries, quiet, setup};

/// Where the images pretend to come from; every name is already present, so kubelet never pulls.
const REGISTRY: &str = "trivet.dev";

/// The proxy's package and image.
const PROXY: &str = "trivet-proxy";

/// The variable that names a directory with the images' archives, which are used instead of a build.
const ARCHIVES: &str = "TRIVET_IMAGE_DIR";

/// The tag of the operator's and the proxy's images.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The sandbox image that containerd is told to use.
pub const PAUSE: &str = "trivet.dev/pause:3.10";

/// The sandbox image, whose only process waits for its end.
pub fn pause(progress: &Progress) -> Result<PathBuf> {
    let (_, tag) = PAUSE
        .split_once(':')
        .context("the name of the pause image has no tag")?;
    let mut archives = images(progress, &[("trivet-pause", "pause")], tag)?;
    archives.pop().context("no image was built")
}

/// The image of the tests' pods.
pub const POD: &str = concat!("trivet.dev/trivet-pod:", env!("CARGO_PKG_VERSION"));

/// The image of what the tests' pods run.
pub fn pod(progress: &Progress) -> Result<PathBuf> {
    let program = binaries::for_tests(progress)?.pod;
    archive_of(&program, "trivet-pod", VERSION)
}

/// The operator's and the proxy's images, tagged with the workspace's version.
pub fn build(progress: &Progress) -> Result<Vec<PathBuf>> {
    build_tagged(progress, VERSION)
}

/// A build of the images beside other work, on what that leaves of the processors. It ends with this value.
#[derive(Debug)]
pub struct Beside(Vec<Child>);

/// Starts to compile what [`build`] needs, and does not wait for it. `build` waits, and reports what fails.
pub fn start_beside() -> Result<Beside> {
    if std::env::var_os(ARCHIVES).is_some() {
        return Ok(Beside(Vec::new()));
    }
    let mut children = Beside(Vec::new());
    for package in ["trivet-operator", "trivet-proxy"] {
        let mut idle = setup::idle(&compilation(package));
        idle.current_dir(env!("CARGO_MANIFEST_DIR"))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        children.0.push(idle.spawn().context("failed to start setpriv")?);
    }
    Ok(children)
}

impl Drop for Beside {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // It may have ended by itself.
            let _ended = child.kill();
            let _status = child.wait();
        }
    }
}

/// The same binaries as a new release for an upgrade: with another tag and so another digest.
///
/// [`ARCHIVES`], a directory with their archives, comes before a build.
pub fn build_tagged(progress: &Progress, tag: &str) -> Result<Vec<PathBuf>> {
    if let Some(directory) = std::env::var_os(ARCHIVES) {
        let archive = |image| Path::new(&directory).join(format!("{image}-{tag}.tar"));
        return Ok(vec![archive("trivet-operator"), archive("trivet-proxy")]);
    }
    images(
        progress,
        &[
            ("trivet-operator", "trivet-operator"),
            ("trivet-proxy", "trivet-proxy"),
        ],
        tag,
    )
}

/// Builds each (package, image) and writes its archive next to its binary, under the workspace's target directory.
fn images(progress: &Progress, wanted: &[(&str, &str)], tag: &str) -> Result<Vec<PathBuf>> {
    let write = |(package, image): &(&str, &str)| archive_of(&program(progress, package)?, image, tag);
    wanted.iter().map(write).collect()
}

/// Writes the archive of an image with one program beside that program.
fn archive_of(binary: &Path, image: &str, tag: &str) -> Result<PathBuf> {
    let beside = binary.parent().context("a binary lies in a directory")?;
    archive_into(&beside.join("images"), binary, image, tag)
}

/// Writes the archive of an image with one program into a directory.
pub(crate) fn archive_into(directory: &Path, binary: &Path, image: &str, tag: &str) -> Result<PathBuf> {
    let program = read(binary)?;
    archive_with(
        directory,
        &Image {
            registry: REGISTRY,
            name: image,
            tag,
            program: &program,
            beside: &[],
            environment: &[],
        },
    )
}

fn read(binary: &Path) -> Result<Vec<u8>> {
    fs::read(binary).with_context(|| format!("failed to read {}", binary.display()))
}

/// Writes the archive of an image into a directory.
fn archive_with(directory: &Path, image: &Image<'_>) -> Result<PathBuf> {
    let archive = archive_path(directory, image.name, image.tag)?;
    write_whole(&archive, &archive::docker_archive(image)?)?;
    Ok(archive)
}

/// The static program of a package, as its image holds it. It is built alone, because cargo gives packages that it builds
/// together the features that any of them needs.
pub fn program(progress: &Progress, package: &str) -> Result<PathBuf> {
    compiled(progress, &mut compilation(package), package)
}

/// Runs a build, and returns the program of `package` that it made.
pub(crate) fn compiled(progress: &Progress, build: &mut Command, package: &str) -> Result<PathBuf> {
    let doing = format!("building {package} for {}", setup::rust_target());
    progress.step(&doing);
    let messages = quiet::run(progress, &doing, build)?;
    let messages = String::from_utf8(messages).context("cargo's messages are not UTF-8")?;
    executable(&messages, package).with_context(|| format!("cargo built no program named {package}"))
}

fn compilation(package: &str) -> Command {
    let mut cargo = setup::cargo();
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    let profile = match package {
        "trivet-proxy" => "proxy",
        _ => "release",
    };
    cargo.args(["build", "--profile", profile, "--locked", "--package", package]);
    for_hosts(&mut cargo);
    cargo
}

/// Makes a build one of a static program, whose messages can be read.
pub(crate) fn for_hosts(build: &mut Command) {
    build.args(["--target", &setup::rust_target()]);
    build.arg("--message-format=json-render-diagnostics");
}

/// What we read of cargo's messages; only those about a built program have an executable.
#[derive(Deserialize)]
struct Message {
    executable: Option<PathBuf>,
    target: Option<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok())
        .filter(|message| message.target.as_ref().is_some_and(|target| target.name == name))
        .find_map(|message| message.executable)
}

fn archive_path(directory: &Path, image: &str, tag: &str) -> Result<PathBuf> {
    let fit = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    ensure!(
        !tag.is_empty() && tag.chars().all(fit),
        "image tag {tag:?} must be letters, digits, dots and dashes"
    );
    Ok(directory.join(format!("{image}-{tag}.tar")))
}

/// Writes an archive atomically, also if several write it at once.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = || format!("failed to write {}", path.display());
    let directory = path.parent().context("an archive lies in a directory")?;
    fs::create_dir_all(directory).with_context(failed)?;
    let mut partial = tempfile::NamedTempFile::new_in(directory).with_context(failed)?;
    partial.write_all(bytes).with_context(failed)?;
    partial.persist(path).with_context(failed)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_the_one_cargo_says_it_built() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"trivet-crds"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"trivet-proxy"},"executable":"/elsewhere/release/trivet-proxy"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(
            executable(messages, "trivet-proxy"),
            Some("/elsewhere/release/trivet-proxy".into())
        );
        assert_eq!(executable(messages, "trivet-crds"), None);
        assert_eq!(executable(messages, "trivet-operator"), None);
    }

    #[test]
    fn the_chart_installs_the_images_that_are_built_here() {
        let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts/trivet");
        let about = fs::read_to_string(chart.join("Chart.yaml")).unwrap();
        for key in ["version", "appVersion"] {
            assert!(
                about.lines().any(|line| line == format!("{key}: {VERSION}")),
                "{key} is not {VERSION}"
            );
        }
        let values = fs::read_to_string(chart.join("values.yaml")).unwrap();
        for image in ["trivet-operator", "trivet-proxy"] {
            assert!(
                values.contains(&format!("repository: {REGISTRY}/{image}\n")),
                "{image} is another image"
            );
        }
    }

    #[test]
    fn archives_are_named_by_image_and_tag() {
        let path = archive_path(Path::new("/t/release/images"), "trivet-proxy", "0.1.0").unwrap();
        assert_eq!(path, Path::new("/t/release/images/trivet-proxy-0.1.0.tar"));
    }

    #[test]
    fn an_archive_can_be_written_by_several_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("images/trivet-pod-0.1.0.tar");
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        write_whole(&path, b"the archive").unwrap();
                    }
                });
            }
        });
        assert_eq!(fs::read(&path).unwrap(), b"the archive");
        assert_eq!(fs::read_dir(directory.path().join("images")).unwrap().count(), 1);
    }

    #[test]
    fn a_tag_cannot_lead_out_of_the_directory() {
        assert!(archive_path(Path::new("/t/p"), "p", "../x").is_err());
        assert!(archive_path(Path::new("/t/p"), "p", "").is_err());
    }
}
