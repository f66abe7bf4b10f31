//! Which metrics and labels a PromQL expression names. `promtool` checks its grammar.

use std::collections::BTreeSet;

/// A metric in an expression, with what it is matched by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Selector {
    pub(super) metric: String,
    /// Each label, and its value where the match is an equality.
    pub(super) matchers: Vec<(String, Option<String>)>,
}

/// What a metric's name begins with. `up` is Prometheus' own.
const OURS: &str = "trivet_";

/// All metrics that an expression reads.
pub(super) fn selectors(expression: &str) -> Vec<Selector> {
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphabetic()) {
        let word_on = &rest[start..];
        let end = word_on.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let (word, after) = word_on.split_at(end.unwrap_or(word_on.len()));
        rest = after;
        if word == "up" || word.starts_with(OURS) {
            let braces = after.strip_prefix('{').and_then(|after| after.split_once('}'));
            let (inside, behind) = braces.unwrap_or(("", after));
            rest = behind;
            found.push(Selector {
                metric: word.to_owned(),
                matchers: inside
                    .split(',')
                    .map(str::trim)
                    .filter(|pair| !pair.is_empty())
                    .map(matcher)
                    .collect(),
            });
        } else if let Some(quoted) = after.strip_prefix('"') {
            rest = quoted.split_once('"').map_or("", |(_, behind)| behind);
        }
    }
    found
}

fn matcher(pair: &str) -> (String, Option<String>) {
    let (label, value) = pair.split_once(['=', '!']).unwrap();
    let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    (label.to_owned(), value.map(str::to_owned))
}

/// The labels that an expression groups or joins by: all that its result can have.
pub(super) fn labels_named(expression: &str) -> BTreeSet<String> {
    let mut labels = BTreeSet::new();
    for clause in ["by (", "on (", "group_left ("] {
        for part in expression.split(clause).skip(1) {
            let (inside, _) = part.split_once(')').unwrap();
            labels.extend(
                inside
                    .split(',')
                    .map(str::trim)
                    .filter(|label| !label.is_empty())
                    .map(str::to_owned),
            );
        }
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_matchers_and_grouping_labels_are_found() {
        let expression =
            r#"sum by (pool,le) (rate(trivet_a_bucket{state="Up",reason!="X"}[5m])) and on (node) up == 1"#;
        let matcher = |label: &str, value: Option<&str>| (label.to_owned(), value.map(str::to_owned));
        assert_eq!(
            selectors(expression),
            [
                Selector {
                    metric: "trivet_a_bucket".to_owned(),
                    matchers: vec![matcher("state", Some("Up")), matcher("reason", None)],
                },
                Selector {
                    metric: "up".to_owned(),
                    matchers: Vec::new(),
                },
            ]
        );
        let labels: Vec<_> = labels_named(expression).into_iter().collect();
        assert_eq!(labels, ["le", "node", "pool"]);
    }
}
