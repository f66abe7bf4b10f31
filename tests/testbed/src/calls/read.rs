//! Reads the audit logs once, line by line, and keeps what the comparison needs.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use anyhow::Result;
use jiff::{SignedDuration, Timestamp};

use super::call::Call;
use super::changes::Change;
use crate::audit::{self, Event};

/// How the user of a line that counts begins: an account of Trivet's namespace. Most lines are of others, and are not parsed.
const OURS: &str = r#""user":{"username":"system:serviceaccount:trivet-system:"#;

/// In the path of each write of a role or a binding.
const ROLES: &str = r#""requestURI":"/apis/rbac.authorization.k8s.io/"#;

/// Apiservers read their own roles by the hundred when they start.
const READS: [&str; 3] = [r#""verb":"get""#, LISTS, r#""verb":"watch""#];

const LISTS: &str = r#""verb":"list""#;

/// How the user of an apiserver's own requests stands in a line.
const APISERVER: &str = r#""user":{"username":"system:apiserver""#;

/// An apiserver that starts serves before it has listed the roles, and refuses everything until then. On a busy machine the
/// list takes seconds, and so may what follows from it.
const STARTS: [SignedDuration; 2] = [SignedDuration::from_secs(10), SignedDuration::from_secs(3)];

/// What only the end of a log tells: which of its refusals were those of an apiserver that had just started.
#[derive(Debug, Default)]
struct Starting {
    refused: Vec<(Call, Timestamp)>,
    /// When the apiserver has listed the roles.
    lists: Vec<Timestamp>,
}

impl Starting {
    fn is_at_a_start(&self, at: Timestamp) -> bool {
        let [before, after] = STARTS;
        self.lists.iter().any(|list| {
            let since = at.duration_since(*list);
            -before <= since && since <= after
        })
    }
}

/// What the logs have.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    since: Option<Timestamp>,
    /// Every call with the times at which it was made.
    pub(crate) calls: BTreeMap<Call, Vec<Timestamp>>,
    /// Those before `since` too: they say what is in force then.
    pub(crate) changes: Vec<Change>,
    /// Lines of an account that cannot be read.
    pub(crate) unreadable: u64,
    /// How often each user was refused by an apiserver that had just started.
    pub(crate) at_starts: BTreeMap<String, u64>,
    /// Watches whose beginning was seen: the end of one is no other call.
    begun: HashSet<String>,
}

impl Seen {
    /// Nothing yet; calls before this moment will not count.
    pub(crate) fn since(since: Option<Timestamp>) -> Self {
        Self {
            since,
            ..Self::default()
        }
    }

    /// Adds a log.
    pub(crate) fn add(&mut self, log: &Path) -> Result<()> {
        let mut starting = Starting::default();
        audit::lines(log, |line| self.take(line, &mut starting))?;
        self.end(starting);
        Ok(())
    }

    fn take(&mut self, line: &str, starting: &mut Starting) {
        let is_ours = line.contains(OURS);
        let is_of_roles = line.contains(ROLES);
        let is_change = is_of_roles && !READS.iter().any(|read| line.contains(read));
        let is_start = is_of_roles && line.contains(APISERVER) && line.contains(LISTS);
        if !is_ours && !is_change && !is_start {
            return;
        }
        match Event::of_line(line) {
            Some(event) if is_start => starting.lists.push(event.request_received_timestamp),
            Some(event) => self.event(&event, is_ours, starting),
            None => self.unreadable += 1,
        }
    }

    fn event(&mut self, event: &Event, is_ours: bool, starting: &mut Starting) {
        self.changes.extend(Change::of(event));
        let at = event.request_received_timestamp;
        let is_early = self.since.is_some_and(|since| at < since);
        if !is_ours || is_early || self.has_begun(event) {
            return;
        }
        match Call::of(event) {
            Some(call) if call.is_refused => starting.refused.push((call, at)),
            Some(call) => self.calls.entry(call).or_default().push(at),
            None => {}
        }
    }

    fn end(&mut self, mut starting: Starting) {
        for (call, at) in std::mem::take(&mut starting.refused) {
            if starting.is_at_a_start(at) {
                *self.at_starts.entry(call.user).or_default() += 1;
            } else {
                self.calls.entry(call).or_default().push(at);
            }
        }
    }

    /// Whether this is the end of what has been counted at its beginning.
    fn has_begun(&mut self, event: &Event) -> bool {
        if event.stage == "ResponseStarted" {
            return !self.begun.insert(event.audit_id.clone());
        }
        self.begun.remove(&event.audit_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROXY: &str = "system:serviceaccount:trivet-system:trivet-proxy";

    fn line(user: &str, verb: &str, stage: &str, id: &str, second: u8) -> String {
        format!(
            r#"{{"kind":"Event","auditID":"{id}","stage":"{stage}","requestURI":"/api/v1/namespaces/trivet-system/configmaps","verb":"{verb}","user":{{"username":"{user}"}},"objectRef":{{"resource":"configmaps","namespace":"trivet-system"}},"responseStatus":{{"code":200}},"requestReceivedTimestamp":"2026-01-01T00:00:{second:02}.000000Z","annotations":{{"authorization.k8s.io/decision":"allow"}}}}"#
        )
    }

    fn seen(since: Option<&str>, lines: &[String]) -> Seen {
        let mut seen = Seen::since(since.map(|since| since.parse().unwrap()));
        let mut starting = Starting::default();
        for line in lines {
            seen.take(line, &mut starting);
        }
        seen.end(starting);
        seen
    }

    fn made(seen: &Seen) -> usize {
        seen.calls.values().map(Vec::len).sum()
    }

    #[test]
    fn a_watch_is_one_call_whether_it_has_ended_or_not() {
        let lines = [
            line(PROXY, "watch", "ResponseStarted", "a", 1),
            line(PROXY, "watch", "ResponseStarted", "b", 2),
            line(PROXY, "watch", "ResponseComplete", "a", 3),
            // Its beginning is in a file that is gone.
            line(PROXY, "watch", "ResponseComplete", "c", 4),
            line(PROXY, "get", "ResponseComplete", "d", 5),
        ];
        assert_eq!(made(&seen(None, &lines)), 4);
    }

    #[test]
    fn calls_of_others_and_of_an_earlier_run_do_not_count() {
        let lines = [
            line(PROXY, "get", "ResponseComplete", "a", 1),
            line(PROXY, "get", "ResponseComplete", "b", 9),
            line(
                "system:serviceaccount:kube-system:other",
                "get",
                "ResponseComplete",
                "c",
                9,
            ),
        ];
        assert_eq!(made(&seen(Some("2026-01-01T00:00:05Z"), &lines)), 1);
    }

    #[test]
    fn a_call_in_the_name_of_an_account_is_that_of_the_user_who_made_it() {
        let mut as_proxy = line("kubernetes-admin", "get", "ResponseComplete", "a", 1);
        as_proxy = as_proxy.replace(
            r#""objectRef""#,
            &format!(r#""impersonatedUser":{{"username":"{PROXY}"}},"objectRef""#),
        );
        assert_eq!(made(&seen(None, &[as_proxy])), 0);
    }

    #[test]
    fn an_apiserver_that_has_not_read_the_roles_yet_refuses_everybody() {
        let refused = |second| {
            let line = line(PROXY, "get", "ResponseComplete", "a", second);
            line.replace("\"allow\"", "\"forbid\"")
        };
        let lists = line("system:apiserver", "list", "ResponseComplete", "b", 30).replace(
            "/api/v1/namespaces/trivet-system/configmaps",
            "/apis/rbac.authorization.k8s.io/v1/roles?limit=500",
        );
        let seen = seen(None, &[refused(5), refused(29), lists, refused(31), refused(50)]);
        assert_eq!(seen.at_starts.values().sum::<u64>(), 2);
        assert_eq!(made(&seen), 2);
    }

    #[test]
    fn a_line_of_an_account_that_cannot_be_read_is_counted() {
        let half = line(PROXY, "get", "ResponseComplete", "a", 1).replace("annotations", "\"");
        assert_eq!(seen(None, &[half]).unreadable, 1);
    }
}
