//! Which apiserver a client uses, by the apiservers' own audit logs, because a client behind a proxy cannot see it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use std::ops::Range;

use anyhow::{Context, Result};
use jiff::Timestamp;
use trivet_testbed::Host;
use trivet_testbed::audit::{Event, User};

/// Where the testbed's apiservers write their audit log.
const LOG: &str = "/var/log/audit.log";

/// The claim of a token with the name of its pod.
const POD: &str = "authentication.kubernetes.io/pod-name";

/// The stage of a request that is answered to its end.
const COMPLETE: &str = "ResponseComplete";

/// How many bytes of the end of a log are read: several minutes of a small cluster. A Lease is renewed every ten seconds.
const TAIL: u64 = 4 << 20;

/// Whether a token is that of this pod.
fn is_pod(user: &User, pod: &str) -> bool {
    let pods = user.extra.get(POD);
    pods.is_some_and(|pods| pods.iter().any(|name| name == pod))
}

/// The master whose apiserver took the last Lease renewal of `node`; none if the logs have no recent one.
pub fn serves_kubelet_of(node: &str, masters: &[Host]) -> Result<Option<String>> {
    let mut last = None;
    for master in masters {
        let renewed = last_renewal(&tail(master)?, node);
        last = last.max(renewed.map(|at| (at, master.name().to_string())));
    }
    Ok(last.map(|(_, master)| master))
}

/// The master through which a pod's latest `exec`, `log` or `portforward` began; none if the logs have no recent one.
pub fn serves_stream(pod: &str, subresource: &str, masters: &[Host]) -> Result<Option<String>> {
    let mut last = None;
    for master in masters {
        let begun = last_stream(&tail(master)?, pod, subresource);
        last = last.max(begun.map(|at| (at, master.name().to_string())));
    }
    Ok(last.map(|(_, master)| master))
}

/// The writes of `user` in a span of time, through any master: verb and path. The Leases by which leaders are elected do not
/// count.
pub fn writes_by(user: &str, span: Range<Timestamp>, masters: &[Host]) -> Result<Vec<String>> {
    let mut writes = Vec::new();
    for master in masters {
        writes.extend(writes_in(&tail(master)?, user, &span));
    }
    Ok(writes)
}

/// The writes of a pod in a span of time, as above, those that the API server has refused too.
pub fn writes_of_pod(pod: &str, span: &Range<Timestamp>, masters: &[Host]) -> Result<Vec<String>> {
    let mut writes = Vec::new();
    for master in masters {
        let log = tail(master)?;
        let of_pod = events(&log, pod).filter(|event| is_pod(&event.user, pod) && is_write(event, span));
        writes.extend(of_pod.map(|event| told(&event)));
    }
    Ok(writes)
}

/// How often a pod has asked for its Lease in a span of time.
pub fn looks_at_lease(pod: &str, span: &Range<Timestamp>, masters: &[Host]) -> Result<usize> {
    let mut looks = 0;
    for master in masters {
        let log = tail(master)?;
        let is_look = |event: &Event| {
            let is_of_span = span.contains(&event.request_received_timestamp);
            is_pod(&event.user, pod) && event.verb == "get" && is_election(event) && is_of_span
        };
        looks += events(&log, pod).filter(is_look).count();
    }
    Ok(looks)
}

/// The events with this word.
fn events<'a>(log: &'a str, word: &'a str) -> impl Iterator<Item = Event> + 'a {
    let lines = log.lines().filter(move |line| line.contains(word));
    lines.filter_map(Event::of_line)
}

fn is_write(event: &Event, span: &Range<Timestamp>) -> bool {
    let reads = ["get", "list", "watch"];
    span.contains(&event.request_received_timestamp)
        && !reads.contains(&event.verb.as_str())
        && !is_election(event)
}

fn is_election(event: &Event) -> bool {
    event.request_uri.contains("/namespaces/trivet-system/leases")
}

fn told(event: &Event) -> String {
    format!("{} {}", event.verb, event.request_uri)
}

/// The requests of some clients that a master's apiserver got, or had not answered yet, in a span of time: who asked for what.
/// Of those without an end only the ones that began after `since` count, because an apiserver that is killed logs no end.
pub fn under_way(
    master: &Host,
    is_client: impl Fn(&Event) -> bool,
    since: Timestamp,
    span: &Range<Timestamp>,
) -> Result<Vec<String>> {
    Ok(under_way_in(&tail(master)?, is_client, since, span))
}

fn under_way_in(
    log: &str,
    is_client: impl Fn(&Event) -> bool,
    since: Timestamp,
    span: &Range<Timestamp>,
) -> Vec<String> {
    let mut requests = BTreeMap::new();
    for event in log.lines().filter_map(Event::of_line).filter(is_client) {
        // A watch has an event at its beginning too, and is open until it has one at its end.
        let id = event.audit_id.clone();
        if event.stage == COMPLETE {
            requests.insert(id, event);
        } else {
            requests.entry(id).or_insert(event);
        }
    }
    let is_under_way = |event: &&Event| {
        let end = event.stage_timestamp.filter(|_| event.stage == COMPLETE);
        let begun = event.request_received_timestamp;
        begun < span.end && end.map_or(begun >= since, |end| end >= span.start)
    };
    let under_way = requests.values().filter(is_under_way);
    under_way
        .map(|event| format!("{} of {}", told(event), event.user.username))
        .collect()
}

/// The watches of a namespace's ConfigMaps that began in a span of time, through any master: who asked for what.
pub fn watches_begun(namespace: &str, span: Range<Timestamp>, masters: &[Host]) -> Result<Vec<String>> {
    let mut watches = Vec::new();
    for master in masters {
        watches.extend(watches_in(&tail(master)?, namespace, &span));
    }
    Ok(watches)
}

fn watches_in(log: &str, namespace: &str, span: &Range<Timestamp>) -> Vec<String> {
    let path = format!("/api/v1/namespaces/{namespace}/configmaps");
    let begins = |event: &Event| {
        let asked = event.request_uri.split('?').next();
        event.verb == "watch" && asked == Some(&path) && span.contains(&event.request_received_timestamp)
    };
    log.lines()
        .filter(|line| line.contains(&path))
        .filter_map(Event::of_line)
        .filter(begins)
        .map(|event| format!("{} {}", event.user.username, event.request_uri))
        .collect()
}

fn writes_in(log: &str, user: &str, span: &Range<Timestamp>) -> Vec<String> {
    let of_user = events(log, user).filter(|event| event.user.username == user && is_write(event, span));
    of_user.map(|event| told(&event)).collect()
}

fn last_stream(log: &str, pod: &str, subresource: &str) -> Option<Timestamp> {
    let stream = format!("/pods/{pod}/{subresource}");
    let begins = |event: &Event| {
        let path = event.request_uri.split('?').next();
        path.is_some_and(|path| path.ends_with(&stream))
    };
    // The end of an older stream may be logged after the beginning of a newer one.
    log.lines()
        .filter(|line| line.contains(&stream))
        .filter_map(Event::of_line)
        .filter(begins)
        .map(|event| event.request_received_timestamp)
        .max()
}

fn last_renewal(log: &str, node: &str) -> Option<Timestamp> {
    let lease = format!("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{node}");
    let user = format!("system:node:{node}");
    let is_renewal = |event: &Event| {
        let path = event.request_uri.split('?').next();
        event.verb == "update" && event.user.username == user && path == Some(&lease)
    };
    // Search for the string before parsing JSON: a log of megabytes holds few renewals.
    let candidates = log.lines().rev().filter(|line| line.contains(&lease));
    let mut events = candidates.filter_map(Event::of_line);
    events
        .find(is_renewal)
        .map(|event| event.request_received_timestamp)
}

/// The end of a master's audit log; nothing if there is none.
fn tail(master: &Host) -> Result<String> {
    let path = master.file(LOG);
    let failed = || format!("failed to read {}", path.display());
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(error).with_context(failed),
    };
    let length = file.metadata().with_context(failed)?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))
        .with_context(failed)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).with_context(failed)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(verb: &str, user: &str, lease: &str, second: u8) -> String {
        format!(
            r#"{{"kind":"Event","verb":"{verb}","user":{{"username":"{user}","groups":[]}},"requestURI":"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{lease}?timeout=10s","requestReceivedTimestamp":"2026-01-01T00:00:{second:02}.000000Z"}}"#
        )
    }

    #[test]
    fn watches_of_the_namespace_that_begin_in_the_span_count() {
        let watch = |verb: &str, namespace: &str, second: u8| {
            format!(
                r#"{{"kind":"Event","verb":"{verb}","user":{{"username":"admin"}},"requestURI":"/api/v1/namespaces/{namespace}/configmaps?watch=true","requestReceivedTimestamp":"2026-01-01T00:00:{second:02}.000000Z"}}"#
            )
        };
        let log = [
            watch("watch", "mine", 1),
            watch("watch", "mine", 5),
            watch("list", "mine", 5),
            watch("watch", "mine-too", 5),
            watch("watch", "mine", 9),
        ]
        .join("\n");
        let at = |second: &str| {
            format!("2026-01-01T00:00:{second}Z")
                .parse::<Timestamp>()
                .unwrap()
        };
        let found = watches_in(&log, "mine", &(at("02")..at("09")));
        assert_eq!(found, ["admin /api/v1/namespaces/mine/configmaps?watch=true"]);
    }

    #[test]
    fn what_is_not_answered_yet_is_under_way_and_of_an_apiserver_that_was_killed_it_is_not() {
        let stage = |id: &str, user: &str, begun: u8, end: Option<u8>| {
            let stage = if end.is_some() {
                COMPLETE
            } else {
                "ResponseStarted"
            };
            let at = end.unwrap_or(begun);
            format!(
                r#"{{"kind":"Event","auditID":"{id}","stage":"{stage}","verb":"watch","user":{{"username":"{user}"}},"requestURI":"/{id}","requestReceivedTimestamp":"2026-01-01T00:00:{begun:02}.000000Z","stageTimestamp":"2026-01-01T00:00:{at:02}.000000Z"}}"#
            )
        };
        let log = [
            stage("of-a-dead-apiserver", "mine", 1, None),
            stage("over", "mine", 11, None),
            stage("over", "mine", 11, Some(15)),
            stage("ends-late", "mine", 12, None),
            stage("of-somebody-else", "yours", 12, Some(25)),
            stage("never-ends", "mine", 13, None),
            stage("ends-late", "mine", 12, Some(25)),
            stage("comes-late", "mine", 26, Some(26)),
            stage("later", "mine", 31, Some(31)),
        ]
        .join("\n");
        let second = |second: u8| {
            format!("2026-01-01T00:00:{second}Z")
                .parse::<Timestamp>()
                .unwrap()
        };
        let is_mine = |event: &Event| event.user.username == "mine";
        let found = |span| under_way_in(&log, is_mine, second(10), &span);
        assert_eq!(
            found(second(20)..second(30)),
            [
                "watch /comes-late of mine",
                "watch /ends-late of mine",
                "watch /never-ends of mine"
            ]
        );
        assert_eq!(found(second(10)..second(14)).len(), 3);
    }

    #[test]
    fn the_last_renewal_by_the_node_itself_counts() {
        let log = [
            "half a line".to_owned(),
            event("update", "system:node:w1", "w1", 1),
            event("update", "system:node:w1", "w1", 11),
            event("get", "system:node:w1", "w1", 12),
            event("update", "system:kube-controller-manager", "w1", 13),
            event("update", "system:node:w10", "w10", 14),
        ]
        .join("\n");
        assert_eq!(
            last_renewal(&log, "w1"),
            Some("2026-01-01T00:00:11Z".parse().unwrap())
        );
        assert_eq!(last_renewal(&log, "w2"), None);
    }

    #[test]
    fn only_a_users_writes_of_that_time_are_its_writes() {
        let log = [
            event("patch", "operator", "early", 1),
            event("get", "operator", "read", 11),
            event("watch", "operator", "watched", 12),
            event("patch", "somebody", "else", 13),
            event("patch", "operator", "late", 14),
            event("patch", "operator", "later", 21),
        ]
        .join("\n");
        let second = |second| format!("2026-01-01T00:00:{second}Z").parse().unwrap();
        let writes = writes_in(&log, "operator", &(second(10)..second(20)));
        assert_eq!(writes.len(), 1, "{writes:?}");
        assert!(
            writes[0].starts_with("patch ") && writes[0].contains("/late?"),
            "{writes:?}"
        );
    }

    #[test]
    fn a_pod_is_known_by_its_token_and_its_lease_is_no_write() {
        let event = |verb: &str, pod: &str, path: &str, second: u8| {
            format!(
                r#"{{"verb":"{verb}","user":{{"username":"operator","extra":{{"authentication.kubernetes.io/pod-name":["{pod}"]}}}},"requestURI":"{path}","requestReceivedTimestamp":"2026-01-01T00:00:{second:02}.000000Z"}}"#
            )
        };
        let lease = "/apis/coordination.k8s.io/v1/namespaces/trivet-system/leases/trivet-operator?";
        let log = [
            event("patch", "a", "/api/v1/namespaces/trivet-system/configmaps/a", 11),
            event("patch", "b", "/api/v1/namespaces/trivet-system/configmaps/b", 11),
            event("update", "a", lease, 12),
            event("get", "a", lease, 13),
            event(
                "patch",
                "a",
                "/api/v1/namespaces/trivet-system/configmaps/late",
                21,
            ),
        ]
        .join("\n");
        let second = |second| format!("2026-01-01T00:00:{second}Z").parse().unwrap();
        let span = second(10)..second(20);
        let of_pod = events(&log, "a").filter(|event| is_pod(&event.user, "a"));
        let (writes, others): (Vec<_>, Vec<_>) = of_pod.partition(|event| is_write(event, &span));
        assert_eq!(writes.len(), 1);
        assert!(told(&writes[0]).ends_with("configmaps/a"));
        assert_eq!(others.iter().filter(|event| is_election(event)).count(), 2);
        assert_eq!(writes_in(&log, "operator", &span).len(), 2);
    }

    #[test]
    fn the_newest_stream_counts_though_an_older_one_ends_later() {
        let stream = |pod: &str, second: u8| {
            format!(
                r#"{{"verb":"create","user":{{"username":"kubernetes-admin"}},"requestURI":"/api/v1/namespaces/n/pods/{pod}/exec?command=cat","requestReceivedTimestamp":"2026-01-01T00:00:{second:02}.000000Z"}}"#
            )
        };
        let log = [
            stream("one", 1),
            stream("one", 9),
            stream("one", 1),
            stream("one-more", 20),
        ]
        .join("\n");
        assert_eq!(
            last_stream(&log, "one", "exec"),
            Some("2026-01-01T00:00:09Z".parse().unwrap())
        );
        assert_eq!(last_stream(&log, "one", "log"), None);
    }
}
