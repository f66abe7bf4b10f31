//! The node's disk after a crash: whatever its files hold, the proxy starts with the last good document.

use std::{collections::BTreeSet, fs, sync::Arc};

use tempfile::TempDir;
use trivet_crds::wire::Document;
use trivet_proxy::{
    balance::PathKey,
    document::{
        Documents,
        cache::{Cache, GENERATIONS},
    },
    settings,
    source::Source,
};

use crate::{
    search::{fuzz, keep},
    wire_document::document,
};

/// The revision of the good document on the disk; a newer file lies beside it.
const GOOD: u64 = 7;

/// As this release writes it.
const PROVEN: &str = r#"[
  {"name": "cp1", "addresses": ["10.0.0.11:6443"]},
  {"name": "cp1", "addresses": ["[fd00::11]:6443"]},
  {"name": "cp2", "addresses": ["10.0.0.12:6443"]}
]"#;

/// As an earlier release wrote it: the entry of several addresses does not tell which of them answered.
const PROVEN_BY_MEMBER: &str = r#"[
  {"name": "cp1", "addresses": ["10.0.0.11:6443", "[fd00::11]:6443"]},
  {"name": "cp2", "addresses": ["10.0.0.12:6443"]}
]"#;

#[test]
fn no_torn_document_hides_the_last_good_one() {
    let disk = Disk::new();
    let good = document(GOOD);
    disk.write(&format!("document-{GOOD:020}.json"), good.as_bytes());
    let newer = document(GOOD + 1);
    fuzz("cached_document", &[newer.into()], |text| {
        disk.write("document-00000000000000000008.json", text);
        let documents = disk.documents();
        documents.offer_cached();
        let followed = documents.revision();
        let newer = Document::parse(&String::from_utf8_lossy(text)).ok();
        assert!(
            followed == Some(GOOD) || followed == newer.map(|document| document.revision),
            "{followed:?}"
        );
    });
}

#[test]
fn a_document_cut_at_any_byte_is_not_followed() {
    let disk = Disk::new();
    disk.write(&format!("document-{GOOD:020}.json"), document(GOOD).as_bytes());
    let newer = document(GOOD + 1);
    for length in (0..newer.len()).step_by(7) {
        disk.write("document-00000000000000000008.json", &newer.as_bytes()[..length]);
        let documents = disk.documents();
        documents.offer_cached();
        assert_eq!(documents.revision(), Some(GOOD), "cut at {length}");
    }
}

#[test]
fn no_file_name_in_the_cache_hides_the_last_good_document() {
    let disk = Disk::new();
    let good = format!("document-{GOOD:020}.json");
    disk.write(&good, document(GOOD).as_bytes());
    fuzz("cached_name", &[good.clone().into()], |name| {
        let name: String = String::from_utf8_lossy(name).chars().take(60).collect();
        let name = name.replace(['/', '\0'], "");
        if name == good || fs::write(disk.0.path().join(&name), "{").is_err() {
            return;
        }
        let documents = disk.documents();
        documents.offer_cached();
        assert_eq!(documents.revision(), Some(GOOD), "{name:?}");
        fs::remove_file(disk.0.path().join(&name)).unwrap();
    });
}

#[test]
fn no_list_of_proven_paths_keeps_the_proxy_from_starting() {
    let disk = Disk::new();
    fuzz(
        "proven_members",
        &[PROVEN.into(), PROVEN_BY_MEMBER.into()],
        |text| {
            disk.write("proven.json", text);
            let proven = disk.cache().proven();
            // No path is proven whose member the file does not name.
            let text = String::from_utf8_lossy(text);
            assert!(
                proven
                    .iter()
                    .all(|path| text.contains('\\') || text.contains(&path.member))
            );
        },
    );
}

#[test]
fn a_crash_at_any_moment_forgets_no_path_of_a_document_on_the_disk() {
    let disk = Disk::new();
    let documents = disk.documents();
    for revision in 1..=12 {
        // The list of proven paths may be written before this document is, and a crash may come at any moment.
        let on_disk_before = disk.paths();
        let text = of_its_own_member(revision);
        documents.offer(&text, Source::File);
        disk.cache().store(revision, &text).unwrap();
        let known = documents.known_paths();
        assert!(on_disk_before.is_subset(&known), "revision {revision}");
        assert!(disk.paths().is_subset(&known), "revision {revision}");
        // Each member has two addresses.
        assert!(
            known.len() <= 2 * (GENERATIONS + 1),
            "revision {revision}: {known:?}"
        );
    }
    let again = disk.documents();
    again.offer_cached();
    assert_eq!(again.known_paths(), disk.paths());
}

/// A document whose only member is in no other revision.
fn of_its_own_member(revision: u64) -> String {
    let mut document = Document::parse(&document(revision)).unwrap();
    document.members[0].name = format!("cp{revision}");
    document.seal().unwrap().to_text().unwrap()
}

struct Disk(TempDir);

impl Disk {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.0.path().join(name), bytes).unwrap();
    }

    fn cache(&self) -> Cache {
        Cache::new(self.0.path().to_owned())
    }

    /// The paths of the documents on it.
    fn paths(&self) -> BTreeSet<PathKey> {
        let texts = self.cache().texts().unwrap().into_iter();
        let documents = texts.map(|text| Document::parse(&text).unwrap());
        documents
            .flat_map(|document| document.members)
            .flat_map(|member| settings::paths(&member).collect::<Vec<_>>())
            .collect()
    }

    fn documents(&self) -> Documents {
        Documents::new(Some(self.cache()), Arc::default(), Arc::default())
    }
}

#[test]
#[ignore = "writes the corpus anew"]
fn keep_real_files() {
    let text = document(GOOD + 1);
    keep("cached_document", "whole", text.as_bytes());
    keep("cached_document", "torn", &text.as_bytes()[..text.len() / 2]);
    let holes: Vec<u8> = text
        .bytes()
        .enumerate()
        .map(|(at, byte)| if at > 512 { 0 } else { byte })
        .collect();
    keep("cached_document", "zeros", &holes);
    keep("cached_name", "highest", b"document-18446744073709551615.json");
    keep("cached_name", "beyond", b"document-18446744073709551616.json");
    keep(
        "cached_name",
        "temporary",
        b".document-00000000000000000009.json.0123456789abcdef.tmp",
    );
    keep("proven_members", "whole", PROVEN.as_bytes());
    keep("proven_members", "by_member", PROVEN_BY_MEMBER.as_bytes());
    keep("proven_members", "torn", &PROVEN.as_bytes()[..60]);
}
