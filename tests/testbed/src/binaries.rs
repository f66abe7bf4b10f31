//! Kubernetes, etcd and helm, built from the modules committed in `binaries/` and cached by version; and the Go programs
//! of the tests and of the benchmark, cached by their sources.
//!
//! Each go.mod is the only place that names a version; go.sum pins every byte that goes in.

mod gomod;
mod sources;

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use self::gomod::GoMod;
use crate::progress::Progress;
use crate::quiet;

/// The directories that hold the programs of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    /// kube-apiserver, kube-controller-manager, kube-scheduler, kubelet, kube-proxy, kubeadm and kubectl.
    pub kubernetes: PathBuf,
    /// etcd.
    pub etcd: PathBuf,
    /// helm.
    pub helm: PathBuf,
}

/// The Go programs of the tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestPrograms {
    /// Informers and a writer.
    pub client: PathBuf,
    /// What the tests' pods run.
    pub pod: PathBuf,
}

/// Programs that are built from one module, at one version.
struct Set {
    /// The first half of its name in the cache.
    name: &'static str,
    /// The directory of its go.mod, from that of this crate.
    directory: &'static str,
    version: Version,
    /// The string variables, set by the linker, by which the programs know their version.
    stamp: fn(&str) -> Vec<String>,
}

/// The version of a set, which identifies a build in the cache.
enum Version {
    /// The version of this module.
    Of(&'static str),
    /// A digest of the sources, for programs of this repository.
    OfSources,
}

const KUBERNETES: Set = Set {
    name: "kubernetes",
    directory: "binaries/kubernetes",
    version: Version::Of("k8s.io/kubernetes"),
    stamp: kubernetes_stamp,
};
const ETCD: Set = Set {
    name: "etcd",
    directory: "binaries/etcd",
    version: Version::Of("go.etcd.io/etcd/server/v3"),
    stamp: |_| vec![],
};
const HELM: Set = Set {
    name: "helm",
    directory: "binaries/helm",
    version: Version::Of("helm.sh/helm/v4"),
    stamp: |version| vec![format!("helm.sh/helm/v4/internal/version.version={version}")],
};
const TESTS: Set = Set {
    name: "client-go",
    directory: "../client-go",
    version: Version::OfSources,
    stamp: |_| vec![],
};
const EXTERNAL_DNS: Set = Set {
    name: "external-dns-follower",
    directory: "../dns",
    version: Version::OfSources,
    stamp: |_| vec![],
};
const GO_LOADBALANCER: Set = Set {
    name: "go-loadbalancer",
    directory: "../bench/peers/go-loadbalancer",
    version: Version::OfSources,
    stamp: |_| vec![],
};

/// Finds the programs in the cache, or builds them (about eight minutes on two cores).
///
/// `KUBE_BIN_DIR`, one directory with all of them, comes before the cache.
pub fn ensure(progress: &Progress) -> Result<Binaries> {
    if let Some(directory) = std::env::var_os("KUBE_BIN_DIR") {
        return given(Path::new(&directory));
    }
    let cache = cache_directory()?;
    Ok(Binaries {
        kubernetes: ensure_set(progress, &KUBERNETES, &cache)?,
        etcd: ensure_set(progress, &ETCD, &cache)?,
        helm: ensure_set(progress, &HELM, &cache)?,
    })
}

/// Finds the tests' own Go programs in the cache, or tests and builds them (a minute on two cores).
pub fn for_tests(progress: &Progress) -> Result<TestPrograms> {
    let directory = ensure_set(progress, &TESTS, &cache_directory()?)?;
    Ok(TestPrograms {
        client: directory.join("trivet-client"),
        pod: directory.join("trivet-pod"),
    })
}

/// Finds external-dns with records in memory in the cache, or tests and builds it (three minutes on two cores).
pub fn external_dns(progress: &Progress) -> Result<PathBuf> {
    let directory = ensure_set(progress, &EXTERNAL_DNS, &cache_directory()?)?;
    Ok(directory.join(EXTERNAL_DNS.name))
}

/// The CRD of DNSEndpoints, as the release of external-dns has it that the tests name. It fetches this release if need be.
pub fn dns_endpoint_crd() -> Result<PathBuf> {
    let mut go = go(&EXTERNAL_DNS);
    go.args(["mod", "download", "-json", "sigs.k8s.io/external-dns"]);
    let output = go.output().context("failed to run go")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let found: serde_json::Value =
        serde_json::from_str(&said).with_context(|| format!("go mod download says {said}"))?;
    let directory = found
        .get("Dir")
        .and_then(serde_json::Value::as_str)
        .with_context(|| format!("external-dns was not fetched: {said}"))?;
    Ok(Path::new(directory).join("config/crd/standard/dnsendpoints.externaldns.k8s.io.yaml"))
}

/// Finds the benchmark's peer that is written in Go in the cache, or builds it (seconds).
pub fn for_bench(progress: &Progress) -> Result<PathBuf> {
    let directory = ensure_set(progress, &GO_LOADBALANCER, &cache_directory()?)?;
    Ok(directory.join("go-loadbalancer"))
}

/// A directory of the user: checks only that no program is missing in it.
fn given(directory: &Path) -> Result<Binaries> {
    for set in [&KUBERNETES, &ETCD, &HELM] {
        let text = read_gomod(set)?;
        let programs = programs(set, &GoMod::parse(&text)?);
        if let Some(absent) = absent(directory, &programs) {
            bail!(
                "KUBE_BIN_DIR is {}, but there is no {absent} in it: put it there, or unset KUBE_BIN_DIR to build it",
                directory.display()
            );
        }
    }
    let directory = directory.to_owned();
    Ok(Binaries {
        kubernetes: directory.clone(),
        etcd: directory.clone(),
        helm: directory,
    })
}

/// The directory of all that was built or fetched once.
pub fn cache_directory() -> Result<PathBuf> {
    let base = match (std::env::var_os("XDG_CACHE_HOME"), std::env::var_os("HOME")) {
        (Some(cache), _) if !cache.is_empty() => PathBuf::from(cache),
        (_, Some(home)) if !home.is_empty() => Path::new(&home).join(".cache"),
        (_, _) => bail!("neither XDG_CACHE_HOME nor HOME is set: there is no place to keep built binaries"),
    };
    Ok(base.join("trivet"))
}

fn ensure_set(progress: &Progress, set: &Set, cache: &Path) -> Result<PathBuf> {
    let text = read_gomod(set)?;
    let gomod = GoMod::parse(&text).with_context(|| format!("failed to read {}", source(set).display()))?;
    let version = &version(set, &gomod)?;
    let programs = programs(set, &gomod);
    let done = cache.join(format!("{}-{version}", set.name));
    if absent(&done, &programs).is_none() {
        return Ok(done);
    }

    let _lock = lock(progress, cache)?;
    // The process that held the lock before us may have built it.
    if absent(&done, &programs).is_some() {
        check_go(progress, set, &gomod)?;
        check_sources(progress, set)?;
        let partial = cache.join(format!(".{}-{version}.partial", set.name));
        remove(&partial)?;
        for (index, program) in programs.iter().enumerate() {
            let doing = format!(
                "building {} {version} ({} of {})",
                program.name,
                index + 1,
                programs.len()
            );
            progress.step(&doing);
            build(progress, &doing, set, version, program, &partial)?;
        }
        remove(&done)?;
        fs::rename(&partial, &done).with_context(|| format!("failed to keep {}", done.display()))?;
    }
    Ok(done)
}

fn version(set: &Set, gomod: &GoMod<'_>) -> Result<String> {
    match set.version {
        Version::Of(module) => gomod
            .version_of(module)
            .map(str::to_owned)
            .with_context(|| format!("no version of {module}")),
        Version::OfSources => sources::digest(&source(set)),
    }
}

/// Runs the programs' own tests: one that counts wrong would make scenarios pass.
fn check_sources(progress: &Progress, set: &Set) -> Result<()> {
    match set.version {
        Version::Of(_) => Ok(()),
        Version::OfSources => {
            let doing = format!("testing {}", set.name);
            progress.step(&doing);
            quiet::run(progress, &doing, go(set).args(["test", "-trimpath", "./..."])).map(drop)
        }
    }
}

/// A program and the Go package that it is the `main` of.
#[derive(Debug, PartialEq, Eq)]
struct Program {
    name: String,
    package: String,
}

/// A set of one program gives it its name: etcd's package is called `server/v3`.
fn programs(set: &Set, gomod: &GoMod<'_>) -> Vec<Program> {
    let name = |package: &str| match (gomod.tools.as_slice(), package.rsplit_once('/')) {
        ([_, _, ..], Some((_, last))) => last.to_owned(),
        (_, _) => set.name.to_owned(),
    };
    gomod
        .tools
        .iter()
        .map(|&package| Program {
            name: name(package),
            package: package.to_owned(),
        })
        .collect()
}

fn absent<'a>(directory: &Path, programs: &'a [Program]) -> Option<&'a str> {
    programs
        .iter()
        .map(|program| program.name.as_str())
        .find(|name| !directory.join(name).is_file())
}

fn build(
    progress: &Progress,
    doing: &str,
    set: &Set,
    version: &str,
    program: &Program,
    into: &Path,
) -> Result<()> {
    let mut flags = "-s -w".to_owned();
    for variable in (set.stamp)(version) {
        flags.push_str(" -X ");
        flags.push_str(&variable);
    }
    let mut go = go(set);
    go.args(["build", "-trimpath", "-ldflags", &flags, "-o"]);
    go.arg(into.join(&program.name)).arg(&program.package);
    quiet::run(progress, doing, &mut go).map(drop)
}

/// Without its version kubeadm would look for one on the network, and the servers would report v0.0.0.
fn kubernetes_stamp(version: &str) -> Vec<String> {
    let mut numbers = version.trim_start_matches('v').split('.');
    let major = numbers.next().unwrap_or_default();
    let minor = numbers.next().unwrap_or_default();
    // component-base is what the servers report, client-go what their clients say in User-Agent.
    ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"]
        .iter()
        .flat_map(|package| {
            [
                format!("{package}.gitVersion={version}"),
                format!("{package}.gitMajor={major}"),
                format!("{package}.gitMinor={minor}"),
                format!("{package}.gitTreeState=clean"),
            ]
        })
        .collect()
}

/// Go in the set's module, for this machine, whatever the user's own settings are.
fn go(set: &Set) -> Command {
    let mut go = Command::new("go");
    go.current_dir(source(set))
        .env_remove("GOOS")
        .env_remove("GOARCH");
    // Static, so that the programs run in every host's mount namespace and need no C compiler.
    go.env("CGO_ENABLED", "0");
    // go.mod and go.sum are committed and complete: a build must not edit them, nor use a surrounding Go workspace.
    go.env("GOFLAGS", "-mod=readonly").env("GOWORK", "off");
    go
}

fn check_go(progress: &Progress, set: &Set, gomod: &GoMod<'_>) -> Result<()> {
    let wanted = gomod.go;
    let way_out = || {
        format!(
            "Go {wanted} or newer is needed to build {}: install it (https://go.dev/dl) and see that root's PATH has it",
            set.name
        )
    };
    let said =
        quiet::run(progress, "asking go for its version", go(set).arg("version")).with_context(way_out)?;
    let said = String::from_utf8_lossy(&said);
    // "go version go1.26.8 linux/amd64"
    let have = said
        .split_whitespace()
        .nth(2)
        .unwrap_or_default()
        .trim_start_matches("go");
    ensure!(gomod::at_least(have, wanted), "found Go {have}; {}", way_out());
    Ok(())
}

/// Two builds at once would need twice the memory, and be no faster.
pub(crate) fn lock(progress: &Progress, cache: &Path) -> Result<File> {
    let path = cache.join(".lock");
    let failed = || format!("failed to lock {}", path.display());
    fs::create_dir_all(cache).with_context(failed)?;
    let file = File::create(&path).with_context(failed)?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => progress.step("waiting for another build of the same binaries"),
        Err(TryLockError::Error(error)) => return Err(error).with_context(failed),
    }
    file.lock().with_context(failed)?;
    Ok(file)
}

pub(crate) fn remove(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("failed to remove {}", directory.display()))
        }
        _ => Ok(()),
    }
}

fn read_gomod(set: &Set) -> Result<String> {
    let path = source(set).join("go.mod");
    fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))
}

fn source(set: &Set) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(set.directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(set: &Set) -> Vec<String> {
        let text = read_gomod(set).unwrap();
        programs(set, &GoMod::parse(&text).unwrap())
            .into_iter()
            .map(|program| program.name)
            .collect()
    }

    #[test]
    fn the_committed_modules_name_every_program_of_a_cluster() {
        let kubernetes = [
            "kube-apiserver",
            "kube-controller-manager",
            "kube-proxy",
            "kube-scheduler",
            "kubeadm",
            "kubectl",
            "kubelet",
        ];
        assert_eq!(names(&KUBERNETES), kubernetes);
        assert_eq!(names(&ETCD), ["etcd"]);
        assert_eq!(names(&HELM), ["helm"]);
        assert_eq!(names(&TESTS), ["trivet-client", "trivet-pod"]);
        assert_eq!(names(&GO_LOADBALANCER), ["go-loadbalancer"]);
    }

    #[test]
    fn the_committed_modules_name_the_version_of_their_set() {
        for set in [&KUBERNETES, &ETCD, &HELM] {
            let text = read_gomod(set).unwrap();
            let gomod = GoMod::parse(&text).unwrap();
            assert!(version(set, &gomod).unwrap().starts_with('v'), "{}", set.name);
        }
    }

    #[test]
    fn kubernetes_learns_its_version_from_the_linker() {
        let stamp = kubernetes_stamp("v1.34.4");
        assert!(stamp.contains(&"k8s.io/component-base/version.gitVersion=v1.34.4".to_owned()));
        assert!(stamp.contains(&"k8s.io/component-base/version.gitMajor=1".to_owned()));
        assert!(stamp.contains(&"k8s.io/component-base/version.gitMinor=34".to_owned()));
    }

    #[test]
    fn a_given_directory_that_lacks_a_program_is_refused_by_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let all = [names(&KUBERNETES), names(&ETCD), names(&HELM)].concat();
        for name in all.iter().filter(|name| *name != "kubelet") {
            fs::write(directory.path().join(name), "").unwrap();
        }
        let refusal = given(directory.path()).unwrap_err().to_string();
        assert!(refusal.contains("there is no kubelet in it"), "{refusal}");

        fs::write(directory.path().join("kubelet"), "").unwrap();
        assert_eq!(given(directory.path()).unwrap().etcd, directory.path());
    }
}
