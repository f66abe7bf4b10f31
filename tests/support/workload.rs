//! Pods of the tests in a namespace of their own: something for kubectl to talk to.

use std::time::Duration;

use anyhow::Result;
use trivet_testbed::{Host, Progress, images};

use crate::installation::Installation;
use trivet_instruments::eventually;

/// A new namespace gets its ServiceAccount, without which no pod is admitted, within a second or two.
const ADMITTED: Duration = Duration::from_secs(30);

impl Installation {
    /// An empty namespace, whatever was in it before.
    pub async fn fresh_namespace(&self, name: &str) -> Result<()> {
        let tools = self.tools();
        tools
            .kubectl(&format!(
                "delete namespace {name} --ignore-not-found --timeout=60s"
            ))
            .await?;
        tools.kubectl(&format!("create namespace {name}")).await?;
        Ok(())
    }

    /// Runs pods of these names on `host` and waits until they are Ready.
    pub async fn run_pods(&self, namespace: &str, names: &[String], host: &Host) -> Result<()> {
        self.disturb(|cluster| cluster.load_image(&images::pod(&Progress::new())?))
            .await?;
        let manifest: String = names
            .iter()
            .map(|name| manifest(namespace, name, &host.name().to_string()))
            .collect();
        let tools = self.tools();
        eventually(ADMITTED, "pods of the tests", async || {
            tools.apply(&manifest).await
        })
        .await?;
        tools
            .kubectl(&format!(
                "wait --namespace {namespace} --for=condition=Ready pod --all --timeout=60s"
            ))
            .await?;
        Ok(())
    }

    /// The token of a ServiceAccount that may reach the ports of the pods of a namespace through the API, and no more.
    pub async fn token_for_pods(&self, namespace: &str) -> Result<String> {
        let tools = self.tools();
        let create = async |what: &str| {
            tools
                .kubectl(&format!("create {what} --namespace {namespace}"))
                .await
        };
        create("role pods-proxy --verb=get,create --resource=pods/proxy").await?;
        let account = format!("--serviceaccount={namespace}:default");
        create(&format!("rolebinding pods-proxy --role=pods-proxy {account}")).await?;
        let token = create("token default").await?;
        Ok(token.trim().to_owned())
    }
}

/// Pods without scheduler, token or image pull, so that nothing delays them.
fn manifest(namespace: &str, name: &str, node: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  nodeName: {node}
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 1
  containers:
  - {{name: pod, image: '{}', imagePullPolicy: Never}}
",
        images::POD
    )
}
