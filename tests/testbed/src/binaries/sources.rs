//! The digest of a directory of sources, which changes with every change in it.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest as _, Sha256};

/// As many digits as git shows of a commit: enough for a name in a cache.
const DIGITS: usize = 12;

/// A digest of every file below `directory`, by path and content.
pub(super) fn digest(directory: &Path) -> Result<String> {
    let mut files = Vec::new();
    collect(directory, &mut files)?;
    files.sort_unstable();
    let mut digest = Sha256::new();
    for file in files {
        let failed = || format!("failed to read {}", file.display());
        let content = fs::read(&file).with_context(failed)?;
        let name = file.strip_prefix(directory).unwrap_or(&file);
        // With the lengths, so that bytes that move from one file to the next change the digest.
        digest.update(format!("{} {}\n", name.display(), content.len()));
        digest.update(content);
    }
    let mut hex = String::new();
    for byte in digest.finalize().iter().take(DIGITS / 2) {
        write!(hex, "{byte:02x}")?;
    }
    Ok(hex)
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let failed = || format!("failed to read {}", directory.display());
    for entry in fs::read_dir(directory).with_context(failed)? {
        let entry = entry.with_context(failed)?;
        if entry.file_type().with_context(failed)?.is_dir() {
            collect(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_and_every_name_counts_and_nothing_else() {
        let here = tempfile::tempdir().unwrap();
        let below = here.path().join("below");
        fs::create_dir(&below).unwrap();
        fs::write(below.join("a"), "one").unwrap();
        let first = digest(here.path()).unwrap();
        assert_eq!(first.len(), DIGITS);

        fs::write(below.join("a"), "two").unwrap();
        assert_ne!(digest(here.path()).unwrap(), first);
        fs::write(below.join("a"), "one").unwrap();
        assert_eq!(digest(here.path()).unwrap(), first);
        fs::rename(below.join("a"), below.join("b")).unwrap();
        assert_ne!(digest(here.path()).unwrap(), first);
    }
}
