//! The audit logs of the apiservers: who asked for what, and what came of it, one JSON `audit.k8s.io/v1` Event a line.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use crate::cluster::Cluster;
use crate::component::AUDIT_LOG;
use crate::host::Host;
use crate::state::DIRECTORY;

/// Where the logs of masters are kept that are removed. `down` removes it with the rest.
const OF_REMOVED_MASTERS: &str = "audit-of-removed-masters";

/// How much of a log is read at once.
const READ_AT_ONCE: usize = 1 << 20;

/// How an event begins.
const BEGIN: &str = r#"{"kind":"Event""#;

/// One answered request, or the beginning of a watch.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// The same in all events of one request.
    #[serde(rename = "auditID", default)]
    pub audit_id: String,
    /// `ResponseStarted` at the beginning of a watch, `ResponseComplete` at the end of any request.
    #[serde(default)]
    pub stage: String,
    /// As RBAC names it: get, list, watch, create, update, patch, delete, deletecollection.
    pub verb: String,
    /// The path and the query.
    #[serde(rename = "requestURI")]
    pub request_uri: String,
    /// Whose credentials the request had.
    pub user: User,
    /// As whom they asked, if not as themselves.
    pub impersonated_user: Option<User>,
    /// What the client calls itself.
    #[serde(default)]
    pub user_agent: String,
    /// What is asked for; none of a path that is no resource.
    pub object_ref: Option<ObjectRef>,
    /// The answer's code.
    pub response_status: Option<Status>,
    /// The object in the answer, where the policy asks for it.
    pub response_object: Option<Value>,
    /// What authorization and admission have noted.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// When the request came.
    pub request_received_timestamp: Timestamp,
    /// When this stage was reached.
    pub stage_timestamp: Option<Timestamp>,
}

/// A user as the API server has authenticated it.
#[derive(Debug, Clone, Deserialize)]
pub struct User {
    /// `system:serviceaccount:NAMESPACE:NAME` of a ServiceAccount.
    #[serde(default)]
    pub username: String,
    /// The claims of its token.
    #[serde(default)]
    pub extra: BTreeMap<String, Vec<String>>,
}

/// What a request is about.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectRef {
    /// The resource in the plural.
    pub resource: String,
    /// As `status`.
    pub subresource: String,
    /// Empty for what has none.
    pub namespace: String,
    /// Empty where the request names none.
    pub name: String,
    /// Empty for the core group.
    pub api_group: String,
}

/// What came of a request.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The code of HTTP.
    pub code: u16,
    /// Why it failed.
    pub message: String,
}

impl Event {
    /// The event of a line. A killed apiserver leaves a part of a line, which the next one goes on writing behind.
    pub fn of_line(line: &str) -> Option<Self> {
        let whole = serde_json::from_str(line).ok();
        whole.or_else(|| serde_json::from_str(line.get(line.rfind(BEGIN)?..)?).ok())
    }
}

/// The logs of all masters that the testbed has or has had, in no order. A log has a limit, above which it goes on in
/// another file.
pub fn logs(cluster: &Cluster) -> Result<Vec<PathBuf>> {
    let mut logs = listed(&Path::new(DIRECTORY).join(OF_REMOVED_MASTERS))?;
    for master in cluster.masters() {
        logs.extend(listed(&directory(&master))?);
    }
    Ok(logs)
}

/// Gives every whole line of a log to `take`.
pub fn lines(log: &Path, mut take: impl FnMut(&str)) -> Result<()> {
    let failed = || format!("failed to read {}", log.display());
    let file = File::open(log).with_context(failed)?;
    let mut reader = BufReader::with_capacity(READ_AT_ONCE, file);
    let mut line = Vec::new();
    loop {
        line.clear();
        reader.read_until(b'\n', &mut line).with_context(failed)?;
        // The end, or a line that is being written.
        if line.pop() != Some(b'\n') {
            return Ok(());
        }
        take(&String::from_utf8_lossy(&line));
    }
}

/// Keeps the logs of a master that is being removed.
pub(crate) fn keep(host: &Host) -> Result<()> {
    let kept = Path::new(DIRECTORY).join(OF_REMOVED_MASTERS);
    for log in listed(&directory(host))? {
        let failed = || format!("failed to keep {}", log.display());
        fs::create_dir_all(&kept).with_context(failed)?;
        // A master of the same name may have been removed before.
        let number = fs::metadata(&log).with_context(failed)?.ino();
        let name = format!("{}-{number}.log", host.name());
        fs::rename(&log, kept.join(name)).with_context(failed)?;
    }
    Ok(())
}

fn directory(master: &Host) -> PathBuf {
    let log = master.file(AUDIT_LOG);
    log.parent().map(Path::to_path_buf).unwrap_or_default()
}

/// The logs in a directory, none if there is no such directory.
fn listed(directory: &Path) -> Result<Vec<PathBuf>> {
    let failed = || format!("failed to list {}", directory.display());
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(failed)?,
    };
    let mut logs = Vec::new();
    for entry in entries {
        let path = entry.with_context(failed)?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        // Beside `audit.log` those that were full: `audit-2026-01-01T00-00-00.000.log`.
        let is_audit = name.starts_with("audit") || directory.ends_with(OF_REMOVED_MASTERS);
        if is_audit && path.extension().is_some_and(|extension| extension == "log") {
            logs.push(path);
        }
    }
    Ok(logs)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"1","stage":"ResponseComplete","requestURI":"/version","verb":"get","user":{"username":"admin"},"userAgent":"curl","responseStatus":{"metadata":{},"code":200},"requestReceivedTimestamp":"2026-01-01T00:00:00.000000Z","stageTimestamp":"2026-01-01T00:00:00.100000Z"}"#;

    #[test]
    fn an_event_behind_the_part_of_a_killed_apiservers_line_is_read() {
        let torn = format!("{}{LINE}", &LINE[..200]);
        for line in [LINE, &torn] {
            let event = Event::of_line(line).unwrap();
            assert_eq!(event.request_uri, "/version");
            assert_eq!(event.response_status.unwrap().code, 200);
        }
        assert!(Event::of_line(&LINE[..200]).is_none());
    }

    #[test]
    fn a_line_that_is_being_written_is_left_for_later() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("audit.log");
        fs::write(&log, "one\ntwo\nthr").unwrap();
        let mut taken = Vec::new();
        lines(&log, |line| taken.push(line.to_owned())).unwrap();
        assert_eq!(taken, ["one", "two"]);
    }

    #[test]
    fn logs_that_were_full_count_and_other_files_do_not() {
        let directory = tempfile::tempdir().unwrap();
        for name in [
            "audit.log",
            "audit-2026-01-01T00-00-00.000.log",
            "kubelet.log",
            "audit.txt",
        ] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        let mut found = listed(directory.path()).unwrap();
        found.sort();
        let expected = ["audit-2026-01-01T00-00-00.000.log", "audit.log"];
        assert_eq!(found, expected.map(|name| directory.path().join(name)));
        assert_eq!(
            listed(&directory.path().join("none")).unwrap(),
            Vec::<PathBuf>::new()
        );
    }
}
