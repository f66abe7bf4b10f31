//! The name of a manifest's file, from which its pool can be told.

use std::fmt;

use super::{DIGITS, names::PoolName};

/// How the name of each manifest begins, and how it ends in a directory of kubelet.
const PREFIX: &str = "trivet-";
const SUFFIX: &str = ".yaml";

/// How the name begins and ends of a file that is not in its place yet. Kubelet reads every file whose name does not begin
/// with a dot, whatever its end is.
const HIDDEN: &str = ".";
const TEMPORARY: &str = ".tmp";

/// The name of a pool's manifest: `trivet-POOL-HASH`, of the pod too.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ManifestName {
    pool: String,
    template: String,
}

impl ManifestName {
    /// The name of the manifest with this hash.
    pub(super) fn new(pool: &PoolName, template: &str) -> Self {
        Self {
            pool: pool.to_string(),
            template: template.to_owned(),
        }
    }

    /// The manifest that is in a file of this name; none if no release names a manifest so. A pool's name may end like a
    /// hash, so the last part alone is the hash.
    pub fn of_file(file: &str) -> Option<Self> {
        Self::parse(file.strip_suffix(SUFFIX)?)
    }

    /// The same for a file that is not in its place yet.
    pub fn of_temporary(file: &str) -> Option<Self> {
        Self::parse(file.strip_prefix(HIDDEN)?.strip_suffix(TEMPORARY)?)
    }

    fn parse(name: &str) -> Option<Self> {
        let (pool, template) = name.strip_prefix(PREFIX)?.rsplit_once('-')?;
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if template.len() != DIGITS || !template.bytes().all(is_digit) {
            return None;
        }
        let pool: PoolName = pool.parse().ok()?;
        Some(Self::new(&pool, template))
    }

    /// Its file in a directory of kubelet.
    pub fn file(&self) -> String {
        format!("{self}{SUFFIX}")
    }

    /// Its file until it is written whole.
    pub fn temporary(&self) -> String {
        format!("{HIDDEN}{self}{TEMPORARY}")
    }

    /// Whether it is of this pool.
    pub fn is_of(&self, pool: &PoolName) -> bool {
        self.pool == pool.as_str()
    }

    /// The hash of the manifest.
    pub fn template(&self) -> &str {
        &self.template
    }
}

impl fmt::Display for ManifestName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}-{}", self.pool, self.template)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pool(name: &str) -> PoolName {
        name.parse().unwrap()
    }

    #[test]
    fn a_pool_whose_name_ends_like_a_hash_is_told_from_the_pool_before_it() {
        let of_a = ManifestName::of_file("trivet-a-12345678.yaml").unwrap();
        let of_a_12345678 = ManifestName::of_file("trivet-a-12345678-0a1b2c3d.yaml").unwrap();
        assert!(of_a.is_of(&pool("a")) && !of_a.is_of(&pool("a-12345678")));
        assert!(of_a_12345678.is_of(&pool("a-12345678")) && !of_a_12345678.is_of(&pool("a")));
    }

    #[test]
    fn what_no_release_writes_is_no_manifest() {
        for name in [
            "",
            "trivet-.yaml",
            "trivet-12345678.yaml",
            "trivet--12345678.yaml",
            "trivet-a.yaml",
            "trivet-a-1234567.yaml",
            "trivet-a-123456789.yaml",
            "trivet-a-1234567G.yaml",
            "trivet-a-1234567A.yaml",
            "trivet-a-12345678.yml",
            "trivet-a-12345678",
            "trivet-a-12345678.yaml.bak",
            ".trivet-a-12345678.yaml",
            "trivet-A-12345678.yaml",
            "trivet-../a-12345678.yaml",
            "trivet-ä-12345678.yaml",
            "kube-apiserver.yaml",
        ] {
            assert_eq!(ManifestName::of_file(name), None, "{name}");
        }
    }

    fn name() -> impl Strategy<Value = (String, String)> {
        (
            "[a-f0-9]{1,8}(-[a-f0-9]{8}){0,2}(\\.[a-z0-9]{1,3})?",
            "[0-9a-f]{8}",
        )
    }

    proptest! {
        #[test]
        fn a_manifest_is_found_by_its_name_and_by_no_other_pool(
            (own, template) in name(),
            (other, _) in name(),
        ) {
            let written = ManifestName::new(&pool(&own), &template);
            let found = ManifestName::of_file(&written.file()).unwrap();
            prop_assert_eq!(&found, &written);
            prop_assert_eq!(ManifestName::of_temporary(&written.temporary()), Some(written.clone()));
            prop_assert_eq!(found.is_of(&pool(&other)), own == other);
            prop_assert_eq!(ManifestName::of_file(&written.temporary()), None);
            prop_assert_eq!(ManifestName::of_temporary(&written.file()), None);
        }

        #[test]
        fn any_name_of_a_file_is_read_as_what_writes_it(file in "\\.?(trivet)?[a-f0-9.-]{0,30}(\\.yaml|\\.tmp)?") {
            if let Some(found) = ManifestName::of_file(&file) {
                prop_assert_eq!(found.file(), file);
            } else if let Some(found) = ManifestName::of_temporary(&file) {
                prop_assert_eq!(found.temporary(), file);
            }
        }
    }
}
