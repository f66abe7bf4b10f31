//! The manifest for krew, held to what krew demands of one and to the names that this crate has.

use std::collections::BTreeMap;

use clap::CommandFactory;
use serde::Deserialize;

use crate::cli::Cli;

const MANIFEST: &str = include_str!("../krew.yaml");

/// What a release puts in the place of each word.
const FILLED_IN: [(&str, &str); 5] = [
    ("vVERSION", "v1.2.3"),
    ("HOMEPAGE", "https://example.com/trivet"),
    ("URI", "https://example.com/trivet"),
    ("SHA256_AMD64", SHA256),
    ("SHA256_ARM64", SHA256),
];

const SHA256: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// krew refuses a field that it does not know.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Plugin {
    api_version: String,
    kind: String,
    metadata: Metadata,
    spec: Spec,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Spec {
    version: String,
    homepage: String,
    short_description: String,
    description: String,
    caveats: String,
    platforms: Vec<Platform>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Platform {
    selector: Selector,
    uri: String,
    sha256: String,
    bin: String,
    files: Vec<Copied>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Selector {
    match_labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Copied {
    from: String,
    to: String,
}

/// The manifest as a release has it.
fn released() -> Plugin {
    let body: String = MANIFEST
        .lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(|line| [line, "\n"])
        .collect();
    let text = FILLED_IN.iter().fold(body, |text, (word, value)| {
        assert!(text.contains(word), "{word} is not in the manifest");
        text.replace(word, value)
    });
    serde_saphyr::from_str(&text).unwrap()
}

#[test]
fn the_manifest_is_one_that_krew_takes_once_a_release_has_filled_it_in() {
    let Plugin {
        api_version,
        kind,
        metadata,
        spec,
    } = released();
    assert_eq!(api_version, "krew.googlecontainertools.github.com/v1alpha2");
    assert_eq!(kind, "Plugin");
    assert_eq!(metadata.name, "trivet");
    assert_eq!(spec.version, "v1.2.3");
    assert!(spec.homepage.starts_with("https://"), "{}", spec.homepage);
    let short = spec.short_description.as_str();
    assert!(!short.is_empty() && !short.contains('\n'), "{short:?}");
    assert_eq!(short, short.trim());
    assert!(!spec.description.is_empty());
    assert!(spec.caveats.contains("docs/plugin.md"), "{}", spec.caveats);
    assert!(!spec.platforms.is_empty());
    for platform in &spec.platforms {
        assert_eq!(platform.sha256, SHA256);
        let labels: Vec<_> = platform.selector.match_labels.keys().collect();
        assert_eq!(labels, ["arch", "os"], "krew selects by no other label");
    }
}

#[test]
fn each_archive_is_of_its_platform_and_has_the_program_and_the_licence() {
    for platform in released().spec.platforms {
        let of = |label: &str| platform.selector.match_labels[label].as_str();
        let archive = format!("/kubectl-trivet-{}-{}.tar.gz", of("os"), of("arch"));
        assert!(platform.uri.ends_with(&archive), "{}", platform.uri);
        let files: Vec<_> = platform.files.iter().map(|file| file.from.as_str()).collect();
        assert_eq!(files, ["kubectl-trivet", "LICENSE"]);
        assert!(platform.files.iter().all(|file| file.to == "."));
        assert_eq!(platform.bin, "kubectl-trivet");
    }
}

/// kubectl finds a plugin by the name of its program.
#[test]
fn the_program_is_that_of_kubectl_trivet() {
    let name = Cli::command().get_name().to_owned();
    assert_eq!(name, format!("kubectl-{}", released().metadata.name));
}
