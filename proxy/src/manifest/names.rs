//! Names that go into the manifest, each with the rule by which the API server would judge it.

use std::{fmt, str::FromStr};

/// The name of a pool. It is part of the names of objects, the value of labels, and the name of directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolName(String);

/// A namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace(String);

/// An image with a tag or a digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image(String);

/// A zone: the value of a node's label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone(String);

impl PoolName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PoolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for PoolName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() <= 40 && text.split('.').all(is_label) {
            Ok(Self(text.to_owned()))
        } else {
            Err("must be the name of an ApiserverPool: at most 40 lower-case letters, digits, '-' and '.'")
        }
    }
}

impl Namespace {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Namespace {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() <= 63 && is_label(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err("must be the name of a namespace: at most 63 lower-case letters, digits and '-'")
        }
    }
}

impl Zone {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Zone {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let is_end = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = text.as_bytes();
        let is_value = bytes.len() <= 63 && bytes.iter().copied().all(is_inner);
        if is_value && is_end(bytes.first()) && is_end(bytes.last()) {
            Ok(Self(text.to_owned()))
        } else {
            Err("must be the value of a label: at most 63 letters, digits, '-', '_' and '.'")
        }
    }
}

impl Image {
    /// The reference.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Image {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_/:@[]".contains(&byte);
        if text.is_empty() || text.len() > 512 || !text.bytes().all(allowed) {
            return Err("must be the reference of an image, such as registry.example/trivet-proxy:0.1.0");
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (text, None),
        };
        let last = name.rsplit('/').next().unwrap_or_default();
        let (repository, tag) = last.split_once(':').unwrap_or((last, ""));
        match digest {
            _ if repository.is_empty() => Err("must name a repository before the tag or the digest"),
            Some(digest) if !is_digest(digest) => {
                Err("must have a digest of sha256: and 64 hexadecimal digits")
            }
            // A mutable tag: what starts after a reboot may be another release.
            None if tag.is_empty() || tag == "latest" => Err(
                "must have a tag other than latest, or a digest: a node must start the same release after a reboot",
            ),
            Some(_) | None => Ok(Self(text.to_owned())),
        }
    }
}

fn is_digest(text: &str) -> bool {
    let digits = text.strip_prefix("sha256:");
    digits.is_some_and(|digits| digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Whether this is a label of a DNS name, in lower case.
fn is_label(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(allowed) && !text.starts_with('-') && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_has_a_name_that_the_api_server_accepts() {
        for name in ["default", "a", "prod.eu-1", "0"] {
            assert!(name.parse::<PoolName>().is_ok(), "{name}");
        }
        let long = "x".repeat(41);
        for name in [
            "", "..", "a/b", "Upper", "-a", "a-", "a..b", "a.-b", "a b", "ä", &long,
        ] {
            assert!(name.parse::<PoolName>().is_err(), "{name}");
        }
    }

    #[test]
    fn a_namespace_is_one_label() {
        assert!("trivet-system".parse::<Namespace>().is_ok());
        for name in ["", "a.b", "A", "a/b"] {
            assert!(name.parse::<Namespace>().is_err(), "{name}");
        }
    }

    #[test]
    fn a_zone_is_the_value_of_a_label() {
        for zone in ["a", "eu-central-1a", "Rack_7.B", &"z".repeat(63)] {
            assert!(zone.parse::<Zone>().is_ok(), "{zone}");
        }
        for zone in ["", "-a", "a-", "$(NODE_NAME)", "a b", "a\n", &"z".repeat(64)] {
            assert!(zone.parse::<Zone>().is_err(), "{zone}");
        }
    }

    #[test]
    fn an_image_has_a_tag_that_does_not_move_or_a_digest() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        for image in [
            "trivet-proxy:0.1.0",
            "registry.example:5000/trivet/trivet-proxy:0.1.0",
            "[fd00::1]:5000/trivet-proxy:0.1.0",
            &format!("registry.example/trivet-proxy@{digest}"),
            &format!("registry.example/trivet-proxy:latest@{digest}"),
        ] {
            assert!(image.parse::<Image>().is_ok(), "{image}");
        }
        for image in [
            "",
            "trivet-proxy",
            "registry.example:5000/trivet-proxy",
            "trivet-proxy:latest",
            "trivet-proxy:",
            ":0.1.0",
            "a b:1",
            "a:1\n",
            "trivet-proxy@sha256:12",
            &format!("@{digest}"),
        ] {
            assert!(image.parse::<Image>().is_err(), "{image}");
        }
    }
}
