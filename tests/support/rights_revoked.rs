//! Rights that a scenario takes away for a while, and where it says so: requests that are refused meanwhile are its doing.

use std::fs::{self, File};
use std::io::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde_json::json;
use trivet_testbed::DIRECTORY;

use crate::installation::{Installation, NAMESPACE};

/// The file with a line for each span: its begin, its end, and the name of the ServiceAccount. It ends with the testbed.
const FILE: &str = "revoked-rights";

/// The rights of an account, as the chart binds them.
#[derive(Clone, Copy, Debug)]
pub struct Rights {
    /// The ServiceAccount in Trivet's namespace.
    pub account: &'static str,
    /// Its bindings, as kubectl takes them.
    bindings: &'static [&'static str],
}

/// What the operator may do in the whole cluster, and in its namespace.
pub const OF_OPERATOR: Rights = Rights {
    account: "trivet-operator",
    bindings: &[
        "clusterrolebinding trivet-operator",
        "rolebinding trivet-operator",
    ],
};

/// What the operator may do in the whole cluster.
pub const OF_OPERATOR_IN_CLUSTER: Rights = Rights {
    account: "trivet-operator",
    bindings: &["clusterrolebinding trivet-operator"],
};

impl Rights {
    /// Takes them away: the bindings stay, and bind nobody. Returns when.
    pub async fn revoke(&self, installation: &Installation) -> Result<Timestamp> {
        let begun = Timestamp::now();
        self.patch(installation, r#"[{"op":"remove","path":"/subjects"}]"#)
            .await?;
        Ok(begun)
    }

    /// Gives them back, whether or not they were taken away.
    pub async fn give_back(&self, installation: &Installation) -> Result<()> {
        let subject = json!({ "kind": "ServiceAccount", "name": self.account, "namespace": NAMESPACE });
        // An `add` replaces what is there.
        let patch = json!([{ "op": "add", "path": "/subjects", "value": [subject] }]);
        self.patch(installation, &patch.to_string()).await
    }

    async fn patch(&self, installation: &Installation, patch: &str) -> Result<()> {
        for binding in self.bindings {
            let command = format!("patch {binding} --namespace {NAMESPACE} --type=json --patch={patch}");
            installation.tools().kubectl(&command).await?;
        }
        Ok(())
    }
}

/// A span in which an account had not all of its rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The ServiceAccount in Trivet's namespace.
    pub account: String,
    /// From the first binding that went until the account was seen at work again.
    pub time: Range<Timestamp>,
}

/// Notes that an account had not all of its rights. `time` ends when it was seen at work again: what the apiservers and their
/// clients still have in mind passes meanwhile.
pub fn note(account: &str, time: &Range<Timestamp>) -> Result<()> {
    let path = file();
    let failed = || format!("failed to note a span in {}", path.display());
    let open = File::options().create(true).append(true).open(&path);
    let line = format!("{} {} {account}\n", time.start, time.end);
    open.and_then(|mut file| file.write_all(line.as_bytes()))
        .with_context(failed)
}

/// All spans that scenarios have noted since the testbed was made.
pub fn noted() -> Result<Vec<Span>> {
    let path = file();
    match fs::read_to_string(&path) {
        Ok(text) => text.lines().map(parse).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("failed to read {}", path.display())),
    }
}

fn file() -> PathBuf {
    Path::new(DIRECTORY).join(FILE)
}

fn parse(line: &str) -> Result<Span> {
    let parts = line.split_once(' ').and_then(|(begin, rest)| {
        let (end, account) = rest.split_once(' ')?;
        Some((begin.parse().ok()?, end.parse().ok()?, account))
    });
    let (begin, end, account) = parts.with_context(|| format!("{line:?} is no begin, end and account"))?;
    Ok(Span {
        account: account.to_owned(),
        time: begin..end,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_it_is_written() {
        let at = |second: &str| {
            format!("2026-01-01T00:00:{second}Z")
                .parse::<Timestamp>()
                .unwrap()
        };
        let span = parse("2026-01-01T00:00:01.5Z 2026-01-01T00:00:09Z trivet-operator").unwrap();
        assert_eq!(
            span,
            Span {
                account: "trivet-operator".to_owned(),
                time: at("01.5")..at("09"),
            }
        );
        for broken in ["", "2026-01-01T00:00:01Z", "a b c"] {
            assert!(parse(broken).is_err(), "{broken:?}");
        }
    }
}
