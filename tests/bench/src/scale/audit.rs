//! What the apiserver wrote down of the operator's writes.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde::Deserialize;

use super::cluster::OPERATOR;

/// A write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Write {
    /// What was written, as `configmaps`, or `apiserverpools/status`.
    pub(crate) resource: String,
    /// When the apiserver got it.
    pub(crate) at: Timestamp,
}

/// The place in the log up to which it has been read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark(u64);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    user: User,
    #[serde(default)]
    object_ref: Object,
    request_received_timestamp: String,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Object {
    resource: String,
    subresource: String,
}

/// The end of the log now.
pub(crate) fn mark(log: &Path) -> Result<Mark> {
    let about = log
        .metadata()
        .with_context(|| format!("failed to look at {}", log.display()))?;
    Ok(Mark(about.len()))
}

/// The writes of the operator since then, without those of its Lease, by which it is the one that may write. The log has them
/// before their answers are sent.
pub(crate) fn writes_since(log: &Path, mark: Mark) -> Result<Vec<Write>> {
    let failed = || format!("failed to read {}", log.display());
    let mut file = File::open(log).with_context(failed)?;
    file.seek(SeekFrom::Start(mark.0)).with_context(failed)?;
    let mut text = String::new();
    file.read_to_string(&mut text).with_context(failed)?;
    writes(&text)
}

/// The last line may be under way.
fn writes(text: &str) -> Result<Vec<Write>> {
    let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let mut writes = Vec::new();
    for line in lines {
        let entry: Entry =
            serde_json::from_str(line).with_context(|| format!("not an audit event: {line}"))?;
        if entry.user.username == OPERATOR && entry.object_ref.resource != "leases" {
            let at = entry.request_received_timestamp.parse();
            writes.push(Write {
                resource: entry.object_ref.name(),
                at: at.with_context(|| format!("not an audit event: {line}"))?,
            });
        }
    }
    Ok(writes)
}

impl Object {
    fn name(self) -> String {
        if self.subresource.is_empty() {
            self.resource
        } else {
            format!("{}/{}", self.resource, self.subresource)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(user: &str, object: &str) -> String {
        format!(
            r#"{{"user":{{"username":"{user}"}},"objectRef":{object},"requestReceivedTimestamp":"2026-11-29T00:00:00.250000Z"}}"#
        ) + "\n"
    }

    #[test]
    fn the_operators_writes_are_told_but_those_of_its_lease() {
        let log = [
            line(OPERATOR, r#"{"resource":"configmaps","name":"trivet-default"}"#),
            line(OPERATOR, r#"{"resource":"leases"}"#),
            line("administrator", r#"{"resource":"nodes"}"#),
            line(
                OPERATOR,
                r#"{"resource":"apiserverpools","subresource":"status"}"#,
            ),
            line(OPERATOR, r#"{"resource":"pods"}"#).trim_end().to_owned(),
        ];
        let found = writes(&log.concat()).unwrap();
        let resources: Vec<_> = found.iter().map(|write| write.resource.as_str()).collect();
        assert_eq!(resources, ["configmaps", "apiserverpools/status"]);
        assert_eq!(found[0].at.as_millisecond() % 1000, 250);
    }
}
