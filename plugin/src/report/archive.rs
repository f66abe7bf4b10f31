//! The archive: files in one directory, compressed.

use std::io::{self, Write};

use anyhow::{Context, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;

/// The directory of all files.
const DIRECTORY: &str = "trivet-report";

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its name in the archive.
    pub(super) name: String,
    /// What is in it.
    pub(super) content: Vec<u8>,
}

impl Entry {
    /// A file with a value.
    pub(super) fn json(name: &str, value: &impl Serialize) -> Result<Self> {
        let text =
            serde_json::to_string_pretty(value).with_context(|| format!("failed to serialise {name}"))?;
        Ok(Self::text(name, &text))
    }

    /// A file with a text.
    pub(super) fn text(name: &str, text: &str) -> Self {
        Self {
            name: name.to_owned(),
            content: text.as_bytes().to_vec(),
        }
    }
}

/// Writes the files to `out`, dated `now` in Unix seconds.
pub(super) fn write(out: impl Write, entries: &[Entry], now: i64) -> io::Result<()> {
    let mut archive = tar::Builder::new(GzEncoder::new(out, Compression::default()));
    for entry in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o600);
        header.set_mtime(u64::try_from(now).unwrap_or_default());
        header.set_size(u64::try_from(entry.content.len()).unwrap_or(u64::MAX));
        let path = format!("{DIRECTORY}/{}", entry.name);
        archive.append_data(&mut header, path, entry.content.as_slice())?;
    }
    archive.into_inner()?.finish()?.flush()
}
