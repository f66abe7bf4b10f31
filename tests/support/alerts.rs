//! The alerts of the chart: read from the file that users get, and held to the metrics, to the runbooks and to their tests.

#[cfg(test)]
mod exposed;
pub mod faults;
#[cfg(test)]
mod selectors;

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};
use serde::Deserialize;

/// The rules as users get them.
pub const RULES: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../charts/trivet/files/monitoring/rules.yaml"
);

/// An alert.
#[derive(Clone, Debug, Deserialize)]
pub struct Alert {
    /// Its name.
    pub alert: String,
    /// What it is true for.
    pub expr: String,
    /// For how long that must be so.
    pub r#for: String,
    /// Among them its severity.
    pub labels: BTreeMap<String, String>,
    /// For people.
    pub annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Rules {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Alert>,
}

/// All alerts, in the order of the file.
pub fn all() -> Result<Vec<Alert>> {
    let text = fs::read_to_string(RULES).with_context(|| format!("failed to read {RULES}"))?;
    let rules: Rules =
        serde_saphyr::from_str(&text).with_context(|| format!("failed to understand {RULES}"))?;
    Ok(rules.groups.into_iter().flat_map(|group| group.rules).collect())
}

/// The expression of an alert.
pub fn expression(alert: &str) -> Result<String> {
    let found = all()?.into_iter().find(|known| known.alert == alert);
    Ok(found.with_context(|| format!("there is no alert {alert}"))?.expr)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::exposed::{Exposed, TARGET_LABELS};
    use super::selectors::{labels_named, selectors};
    use super::*;

    const RUNBOOKS: &str = include_str!("../../docs/runbooks.md");
    const TESTS: &str = include_str!("../monitoring/alerts.yaml");
    const DASHBOARD: &str = include_str!("../../charts/trivet/files/monitoring/dashboard.json");

    fn names() -> BTreeSet<String> {
        all().unwrap().into_iter().map(|alert| alert.alert).collect()
    }

    #[test]
    fn every_alert_has_a_section_of_the_runbooks_and_every_section_an_alert() {
        let sections = RUNBOOKS.lines().filter_map(|line| line.strip_prefix("## "));
        assert_eq!(sections.map(str::to_owned).collect::<BTreeSet<_>>(), names());
        for alert in all().unwrap() {
            let section = alert.alert.to_lowercase();
            assert_eq!(
                alert.annotations["runbook_url"],
                format!("docs/runbooks.md#{section}")
            );
        }
        for part in RUNBOOKS.split("\n## ").skip(1) {
            for step in ["**Means:**", "**Look:**", "**Do:**"] {
                assert!(part.contains(step), "{step} is missing in {part}");
            }
        }
    }

    #[test]
    fn every_alert_says_how_bad_it_is_after_how_long_and_for_whom() {
        for alert in all().unwrap() {
            let severity = alert.labels["severity"].as_str();
            assert!(["critical", "warning"].contains(&severity), "{alert:?}");
            assert!(alert.r#for.ends_with('m'), "{alert:?}");
            assert!(!alert.annotations["summary"].is_empty(), "{alert:?}");
            assert!(!alert.annotations["description"].is_empty(), "{alert:?}");
        }
    }

    #[test]
    fn every_alert_has_a_test_with_its_time() {
        let tested = TESTS
            .lines()
            .filter_map(|line| line.trim().strip_prefix("alertname: "));
        assert_eq!(tested.map(str::to_owned).collect::<BTreeSet<_>>(), names());
    }

    /// Fails unless what an expression names is exposed.
    fn exists(expression: &str, exposed: &Exposed) {
        let found = selectors(expression);
        assert!(!found.is_empty(), "{expression} reads no metric");
        let mut labels: BTreeSet<_> = TARGET_LABELS.map(str::to_owned).into();
        for selector in &found {
            let known = exposed.labels(&selector.metric);
            let known = known.unwrap_or_else(|| panic!("{} is no metric: {expression}", selector.metric));
            for (label, value) in &selector.matchers {
                assert!(
                    known.contains(label) || TARGET_LABELS.contains(&label.as_str()),
                    "{} has no label {label}: {expression}",
                    selector.metric
                );
                if let Some(value) = value.as_ref().filter(|value| !value.starts_with('$')) {
                    assert!(
                        exposed.may_be(&selector.metric, label, value),
                        "{label} of {} is never {value}: {expression}",
                        selector.metric
                    );
                }
            }
            labels.extend(known);
        }
        for label in labels_named(expression) {
            assert!(
                labels.contains(&label),
                "no metric has the label {label}: {expression}"
            );
        }
    }

    #[test]
    fn every_alert_reads_metrics_and_labels_that_exist() {
        let exposed = Exposed::read();
        for alert in all().unwrap() {
            exists(&alert.expr, &exposed);
            let templates = alert
                .annotations
                .values()
                .flat_map(|text| text.split("$labels.").skip(1));
            for template in templates {
                let label = template.split([' ', '}']).next().unwrap();
                let is_kept = labels_named(&alert.expr).contains(label);
                assert!(is_kept, "{label} is no label of {}", alert.alert);
            }
        }
    }

    #[test]
    fn every_query_of_the_dashboard_reads_metrics_and_labels_that_exist() {
        let exposed = Exposed::read();
        let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
        let panels = dashboard["panels"].as_array().unwrap();
        let mut ids = BTreeSet::new();
        for panel in panels {
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
            for target in panel["targets"].as_array().unwrap() {
                exists(target["expr"].as_str().unwrap(), &exposed);
            }
        }
        let variables = dashboard.pointer("/templating/list").unwrap().as_array().unwrap();
        let queries = variables.iter().filter_map(|variable| variable["query"].as_str());
        for query in queries.filter_map(|query| query.strip_prefix("label_values(")) {
            let (metric, label) = query.trim_end_matches(')').split_once(", ").unwrap();
            assert!(exposed.labels(metric).unwrap().contains(label), "{query}");
        }
    }
}
