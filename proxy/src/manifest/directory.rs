//! Kubelet's directory of static pods, as far as the manifests of one program are in it. Files of others are never touched,
//! and are not even opened.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use super::{Manifest, file::ManifestName, names::PoolName, without_seed};

/// The mode of kubeadm's manifests.
const MODE: u32 = 0o600;

/// Why the directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("failed to {attempt} --directory {} ({})", path.display(), remedy(source.kind()))]
pub struct Error {
    /// What was tried.
    attempt: String,
    /// The directory.
    path: PathBuf,
    /// What the kernel says.
    source: io::Error,
}

fn remedy(kind: io::ErrorKind) -> &'static str {
    use io::ErrorKind::{
        NotADirectory, NotFound, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull,
    };
    match kind {
        NotFound | NotADirectory => {
            "it must be the staticPodPath of kubelet's configuration: name that one, or make it and set staticPodPath"
        }
        ReadOnlyFilesystem => {
            "its file system must be writable: mount it so, or use the way of this platform to run static pods (machine.pods of Talos)"
        }
        PermissionDenied => {
            "root must be allowed to write there: look at the attributes of the directory (lsattr) and at the labels of SELinux or the profile of AppArmor"
        }
        StorageFull | QuotaExceeded => "make room on its file system",
        _ => "look at the disk of the node",
    }
}

/// Whether a file has this manifest, but for its seed.
fn is_same(there: &[u8], text: &str) -> bool {
    str::from_utf8(there).is_ok_and(|there| without_seed(there) == without_seed(text))
}

/// The directory.
#[derive(Debug)]
pub struct ManifestDirectory {
    path: PathBuf,
    opened: File,
}

impl ManifestDirectory {
    /// Opens a directory, which must be there: kubelet does not look for one that is made for it.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let opened = File::open(path).and_then(|opened| {
            if opened.metadata()?.is_dir() {
                Ok(opened)
            } else {
                Err(io::ErrorKind::NotADirectory.into())
            }
        });
        let opened = opened.map_err(|source| Error {
            attempt: "open".to_owned(),
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            path: path.to_owned(),
            opened,
        })
    }

    /// Puts a manifest in its place, unless it is there already, with whatever seed: kubelet would end the standby of a file that
    /// changes before it starts the next one. Kubelet sees the whole file or none: it never reads a name
    /// that begins with a dot. Returns whether anything was written.
    pub fn write(&self, manifest: &Manifest) -> Result<bool, Error> {
        let name = manifest.name.file();
        let failure = |source| self.failure(format!("write {name} in"), source);
        match fs::read(self.path.join(&name)) {
            Ok(there) if is_same(&there, &manifest.text) => return Ok(false),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failure(error)),
        }
        let temporary = self.path.join(manifest.name.temporary());
        let written = remove(&temporary)
            .and_then(|_| write_whole(&temporary, &manifest.text))
            .and_then(|()| fs::rename(&temporary, self.path.join(&name)));
        if let Err(error) = written {
            // The first failure is the one to tell.
            let _removed = remove(&temporary);
            return Err(failure(error));
        }
        self.opened.sync_all().map_err(failure)?;
        Ok(true)
    }

    /// The manifests of a pool that are there.
    pub fn manifests(&self, pool: &PoolName) -> Result<Vec<ManifestName>, Error> {
        let named = self.names()?.into_iter();
        let mut found: Vec<_> = named
            .filter_map(|name| ManifestName::of_file(&name))
            .filter(|name| name.is_of(pool))
            .collect();
        found.sort();
        Ok(found)
    }

    /// Removes a manifest. Returns whether it was there.
    pub fn remove(&self, name: &ManifestName) -> Result<bool, Error> {
        let file = name.file();
        remove(&self.path.join(&file))
            .and_then(|was_there| self.opened.sync_all().map(|()| was_there))
            .map_err(|source| self.failure(format!("remove {file} from"), source))
    }

    /// Removes what writers of this pool left that were killed before their rename.
    pub fn remove_temporaries(&self, pool: &PoolName) -> Result<(), Error> {
        let named = self.names()?.into_iter();
        for name in named.filter_map(|name| ManifestName::of_temporary(&name)) {
            if name.is_of(pool) {
                let file = name.temporary();
                remove(&self.path.join(&file))
                    .map_err(|source| self.failure(format!("remove {file} from"), source))?;
            }
        }
        Ok(())
    }

    /// The names of all files. Kubelet does not look into directories.
    fn names(&self) -> Result<Vec<String>, Error> {
        let failure = |source| self.failure("list".to_owned(), source);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failure)? {
            let entry = entry.map_err(failure)?;
            if !entry.file_type().map_err(failure)?.is_dir() {
                // Names of ours are ASCII.
                names.extend(entry.file_name().into_string());
            }
        }
        Ok(names)
    }

    fn failure(&self, attempt: String, source: io::Error) -> Error {
        Error {
            attempt,
            path: self.path.clone(),
            source,
        }
    }
}

fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(MODE).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Removes a file. Returns whether it was there.
fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::*;

    fn pool(name: &str) -> PoolName {
        name.parse().unwrap()
    }

    fn manifest(pool_name: &str, template: &str, text: &str) -> Manifest {
        Manifest {
            name: ManifestName::new(&pool(pool_name), template),
            text: text.to_owned(),
        }
    }

    fn directory() -> (TempDir, ManifestDirectory) {
        let path = tempfile::tempdir().unwrap();
        let directory = ManifestDirectory::open(path.path()).unwrap();
        (path, directory)
    }

    fn files(path: &TempDir) -> Vec<String> {
        let entries = fs::read_dir(path.path()).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_manifest_is_written_once_and_only_for_root() {
        let (path, directory) = directory();
        let manifest = manifest("a", "00000001", "kind: Pod\n");
        assert!(directory.write(&manifest).unwrap());
        let file = path.path().join("trivet-a-00000001.yaml");
        let before = fs::metadata(&file).unwrap();
        assert_eq!(before.permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_to_string(&file).unwrap(), "kind: Pod\n");
        assert!(!directory.write(&manifest).unwrap());
        assert_eq!(
            fs::metadata(&file).unwrap().modified().unwrap(),
            before.modified().unwrap()
        );
        assert_eq!(files(&path), ["trivet-a-00000001.yaml"]);
    }

    #[test]
    fn an_edited_manifest_is_replaced() {
        let (path, directory) = directory();
        fs::write(path.path().join("trivet-a-00000001.yaml"), "edited").unwrap();
        // A writer was killed before its rename, and its file cannot be written to.
        fs::write(path.path().join(".trivet-a-00000001.tmp"), "half").unwrap();
        assert!(directory.write(&manifest("a", "00000001", "whole")).unwrap());
        let text = fs::read_to_string(path.path().join("trivet-a-00000001.yaml")).unwrap();
        assert_eq!(text, "whole");
        assert_eq!(files(&path), ["trivet-a-00000001.yaml"]);
    }

    #[test]
    fn the_manifests_of_a_pool_are_found_and_removed_and_nothing_else() {
        let (path, directory) = directory();
        let others = [
            ".kubeadm.tmp",
            ".trivet-a-12345678-00000001.tmp",
            "etcd.yaml",
            "trivet-a-00000001.yaml.bak",
            "trivet-a-12345678-00000001.yaml",
            "trivet-a.yaml",
        ];
        let own = [
            "trivet-a-00000001.yaml",
            "trivet-a-12345678.yaml",
            ".trivet-a-00000003.tmp",
        ];
        for name in others.iter().chain(&own) {
            fs::write(path.path().join(name), "").unwrap();
        }
        fs::create_dir(path.path().join("trivet-a-00000002.yaml")).unwrap();
        let found = directory.manifests(&pool("a")).unwrap();
        let names: Vec<_> = found.iter().map(ManifestName::file).collect();
        assert_eq!(names, ["trivet-a-00000001.yaml", "trivet-a-12345678.yaml"]);
        for name in &found {
            assert!(directory.remove(name).unwrap());
            assert!(!directory.remove(name).unwrap());
        }
        directory.remove_temporaries(&pool("a")).unwrap();
        let mut left = others.to_vec();
        left.push("trivet-a-00000002.yaml");
        left.sort_unstable();
        assert_eq!(files(&path), left);
    }

    #[test]
    fn a_directory_that_is_missing_or_none_is_told_with_its_path_and_the_remedy() {
        let (path, _) = directory();
        let file = path.path().join("file");
        fs::write(&file, "").unwrap();
        for wrong in [path.path().join("missing"), file] {
            let error = ManifestDirectory::open(&wrong).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("failed to open --directory {} (", wrong.display())),
                "{error}"
            );
            assert!(error.contains("staticPodPath"), "{error}");
            assert_eq!(files(&path), ["file"]);
        }
    }

    #[test]
    fn a_name_that_cannot_be_replaced_is_told_and_leaves_nothing() {
        let (path, directory) = directory();
        fs::create_dir(path.path().join("trivet-a-00000001.yaml")).unwrap();
        let error = directory.write(&manifest("a", "00000001", "")).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("failed to write trivet-a-00000001.yaml in"),
            "{error}"
        );
        assert_eq!(files(&path), ["trivet-a-00000001.yaml"]);
    }
}
