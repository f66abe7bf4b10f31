//! The text of `trivet-proxy explain`: why one member is in its state.

use super::{Observation, PathStatus, UpstreamStatus, layout};

/// The state of an upstream, what it means, what would change it, and its latest outcomes.
pub fn account(upstream: &UpstreamStatus) -> String {
    let UpstreamStatus {
        member,
        address,
        state,
        reason,
        ..
    } = upstream;
    let server = match upstream.listener.as_str() {
        "" => String::new(),
        listener => format!(" (the server of listener {listener})"),
    };
    let head = format!(
        "{member}{server} at {address} is {state} ({reason}) for {}: {}.\n",
        layout::span_of(upstream.state_milliseconds),
        upstream.reason_means,
    );
    let connections = match upstream.connections {
        1 => "1 connection".to_owned(),
        number => format!("{number} connections"),
    };
    let proven = if upstream.proven { "yes" } else { "no" };
    let facts = layout::columns(&[
        fact("connections", format!("{connections}; {}", upstream.effect)),
        fact("way back", upstream.way_back.clone()),
        fact("proven", proven.to_owned()),
        fact("standing", upstream.standing.clone()),
        fact("distance", upstream.distance.clone()),
        fact("addresses", upstream.addresses.join(", ")),
    ]);
    let paths = match upstream.paths.as_slice() {
        [] | [_] => String::new(),
        paths => format!("\n{}", addresses(paths)),
    };
    format!("{head}\n{facts}{paths}\n{}", evidence(&upstream.evidence))
}

/// Each address of a member that has several.
fn addresses(paths: &[PathStatus]) -> String {
    let head = [
        "ADDRESS",
        "STATE",
        "REASON",
        "FOR",
        "CONNECTIONS",
        "PROVEN",
        "STANDING",
    ];
    let head = head.map(str::to_owned).to_vec();
    let rows = paths.iter().map(|path| {
        vec![
            path.address.clone(),
            path.state.clone(),
            path.reason.clone(),
            layout::span_of(path.state_milliseconds),
            path.connections.to_string(),
            if path.proven { "yes" } else { "no" }.to_owned(),
            path.standing.clone(),
        ]
    });
    let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
    layout::columns(&rows)
}

fn fact(name: &str, text: String) -> Vec<String> {
    vec![name.to_owned(), text]
}

fn evidence(evidence: &[Observation]) -> String {
    if evidence.is_empty() {
        return "No probe has ended and no client has connected yet.\n".to_owned();
    }
    let head = [
        "LAST", "FIRST", "TIMES", "FOUND BY", "ADDRESS", "OUTCOME", "TOOK", "DETAIL",
    ];
    let head = head.map(str::to_owned).to_vec();
    let rows: Vec<_> = std::iter::once(head).chain(evidence.iter().map(row)).collect();
    layout::columns(&rows)
}

fn row(evidence: &Observation) -> Vec<String> {
    let ago = |milliseconds| format!("{} ago", layout::span_of(milliseconds));
    vec![
        ago(evidence.last_milliseconds_ago),
        ago(evidence.first_milliseconds_ago),
        evidence.times.to_string(),
        evidence.origin.clone(),
        evidence.address.clone(),
        evidence.outcome.clone(),
        layout::latency(evidence.latency_microseconds),
        evidence.detail.clone(),
    ]
}
