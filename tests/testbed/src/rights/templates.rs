//! The roles of the chart's templates, whatever the values are. It needs no helm, but reads no loop and no variable of a
//! template beyond the few that stand here.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::chart::{NAMESPACE, Roles};

/// What the templates of roles leave to helm.
const FILLED_IN: [(&str, &str); 4] = [
    ("{{ .Release.Namespace }}", NAMESPACE),
    ("{{ $namespace }}", NAMESPACE),
    ("{{ $name }}", "trivet-retirement"),
    ("{{ $rbac }}", "rbac.authorization.k8s.io/v1"),
];

/// Every role that a template holds.
pub(crate) fn read() -> Result<Roles> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts/trivet/templates");
    let failed = || format!("failed to read {}", folder.display());
    let mut roles = Vec::new();
    for entry in fs::read_dir(&folder).with_context(failed)? {
        let path = entry.with_context(failed)?.path();
        let template =
            fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
        roles.extend(template.split("---\n").filter(|part| is_role(part)).map(plain));
    }
    Roles::parse(&roles.join("\n---\n"))
}

fn is_role(part: &str) -> bool {
    ["kind: Role\n", "kind: ClusterRole\n"]
        .iter()
        .any(|kind| part.starts_with(kind) || part.contains(&format!("\n{kind}")))
}

/// A part of a template without what helm fills in and decides, from the object on: a comment may stand before it.
fn plain(part: &str) -> String {
    let mut text = part.to_owned();
    for (from, to) in FILLED_IN {
        text = text.replace(from, to);
    }
    let lines = text.lines().skip_while(|line| !line.starts_with("apiVersion:"));
    let lines = lines.filter(|line| !line.contains("{{") && !line.contains("}}"));
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_hide_no_rule_and_the_names_are_those_of_a_release() {
        let granted = read().unwrap().granted();
        let told: Vec<_> = granted
            .iter()
            .map(|(role, right)| format!("{role}: {right}"))
            .collect();
        for expected in [
            "trivet-proxy: create tokenreviews.authentication.k8s.io",
            "trivet-metrics-reader: get /metrics",
            "trivet-retirement: patch configmaps in trivet-system",
            "trivet-plugin: get configmaps kube-proxy in kube-system",
            "trivet-plugin: get namespaces trivet-system",
        ] {
            assert!(
                told.iter().any(|right| right == expected),
                "{expected} is not in {told:?}"
            );
        }
    }
}
