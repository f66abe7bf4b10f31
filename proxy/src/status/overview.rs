//! The text of `trivet-proxy status`: the whole proxy on one screen.

use crate::handover::{inquiry::Processes, rank::Class, record::Peer};

use trivet_crds::wire::APISERVER;

use super::{ExtraListenerStatus, Observation, PathStatus, Status, UpstreamStatus, WarningStatus, layout};

/// The proxy, its document, its listeners, its clients, and a row for each path of each upstream.
pub fn overview(status: &Status) -> String {
    let mut lines = vec![
        line("proxy", proxy(status)),
        line("document", document(status)),
        line("listeners", listeners(status)),
        line("clients", clients(status)),
    ];
    let waiting = status
        .document
        .as_ref()
        .and_then(|document| document.waiting_template.as_deref());
    lines.extend(
        status
            .handover
            .iter()
            .flat_map(|processes| handover(processes, waiting)),
    );
    lines.extend(status.warnings.iter().map(warning));
    let head = layout::columns(&lines);
    if status.upstreams.is_empty() {
        return head;
    }
    let extras = status.extra_listeners.iter().map(extra);
    let extras: String = extras.collect();
    format!("{head}\n{}{extras}", upstreams(&status.upstreams))
}

/// An extra listener with its servers.
fn extra(listener: &ExtraListenerStatus) -> String {
    let ExtraListenerStatus {
        name,
        kind,
        upstreams: servers,
    } = listener;
    let kind = match kind.as_str() {
        "" => "removed",
        kind => kind,
    };
    format!("\nextra listener {name} ({kind})\n{}", upstreams(servers))
}

fn line(name: &str, text: String) -> Vec<String> {
    vec![name.to_owned(), text]
}

fn warning(warning: &WarningStatus) -> Vec<String> {
    let WarningStatus { reason, message, .. } = warning;
    let age = layout::span_of(warning.age_milliseconds);
    line("warning", format!("{reason} for {age}: {message}"))
}

/// The process that serves, then the others. Pods of the template `waiting` wait for the rollout.
fn handover(processes: &Processes, waiting: Option<&str>) -> Vec<Vec<String>> {
    let Processes { holder, peers } = processes;
    let serves = if holder.is_leaving {
        "serves and ends"
    } else {
        "serves"
    };
    let mut lines = vec![process(holder, serves.to_owned())];
    lines.extend(
        peers
            .iter()
            .map(|peer| process(peer, part(peer, holder, waiting))),
    );
    lines
}

fn part(peer: &Peer, holder: &Peer, waiting: Option<&str>) -> String {
    if peer.is_leaving {
        return "ends".to_owned();
    }
    let warmth = if peer.is_warm { "warm" } else { "not warm yet" };
    if peer.rank.class == Class::DaemonSet && waiting == Some(peer.template.as_str()) {
        format!("waits until the rollout reaches this node, {warmth}")
    } else if peer.rank.may_take(holder.rank) {
        format!("is about to take over, {warmth}")
    } else {
        format!("stands by, {warmth}")
    }
}

fn process(peer: &Peer, part: String) -> Vec<String> {
    let template = match peer.template.as_str() {
        "" => String::new(),
        template => format!(", template {template}"),
    };
    let (class, release) = (peer.rank.class, &peer.release);
    line("hand-over", format!("{class:?} {release} {part}{template}"))
}

fn proxy(status: &Status) -> String {
    let Status {
        version, node, zone, ..
    } = status;
    let zone = match zone.as_str() {
        "" => "zone unknown".to_owned(),
        zone => format!("zone {zone}"),
    };
    match &status.not_ready_because {
        None => format!("{version} on {node}, {zone}, ready"),
        Some(objection) => format!("{version} on {node}, {zone}, not ready: {objection}"),
    }
}

fn document(status: &Status) -> String {
    let Some(document) = &status.document else {
        return "none yet".to_owned();
    };
    format!(
        "revision {} of pool {}, in force for {}, from {}, locality {}",
        document.revision,
        document.pool,
        layout::span_of(document.age_milliseconds),
        document.source,
        document.locality,
    )
}

fn listeners(status: &Status) -> String {
    let told = status.listeners.iter().map(|listener| {
        let fault = match &listener.fault {
            Some(fault) => format!(" ({fault})"),
            None if listener.bound => String::new(),
            None => " (not bound)".to_owned(),
        };
        let name = match listener.name.as_str() {
            "" | APISERVER => String::new(),
            name => format!(" for {name}"),
        };
        format!("{}{name}{fault}", listener.address)
    });
    let told: Vec<_> = told.collect();
    if told.is_empty() {
        return "none".to_owned();
    }
    told.join(", ")
}

fn clients(status: &Status) -> String {
    let clients = &status.clients;
    format!("{} of at most {}", clients.open, clients.limit)
}

fn upstreams(upstreams: &[UpstreamStatus]) -> String {
    let head = [
        "MEMBER",
        "ADDRESS",
        "STATE",
        "REASON",
        "FOR",
        "CONNECTIONS",
        "LAST PROBE",
        "TOOK",
        "AGO",
        "PROVEN",
        "STANDING",
        "DISTANCE",
    ];
    let head = head.map(str::to_owned).to_vec();
    let paths = upstreams
        .iter()
        .flat_map(|upstream| upstream.paths.iter().map(move |path| row(upstream, path)));
    let rows: Vec<_> = std::iter::once(head).chain(paths).collect();
    layout::columns(&rows)
}

fn row(upstream: &UpstreamStatus, path: &PathStatus) -> Vec<String> {
    let probe = |tell: fn(&Observation) -> String| {
        let told = path.last_probe.as_ref().map(tell);
        told.unwrap_or_else(|| "-".to_owned())
    };
    let proven = if path.proven { "yes" } else { "no" };
    vec![
        upstream.member.clone(),
        path.address.clone(),
        path.state.clone(),
        path.reason.clone(),
        layout::span_of(path.state_milliseconds),
        path.connections.to_string(),
        probe(|probe| probe.outcome.clone()),
        probe(|probe| layout::latency(probe.latency_microseconds)),
        probe(|probe| layout::span_of(probe.last_milliseconds_ago)),
        proven.to_owned(),
        path.standing.clone(),
        upstream.distance.clone(),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_pod_of_a_new_template_waits_for_is_told() {
        let peer = |class: &str, template: &str, generation: u64| -> Peer {
            let peer = json!({
                "id": template, "release": "0.2.0", "template": template, "isWarm": true,
                "rank": { "class": class, "generation": generation },
            });
            serde_json::from_value(peer).unwrap()
        };
        let processes = Processes {
            holder: peer("DaemonSet", "old", 1),
            peers: vec![peer("DaemonSet", "new", 2), peer("Static", "new", 0)],
        };
        let told = |waiting| {
            let lines = handover(&processes, waiting).into_iter();
            lines.map(|line| line.concat()).collect::<Vec<_>>()
        };
        let [holder, pod, standby] = &told(Some("new"))[..] else {
            panic!("three lines")
        };
        assert!(holder.contains("serves"), "{holder}");
        assert!(
            pod.contains("waits until the rollout reaches this node, warm"),
            "{pod}"
        );
        assert!(standby.contains("stands by"), "{standby}");
        assert!(told(None)[1].contains("is about to take over"));
    }
}
