//! The parts of a go.mod that the build needs: the tools, the modules' versions, the Go version.

use anyhow::{Context, Result};

/// The parsed parts of a go.mod.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct GoMod<'a> {
    /// The oldest Go that builds it.
    pub(super) go: &'a str,
    /// The packages of its `tool` lines, in their order.
    pub(super) tools: Vec<&'a str>,
    requires: Vec<(&'a str, &'a str)>,
}

impl<'a> GoMod<'a> {
    /// Reads the directives `go`, `tool` and `require`, alone or in blocks, and ignores all others.
    pub(super) fn parse(text: &'a str) -> Result<Self> {
        let mut gomod = Self::default();
        let mut block = None;
        for line in text.lines() {
            let line = line.split_once("//").map_or(line, |(code, _comment)| code).trim();
            match (block, line.split_once(char::is_whitespace)) {
                (Some(_), None) if line == ")" => block = None,
                (Some(verb), _) => gomod.add(verb, line),
                (None, Some((verb, "("))) => block = Some(verb),
                (None, Some((verb, rest))) => gomod.add(verb, rest.trim()),
                (None, None) => {}
            }
        }
        Some(gomod)
            .filter(|gomod| !gomod.go.is_empty())
            .context("no line says which Go it wants")
    }

    /// The version required of `module`.
    pub(super) fn version_of(&self, module: &str) -> Option<&'a str> {
        self.requires
            .iter()
            .find(|(path, _)| *path == module)
            .map(|(_, version)| *version)
    }

    fn add(&mut self, verb: &str, entry: &'a str) {
        let mut words = entry.split_whitespace();
        match (verb, words.next(), words.next()) {
            ("go", Some(version), _) => self.go = version,
            ("tool", Some(package), _) => self.tools.push(package),
            ("require", Some(path), Some(version)) => self.requires.push((path, version)),
            _ => {}
        }
    }
}

/// Whether the Go version `have` is `wanted` or a later one. A version that we cannot read is not.
pub(super) fn at_least(have: &str, wanted: &str) -> bool {
    match (numbers(have), numbers(wanted)) {
        (Some(have), Some(wanted)) => have >= wanted,
        (_, _) => false,
    }
}

/// `1.26`, `1.26.3` and `1.27rc1`; a release candidate counts as its release.
fn numbers(version: &str) -> Option<[u32; 3]> {
    let mut parts = version.split('.').map(|part| {
        let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        part.get(..digits).and_then(|digits| digits.parse().ok())
    });
    Some([
        parts.next()??,
        parts.next()??,
        parts.next().flatten().unwrap_or(0),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCKS: &str = "\
module example.org/build // ours

go 1.26.0

tool (
	example.org/thing/cmd/one
	example.org/thing/cmd/two // indirect
)

require example.org/alone v0.1.0

require (
	example.org/thing v1.34.4 // indirect
	example.org/thing/api v0.34.4
)

replace (
	example.org/thing/api => example.org/thing/api v9.9.9
)

tool example.org/alone/cmd
";

    #[test]
    fn a_directive_counts_alone_and_in_a_block() {
        let gomod = GoMod::parse(BLOCKS).unwrap();
        assert_eq!(gomod.go, "1.26.0");
        let tools = [
            "example.org/thing/cmd/one",
            "example.org/thing/cmd/two",
            "example.org/alone/cmd",
        ];
        assert_eq!(gomod.tools, tools);
        assert_eq!(gomod.version_of("example.org/alone"), Some("v0.1.0"));
    }

    #[test]
    fn a_version_is_that_of_the_very_module_as_required() {
        let gomod = GoMod::parse(BLOCKS).unwrap();
        assert_eq!(gomod.version_of("example.org/thing"), Some("v1.34.4"));
        assert_eq!(gomod.version_of("example.org/thing/api"), Some("v0.34.4"));
        assert_eq!(gomod.version_of("example.org/thin"), None);
    }

    #[test]
    fn a_go_mod_that_wants_no_go_is_refused() {
        assert!(GoMod::parse("module example.org/build\n").is_err());
    }

    #[test]
    fn versions_compare_by_number() {
        assert!(at_least("1.26.8", "1.26"));
        assert!(at_least("1.26", "1.26.0"));
        assert!(at_least("1.30rc1", "1.26.0"));
        assert!(!at_least("1.9.7", "1.26"));
        assert!(!at_least("1.25.9", "1.26.0"));
        assert!(!at_least("", "1.26"));
        assert!(!at_least("devel", "1.26"));
    }
}
