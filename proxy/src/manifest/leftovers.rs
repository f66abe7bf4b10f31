//! What the proxies of a pool leave on a node: the directory of their cache, and the one in which they met.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::names::PoolName;

/// The directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftovers {
    cache: PathBuf,
    run: PathBuf,
}

/// Why a directory cannot be removed, or looked for.
#[derive(Debug, thiserror::Error)]
#[error("failed to {attempt} {}", path.display())]
pub struct Error {
    /// What was tried.
    attempt: &'static str,
    /// The directory.
    path: PathBuf,
    /// What the kernel says.
    source: io::Error,
}

impl Leftovers {
    /// Those of a pool, below the directories of all pools.
    pub fn of(pool: &PoolName, cache_root: &Path, run_root: &Path) -> Self {
        Self {
            cache: cache_root.join(pool.as_str()),
            run: run_root.join(pool.as_str()),
        }
    }

    /// The directory in which the proxies meet.
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// Which of them are there.
    pub fn left(&self) -> Result<Vec<&Path>, Error> {
        let mut left = Vec::new();
        for path in [self.cache.as_path(), &self.run] {
            match fs::symlink_metadata(path) {
                Ok(_) => left.push(path),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(failure("look for", path, source)),
            }
        }
        Ok(left)
    }

    /// Removes them with all that is in them. Returns those that were there. A symbolic link goes, and not what it names.
    pub fn remove(&self) -> Result<Vec<&Path>, Error> {
        let left = self.left()?;
        for path in &left {
            match fs::remove_dir_all(path) {
                Ok(()) => {}
                // A proxy that ends removes files of its own.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(failure("remove", path, source)),
            }
        }
        Ok(left)
    }
}

fn failure(attempt: &'static str, path: &Path, source: io::Error) -> Error {
    Error {
        attempt,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_directories_of_the_pool_go_and_those_of_another_stay() {
        let root = tempfile::tempdir().unwrap();
        let (caches, runs) = (root.path().join("lib"), root.path().join("run"));
        for parent in [&caches, &runs] {
            for pool in ["a", "a.b", "b"] {
                fs::create_dir_all(parent.join(pool)).unwrap();
                fs::write(parent.join(pool).join("file"), "").unwrap();
            }
        }
        let leftovers = Leftovers::of(&"a".parse().unwrap(), &caches, &runs);
        assert_eq!(leftovers.left().unwrap().len(), 2);
        assert_eq!(leftovers.remove().unwrap(), [caches.join("a"), runs.join("a")]);
        assert!(leftovers.left().unwrap().is_empty() && leftovers.remove().unwrap().is_empty());
        for parent in [&caches, &runs] {
            assert!(parent.join("a.b/file").exists() && parent.join("b/file").exists());
        }
    }

    #[test]
    fn a_link_is_removed_and_what_it_names_stays() {
        let root = tempfile::tempdir().unwrap();
        let elsewhere = root.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        fs::write(elsewhere.join("file"), "").unwrap();
        symlink(&elsewhere, root.path().join("a")).unwrap();
        let missing = root.path().join("missing");
        let leftovers = Leftovers::of(&"a".parse().unwrap(), root.path(), &missing);
        leftovers.remove().unwrap();
        assert!(leftovers.left().unwrap().is_empty() && elsewhere.join("file").exists());
    }
}
