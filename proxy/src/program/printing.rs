//! `trivet-proxy manifest`: reads the files that its flags name, and prints.

use std::{fs, path::Path, process::ExitCode};

use anyhow::{Context, Result};

use super::{
    USAGE,
    cli::{ManifestArguments, Print},
};
use crate::{
    clock,
    manifest::{
        self, Author, Output, Standby,
        confinement::Confinement,
        seed::{self, CheckedSeed, Parts},
    },
};

/// Prints the manifest, or says which flag is wrong.
pub(crate) fn manifest(arguments: ManifestArguments) -> Result<ExitCode> {
    let (image, namespace) = (arguments.image.clone(), arguments.namespace.clone());
    let (platform, print) = (arguments.platform.into(), arguments.print);
    let CheckedSeed {
        seed,
        pool,
        drain_timeout_seconds,
    } = match checked_seed(arguments) {
        Ok(checked) => checked,
        Err(error) => {
            eprintln!("trivet-proxy: {error:#}");
            return Ok(ExitCode::from(USAGE));
        }
    };
    let manifest = manifest::render(&Standby {
        pool,
        image,
        namespace,
        seed: Some(seed),
        author: Author::Command,
        zone: None,
        output: Output::default(),
        drain_timeout_seconds,
        confinement: Confinement::default(),
        platform,
    })
    .context("failed to write the manifest")?;
    match print {
        Print::Manifest => print!("{}", manifest.text),
        Print::Name => println!("{}", manifest.name),
    }
    Ok(ExitCode::SUCCESS)
}

fn checked_seed(arguments: ManifestArguments) -> Result<CheckedSeed> {
    let now = clock::unix_seconds();
    if let Some(file) = arguments.document {
        let text = read("--document", &file)?;
        return seed::check(text, now).with_context(|| format!("--document {}", file.display()));
    }
    let authorities = match &arguments.ca_file {
        Some(file) => read("--ca-file", file)?,
        None => String::new(),
    };
    let parts = Parts {
        pool: arguments.pool,
        members: arguments.members,
        listen: arguments.listen,
        authorities,
        tls_server_name: arguments.tls_server_name,
        nodes: arguments.nodes,
    };
    Ok(seed::from_parts(parts, now)?)
}

fn read(flag: &str, file: &Path) -> Result<String> {
    fs::read_to_string(file)
        .with_context(|| format!("{flag} {} must be a file that can be read", file.display()))
}
