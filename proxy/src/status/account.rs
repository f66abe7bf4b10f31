//! The text of `trivet-proxy explain`: why one member is in its state.

use super::{Observation, UpstreamStatus, layout};

/// The state of an upstream, what it means, what would change it, and its latest outcomes.
pub fn account(upstream: &UpstreamStatus) -> String {
    let UpstreamStatus {
        member,
        address,
        state,
        reason,
        ..
    } = upstream;
    let head = format!(
        "{member} at {address} is {state} ({reason}) for {}: {}.\n",
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
    format!("{head}\n{facts}\n{}", evidence(&upstream.evidence))
}

fn fact(name: &str, text: String) -> Vec<String> {
    vec![name.to_owned(), text]
}

fn evidence(evidence: &[Observation]) -> String {
    if evidence.is_empty() {
        return "No probe has ended and no client has connected yet.\n".to_owned();
    }
    let head = ["LAST", "FIRST", "TIMES", "FOUND BY", "OUTCOME", "TOOK", "DETAIL"];
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
        evidence.outcome.clone(),
        layout::latency(evidence.latency_microseconds),
        evidence.detail.clone(),
    ]
}
