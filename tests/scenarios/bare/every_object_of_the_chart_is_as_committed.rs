//! What the chart makes is compared with committed files, so that a change of a template shows in a review as what changes on a
//! cluster. `TRIVET_GENERATE=write cargo xtask test every_object_of_the_chart` writes them anew.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use trivet_tests::installation::{CHART, Installation, NAMESPACE, RELEASE};

/// Where the files are.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/chart");

/// The CRDs are committed as they are, and are no templates.
const WITHOUT_CRDS: &str = "--set crds.enabled=false";

/// The kinds of which the chart itself has no second copy: rules and dashboard are files of it.
const WHOLE: [&str; 2] = ["kind: PrometheusRule", "grafana_dashboard"];

#[tokio::test(flavor = "multi_thread")]
async fn every_object_of_the_chart_is_as_committed() -> Result<()> {
    let installation = Installation::bare().await?;
    let values = format!("--values {FOLDER}/everything-values.yaml");
    for (name, with) in [("default", ""), ("everything", values.as_str())] {
        let template = format!("template {RELEASE} {CHART} --namespace {NAMESPACE} {with} {WITHOUT_CRDS}");
        let rendered = shortened(&installation.tools().helm(&template).await?);
        same(&Path::new(FOLDER).join(format!("{name}.yaml")), &rendered)?;
    }
    Ok(())
}

/// The objects, without the content of those that are files of the chart.
fn shortened(rendered: &str) -> String {
    let objects = rendered.split("\n---\n").map(|object| {
        let is_file = WHOLE.iter().any(|part| object.contains(part));
        let end = object.find("\nspec:").or_else(|| object.find("\ndata:"));
        match end.filter(|_| is_file) {
            Some(end) => object.split_at(end).0,
            None => object,
        }
    });
    objects.collect::<Vec<_>>().join("\n---\n").trim_end().to_owned() + "\n"
}

/// Compares with the file, or writes it.
fn same(file: &Path, rendered: &str) -> Result<()> {
    if std::env::var_os("TRIVET_GENERATE").is_some_and(|mode| mode == "write") {
        return std::fs::write(file, rendered).with_context(|| format!("failed to write {}", file.display()));
    }
    let committed = std::fs::read_to_string(file).unwrap_or_default();
    let mut lines = committed.lines().zip(rendered.lines()).enumerate();
    let first = lines.find(|(_, (committed, rendered))| committed != rendered);
    let (committed_count, rendered_count) = (committed.lines().count(), rendered.lines().count());
    ensure!(
        first.is_none() && committed_count == rendered_count,
        "the chart makes other objects than {} says ({rendered_count} lines instead of {committed_count}), first here: \
         {first:?}; run TRIVET_GENERATE=write cargo xtask test every_object_of_the_chart and commit what is right",
        file.display()
    );
    Ok(())
}
