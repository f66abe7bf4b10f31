//! The docker-archive of an image with one program: a pure function of its bytes, so the same binary is the same image.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use serde_json::json;
use sha2::{Digest, Sha256};

/// An image with a program in it, its entry point, and the files that it needs besides.
#[derive(Clone, Copy)]
pub(super) struct Image<'a> {
    pub(super) registry: &'a str,
    pub(super) name: &'a str,
    pub(super) tag: &'a str,
    pub(super) program: &'a [u8],
    /// Files by their absolute paths.
    pub(super) beside: &'a [(String, Vec<u8>)],
    /// Variables of the program, each as `NAME=value`.
    pub(super) environment: &'a [String],
}

/// One file of a tar, at its root.
struct Entry<'a> {
    path: &'a str,
    mode: u32,
    bytes: &'a [u8],
}

/// The archive, as `ctr images import` takes it.
pub(super) fn docker_archive(image: &Image<'_>) -> Result<Vec<u8>> {
    let program = Entry {
        path: image.name,
        mode: 0o755,
        bytes: image.program,
    };
    let beside = image.beside.iter().map(|(path, bytes)| Entry {
        path: path.trim_start_matches('/'),
        mode: 0o755,
        bytes,
    });
    let files: Vec<_> = std::iter::once(program).chain(beside).collect();
    let layer = tar(&files)?;
    let config = serde_json::to_vec(&json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {
            "Entrypoint": [format!("/{}", image.name)],
            "Env": image.environment,
            // In the configuration, so that one binary under two tags is two images, as two releases are.
            "Labels": { "org.opencontainers.image.version": image.tag },
        },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", hex_digest(&layer)?)] },
    }))?;
    let config_path = format!("{}.json", hex_digest(&config)?);
    let manifest = serde_json::to_vec(&json!([{
        "Config": config_path,
        "RepoTags": [format!("{}/{}:{}", image.registry, image.name, image.tag)],
        "Layers": ["layer.tar"],
    }]))?;
    tar(&[
        Entry {
            path: &config_path,
            mode: 0o644,
            bytes: &config,
        },
        Entry {
            path: "layer.tar",
            mode: 0o644,
            bytes: &layer,
        },
        Entry {
            path: "manifest.json",
            mode: 0o644,
            bytes: &manifest,
        },
    ])
}

/// Without owners and times, and in the given order, so that the result does not depend on the machine.
fn tar(entries: &[Entry<'_>]) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for entry in entries {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(entry.mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(u64::try_from(entry.bytes.len())?);
        tar.append_data(&mut header, entry.path, entry.bytes)
            .with_context(|| format!("failed to add {} to an archive", entry.path))?;
    }
    tar.into_inner().context("failed to end an archive")
}

fn hex_digest(bytes: &[u8]) -> Result<String> {
    let mut hex = String::new();
    for byte in Sha256::digest(bytes) {
        write!(hex, "{byte:02x}")?;
    }
    Ok(hex)
}

/// This machine's architecture as images call it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read;

    use serde_json::Value;

    use super::*;

    const PROXY: Image<'_> = Image {
        registry: "trivet.dev",
        name: "trivet-proxy",
        tag: "0.1.0",
        program: b"\x7fELF",
        beside: &[],
        environment: &[],
    };

    fn unpack(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(archive);
        let entry = |entry: std::io::Result<tar::Entry<'_, _>>| {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            (entry.path().unwrap().to_str().unwrap().to_owned(), bytes)
        };
        archive.entries().unwrap().map(entry).collect()
    }

    fn manifest_and_config(files: &BTreeMap<String, Vec<u8>>) -> (Value, Value) {
        let manifest: Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
        let config = serde_json::from_slice(&files[manifest[0]["Config"].as_str().unwrap()]).unwrap();
        (manifest, config)
    }

    #[test]
    fn the_image_has_its_name_and_starts_its_program() {
        let (manifest, config) = manifest_and_config(&unpack(&docker_archive(&PROXY).unwrap()));
        assert_eq!(manifest[0]["RepoTags"], json!(["trivet.dev/trivet-proxy:0.1.0"]));
        assert_eq!(config["config"]["Entrypoint"], json!(["/trivet-proxy"]));
        assert_eq!(config["os"], "linux");
    }

    #[test]
    fn the_only_layer_holds_the_program_and_nothing_else() {
        let files = unpack(&docker_archive(&PROXY).unwrap());
        let (manifest, config) = manifest_and_config(&files);
        assert_eq!(manifest[0]["Layers"], json!(["layer.tar"]));
        let layer = &files["layer.tar"];
        let digest = format!("sha256:{}", hex_digest(layer).unwrap());
        assert_eq!(config["rootfs"]["diff_ids"], json!([digest]));

        let program = BTreeMap::from([("trivet-proxy".to_owned(), b"\x7fELF".to_vec())]);
        assert_eq!(unpack(layer), program);
        let mode = tar::Archive::new(layer.as_slice())
            .entries()
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .header()
            .mode();
        assert_eq!(mode.unwrap(), 0o755);
    }

    #[test]
    fn a_program_that_needs_files_and_variables_has_them() {
        let image = Image {
            beside: &[("/lib64/ld.so".to_owned(), b"loader".to_vec())],
            environment: &["FAULT=some".to_owned()],
            ..PROXY
        };
        let files = unpack(&docker_archive(&image).unwrap());
        let (_, config) = manifest_and_config(&files);
        assert_eq!(config["config"]["Env"], json!(["FAULT=some"]));
        assert_eq!(unpack(&files["layer.tar"])["lib64/ld.so"], b"loader");
    }

    #[test]
    fn the_same_program_is_the_same_archive() {
        assert_eq!(docker_archive(&PROXY).unwrap(), docker_archive(&PROXY).unwrap());
        for entry in tar::Archive::new(docker_archive(&PROXY).unwrap().as_slice())
            .entries()
            .unwrap()
        {
            assert_eq!(entry.unwrap().header().mtime().unwrap(), 0);
        }
    }

    #[test]
    fn another_tag_is_another_image() {
        let next = Image {
            tag: "0.1.0-next",
            ..PROXY
        };
        let config = |image| {
            let files = unpack(&docker_archive(image).unwrap());
            manifest_and_config(&files).0[0]["Config"].clone()
        };
        assert_ne!(config(&PROXY), config(&next));
    }
}
