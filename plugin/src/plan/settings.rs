//! What the operator in the cluster was started with, by the arguments in its Deployment.

use anyhow::{Context, Result, bail};
use clap::Parser;
use k8s_openapi::api::apps::v1::Deployment;
use kube::{Api, Client};
use trivet_operator::cli::{Cli, Command};
use trivet_operator::render::Settings;

use crate::read::OPERATOR;

/// The name of its container, as the chart has it.
const CONTAINER: &str = "operator";

/// Reads the operator's settings.
pub(super) async fn read(client: &Client, namespace: &str) -> Result<Settings> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let found = deployments.get_opt(OPERATOR).await;
    let found = found.with_context(|| format!("failed to read Deployment {OPERATOR} in {namespace}"))?;
    let Some(deployment) = found else {
        bail!(
            "there is no Deployment {OPERATOR} in {namespace}, and a plan depends on the operator's flags: install the chart, \
             or name its namespace by --namespace"
        );
    };
    settings(&deployment, namespace)
}

fn settings(deployment: &Deployment, namespace: &str) -> Result<Settings> {
    let spec = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.template.spec.as_ref());
    let containers = spec.map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let container = containers.iter().find(|container| container.name == CONTAINER);
    let arguments = container
        .and_then(|container| container.args.clone())
        .unwrap_or_default();
    // The chart gives it the namespace by the environment.
    let has_namespace = arguments
        .iter()
        .any(|argument| argument.starts_with("--namespace"));
    let namespace = (!has_namespace).then(|| format!("--namespace={namespace}"));
    let line = std::iter::once(OPERATOR.to_owned())
        .chain(arguments)
        .chain(namespace);
    let cli = Cli::try_parse_from(line).with_context(|| {
        format!("the flags of Deployment {OPERATOR} are of another release: use the plugin of the operator's release")
    })?;
    match cli.command {
        Command::Run(run) => Ok(Settings::from(&run)),
        Command::Retire(_) => bail!("Deployment {OPERATOR} runs no operator: its command is retire"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(arguments: &[&str]) -> Result<Settings> {
        let container = json!({ "name": CONTAINER, "args": arguments });
        let deployment = json!({
            "spec": { "selector": {}, "template": { "spec": { "containers": [container] } } },
        });
        settings(&serde_json::from_value(deployment).unwrap(), "trivet-system")
    }

    #[test]
    fn the_operators_flags_are_read_as_it_reads_them() {
        let settings = read(&[
            "run",
            "--proxy-image=proxy:7",
            "--node-bootstrap",
            "--rollout-soak-seconds=7",
        ])
        .unwrap();
        assert_eq!(
            (settings.namespace.as_str(), settings.image.as_str()),
            ("trivet-system", "proxy:7")
        );
        assert!(settings.has_node_bootstrap);
        assert_eq!(settings.rollout_soak_seconds, 7);
        let settings = read(&["run", "--proxy-image=proxy:7", "--namespace=other"]).unwrap();
        assert_eq!(settings.namespace, "other");
    }

    #[test]
    fn flags_of_another_release_are_refused_with_the_remedy() {
        let refusal = read(&["run", "--proxy-image=proxy:7", "--of-a-later-release"]).unwrap_err();
        assert!(
            refusal
                .to_string()
                .contains("use the plugin of the operator's release"),
            "{refusal}"
        );
    }
}
