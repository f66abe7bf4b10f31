//! The last good documents and the proven paths, on the node's disk: a proxy starts from them if no apiserver answers.

use std::{
    collections::BTreeSet,
    fs, io,
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tracing::{debug, warn};
use trivet_crds::wire::{Document, Member};

use super::known;
use crate::balance::PathKey;

/// How many documents are kept: enough to survive several broken writes, and to know masters of before.
pub const GENERATIONS: usize = 5;

/// The file of the proven paths.
const PROVEN: &str = "proven.json";

/// The suffix of a file that is being written; its name starts with a dot.
const TEMPORARY: &str = ".tmp";

/// The smallest unit in which disks give room to files.
const PAGE: usize = 4096;

/// A directory of documents, one file per revision.
#[derive(Clone, Debug)]
pub struct Cache {
    directory: PathBuf,
}

impl Cache {
    /// A cache in this directory, which need not exist yet.
    pub fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The files of all documents with their texts, the highest revision first; none if there is no directory yet.
    pub fn files(&self) -> io::Result<Vec<(PathBuf, io::Result<String>)>> {
        let files = match generations(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            files => files?,
        };
        let read = |(_, path): (u64, PathBuf)| {
            let text = fs::read_to_string(&path);
            (path, text)
        };
        Ok(files.into_iter().map(read).collect())
    }

    /// The texts that can be read of all documents, the highest revision first.
    pub fn texts(&self) -> io::Result<Vec<String>> {
        let files = self.files()?.into_iter();
        Ok(files.filter_map(|(_, text)| text.ok()).collect())
    }

    /// Writes a file and removes it, to find out whether the next document can be kept. A file with less than a page may
    /// still fit on a disk that is full.
    pub fn check_writable(&self) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        let trial = temporary(&self.directory, "trial");
        let written = write(&trial, &[0; PAGE]);
        let removed = remove(&trial);
        written.and(removed)
    }

    /// Removes files that a crash left half written. If another proxy of this node is writing one of them, its write fails
    /// and is retried.
    pub fn tidy(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            if name.is_some_and(|name| name.starts_with('.') && name.ends_with(TEMPORARY)) {
                remove(&path)?;
            }
        }
        Ok(())
    }

    /// Stores a document and removes the others that are least worth keeping, see [`known::kept`]. It is on the disk when
    /// this returns, which may take seconds.
    pub fn store(&self, revision: u64, text: &str) -> io::Result<()> {
        self.write_document(revision, text)?;
        let others = self.others(revision)?;
        if others.len() < GENERATIONS {
            return Ok(());
        }
        let texts = others
            .iter()
            .map(|path| fs::read_to_string(path).unwrap_or_default());
        let texts = [text.to_owned()].into_iter().chain(texts);
        let addresses: Vec<_> = texts.map(|text| addresses(&text)).collect();
        let is_kept = known::kept(&addresses, GENERATIONS).into_iter().skip(1);
        let mut removed = others.iter().zip(is_kept).filter(|(_, is_kept)| !is_kept);
        removed.try_for_each(|(path, _)| remove(path))
    }

    /// Stores a document that replaces all others, whatever their revisions: they are of another cluster.
    pub fn store_alone(&self, revision: u64, text: &str) -> io::Result<()> {
        self.write_document(revision, text)?;
        self.others(revision)?.iter().try_for_each(|path| remove(path))
    }

    /// The files of all documents but this one, the highest revision first.
    fn others(&self, revision: u64) -> io::Result<Vec<PathBuf>> {
        let others = generations(&self.directory)?.into_iter();
        let others = others.filter(|(other, _)| *other != revision);
        Ok(others.map(|(_, path)| path).collect())
    }

    fn write_document(&self, revision: u64, text: &str) -> io::Result<()> {
        let name = format!("document-{revision:020}.json");
        replace(&self.directory, &name, text.as_bytes())
    }

    /// The paths that have given this node a verified answer. Each is a member's name and one address. Entries with several
    /// addresses, which an earlier release wrote, are skipped: they do not say which address has answered.
    pub fn proven(&self) -> BTreeSet<PathKey> {
        let path = self.directory.join(PROVEN);
        let entries: Vec<Proven> = match fs::read(&path).map(|bytes| serde_json::from_slice(&bytes)) {
            Ok(Ok(entries)) => entries,
            Ok(Err(error)) => {
                warn!(file = %path.display(), %error, "skipping the list of proven paths");
                Vec::new()
            }
            Err(error) => {
                debug!(file = %path.display(), %error, "no list of proven paths");
                Vec::new()
            }
        };
        entries.into_iter().filter_map(Proven::path).collect()
    }

    /// Stores the list of proven paths. The list covers the document in force and as many earlier ones as there are
    /// generations on the disk, so that after a crash between the two writes it still covers every document on the disk.
    pub fn store_proven(&self, proven: BTreeSet<PathKey>) -> io::Result<()> {
        let entries: Vec<_> = proven.into_iter().map(Proven::from).collect();
        replace(&self.directory, PROVEN, &serde_json::to_vec_pretty(&entries)?)
    }
}

/// A proven path, with exactly one address in the list. Older and newer releases read the same format.
#[derive(Debug, Serialize, Deserialize)]
struct Proven {
    name: String,
    addresses: Vec<SocketAddr>,
}

impl Proven {
    fn path(self) -> Option<PathKey> {
        let [address] = self.addresses.try_into().ok()?;
        Some(PathKey {
            member: self.name,
            address,
        })
    }
}

impl From<PathKey> for Proven {
    fn from(path: PathKey) -> Self {
        Self {
            name: path.member,
            addresses: vec![path.address],
        }
    }
}

/// The addresses of a document's members; none if it cannot be followed.
fn addresses(text: &str) -> BTreeSet<SocketAddr> {
    let document = Document::parse(text).ok();
    let members = document.iter().flat_map(|document| &document.members);
    members.flat_map(Member::sockets).collect()
}

/// Replaces a file. A crash at any point leaves either the old or the new content. During a rollout two proxies of a node
/// may do this at once, so each writes its own temporary file; its name is random because the process id is 1 in every
/// pod.
fn replace(directory: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let temporary = temporary(directory, name);
    let replaced = write(&temporary, content).and_then(|()| fs::rename(&temporary, directory.join(name)));
    if replaced.is_err() {
        // The next attempt uses another name, and a full disk must not fill further. If the removal fails too, the next
        // start removes the file.
        let _removed = fs::remove_file(&temporary);
    }
    replaced?;
    fs::File::open(directory)?.sync_all()
}

/// A new name for a file that is being written.
fn temporary(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!(".{name}.{:016x}{TEMPORARY}", rand::random::<u64>()))
}

fn write(new: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = fs::File::create_new(new)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Removes a file. Another proxy of this node may have removed it already.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The document files, the highest revision first.
fn generations(directory: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let revision = name.and_then(|name| {
            name.strip_prefix("document-")?
                .strip_suffix(".json")?
                .parse()
                .ok()
        });
        files.extend(revision.map(|revision| (revision, path)));
    }
    files.sort_by(|left, right| right.cmp(left));
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn filled(directory: &Path, revisions: impl IntoIterator<Item = u64>) -> Cache {
        let cache = Cache::new(directory.to_owned());
        for revision in revisions {
            cache.store(revision, &format!("text {revision}")).unwrap();
        }
        cache
    }

    #[test]
    fn the_newest_comes_first_and_five_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let cache = filled(directory.path(), [9, 100, 10, 99, 8, 7, 11]);
        assert_eq!(
            cache.texts().unwrap(),
            ["text 100", "text 99", "text 11", "text 10", "text 9"]
        );
    }

    #[test]
    fn a_document_that_was_just_stored_stays_though_five_others_are_newer() {
        let directory = tempfile::tempdir().unwrap();
        let cache = filled(directory.path(), 16..=20);
        cache.store(2, "text 2").unwrap();
        assert_eq!(
            cache.texts().unwrap(),
            ["text 20", "text 19", "text 18", "text 17", "text 2"]
        );
    }

    #[test]
    fn a_directory_that_does_not_exist_yet_is_no_error() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::new(directory.path().join("not/yet/there"));
        assert!(cache.texts().unwrap().is_empty());
    }

    #[test]
    fn a_document_that_is_stored_alone_replaces_later_ones_too() {
        let directory = tempfile::tempdir().unwrap();
        let cache = filled(directory.path(), [18, 19, 20, 21, 22]);
        cache.store_alone(1, "of the new cluster").unwrap();
        assert_eq!(cache.texts().unwrap(), ["of the new cluster"]);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_skipped() {
        let directory = tempfile::tempdir().unwrap();
        let cache = filled(directory.path(), [1, 2]);
        fs::write(
            directory.path().join("document-00000000000000000003.json"),
            [0xff, 0xfe],
        )
        .unwrap();
        fs::create_dir(directory.path().join("document-00000000000000000004.json")).unwrap();
        fs::write(directory.path().join("document-x.json"), "no revision").unwrap();
        assert_eq!(cache.texts().unwrap(), ["text 2", "text 1"]);
    }

    #[test]
    fn what_a_crash_left_half_written_is_never_read() {
        let directory = tempfile::tempdir().unwrap();
        let cache = filled(directory.path(), [1]);
        fs::write(
            directory.path().join(".document-00000000000000000002.json.tmp"),
            "half",
        )
        .unwrap();
        assert_eq!(cache.texts().unwrap(), ["text 1"]);
        cache.store(2, "whole").unwrap();
        cache.tidy().unwrap();
        assert_eq!(cache.texts().unwrap(), ["whole", "text 1"]);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn two_proxies_that_write_at_once_leave_whole_documents_only() {
        let directory = tempfile::tempdir().unwrap();
        let texts = ["old".repeat(10_000), "new".repeat(20_000)];
        thread::scope(|scope| {
            for text in &texts {
                scope.spawn(|| {
                    let cache = Cache::new(directory.path().to_owned());
                    for revision in 1..=50 {
                        cache.store(revision, text).unwrap();
                        assert!(cache.texts().unwrap().iter().all(|text| texts.contains(text)));
                    }
                });
            }
        });
        let files: Vec<_> = fs::read_dir(directory.path()).unwrap().collect();
        assert_eq!(files.len(), GENERATIONS, "{files:?}");
    }

    #[test]
    fn a_write_that_fails_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let in_the_way = directory.path().join(PROVEN).join("not empty");
        fs::create_dir_all(in_the_way).unwrap();
        let cache = Cache::new(directory.path().to_owned());
        assert!(cache.store_proven(BTreeSet::new()).is_err());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_disk_that_fails_is_survived() {
        let directory = tempfile::tempdir().unwrap();
        let not_a_directory = directory.path().join("file");
        fs::write(&not_a_directory, "in the way").unwrap();
        let cache = Cache::new(not_a_directory);
        assert!(cache.store(1, "text 1").is_err());
        assert!(cache.texts().is_err());
        assert!(cache.proven().is_empty());
    }

    #[test]
    fn a_path_that_proved_itself_is_remembered() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::new(directory.path().join("not/yet/there"));
        let paths = ["10.0.0.1:6443", "[fd00::1]:6443"].map(|address| PathKey {
            member: "cp1".to_owned(),
            address: address.parse().unwrap(),
        });
        cache.store_proven(BTreeSet::from(paths.clone())).unwrap();
        assert_eq!(cache.proven(), BTreeSet::from(paths));
        fs::write(directory.path().join("not/yet/there").join(PROVEN), "{").unwrap();
        assert!(cache.proven().is_empty());
    }

    #[test]
    fn an_entry_of_an_earlier_release_with_several_addresses_proves_none_of_them() {
        let directory = tempfile::tempdir().unwrap();
        let text = r#"[
            {"name": "cp1", "addresses": ["10.0.0.1:6443", "[fd00::1]:6443"]},
            {"name": "cp2", "addresses": ["10.0.0.2:6443"]},
            {"name": "cp3", "addresses": []}
        ]"#;
        fs::write(directory.path().join(PROVEN), text).unwrap();
        let sole = PathKey {
            member: "cp2".to_owned(),
            address: "10.0.0.2:6443".parse().unwrap(),
        };
        let cache = Cache::new(directory.path().to_owned());
        assert_eq!(cache.proven(), BTreeSet::from([sole]));
    }
}
