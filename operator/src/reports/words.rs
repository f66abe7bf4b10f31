//! Nodes in the messages of conditions.

/// A message names up to this many nodes, however large the cluster.
pub const NAMES_LIMIT: usize = 10;

/// This many nodes, in words.
pub fn counted(nodes: usize) -> String {
    match nodes {
        1 => "1 node".to_owned(),
        nodes => format!("{nodes} nodes"),
    }
}

/// The first names, and how many more there are.
pub fn listed(names: impl ExactSizeIterator<Item = String>) -> String {
    let more = match names.len().saturating_sub(NAMES_LIMIT) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}{more}", names.take(NAMES_LIMIT).collect::<Vec<_>>().join(", "))
}
