//! A real Prometheus on a host of the testbed, which finds and scrapes Trivet as the chart's PodMonitors say.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use serde::Deserialize as _;
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use trivet_instruments::eventually;
use trivet_testbed::Host;

use crate::alerts;
use crate::installation::{CHART, Installation, NAMESPACE, RELEASE};

/// The files of the server, as its host sees them.
const DIRECTORY: &str = "/var/log/trivet-prometheus";

/// The file in it that says what to scrape.
const TARGETS: &str = "targets.json";

/// Where it listens, on its host alone.
const ADDRESS: &str = "127.0.0.1:19090";

/// Much shorter than in a cluster, so that a scenario need not wait for it.
const INTERVAL: &str = "2s";

/// It starts, and lists the pods.
const STARTED: Duration = Duration::from_secs(30);

/// The user that may read metrics and nothing else.
const READER: &str = "trivet-metrics-reader";

/// A running server. It ends with this value.
#[derive(Debug)]
pub struct Prometheus {
    host: Host,
    pods: Api<Pod>,
    _server: Child,
}

/// The labels of a series.
pub type Labels = BTreeMap<String, String>;

impl Prometheus {
    /// Starts one on a host; returns once it scrapes the proxy of every node and the operator.
    pub async fn start(installation: &Installation, host: &str) -> Result<Self> {
        let host = installation.cluster().host(host)?;
        let directory = host.file(DIRECTORY);
        remove(&directory)?;
        fs::create_dir_all(&directory)?;
        let token = format!("create token {READER} --namespace {NAMESPACE} --duration 1h");
        let token = installation.tools().kubectl(&token).await?;
        fs::write(directory.join("token"), token.trim())?;
        let configuration = json!({
            "global": { "scrape_interval": INTERVAL, "scrape_timeout": INTERVAL },
            "scrape_configs": scrape_configs(installation).await?,
        });
        fs::write(directory.join("prometheus.yml"), configuration.to_string())?;
        let mut command = Command::from(host.command("prometheus")?);
        command
            .arg(format!("--config.file={DIRECTORY}/prometheus.yml"))
            .arg(format!("--storage.tsdb.path={DIRECTORY}/data"))
            .arg(format!("--web.listen-address={ADDRESS}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(directory.join("log"))?)
            .kill_on_drop(true);
        let server = command.spawn().context("failed to start prometheus")?;
        let prometheus = Self {
            host,
            pods: Api::namespaced(installation.kubernetes("cp1").await?, NAMESPACE),
            _server: server,
        };
        let nodes = installation.hosts().len();
        eventually(STARTED, "Prometheus scrapes all of Trivet", async || {
            let proxies = prometheus.query("up{job=\"trivet-proxy\"} == 1").await?;
            ensure!(proxies.len() == nodes, "{} of {nodes} proxies", proxies.len());
            let operators = prometheus.query("up{job=\"trivet-operator\"} == 1").await?;
            ensure!(!operators.is_empty(), "no operator");
            Ok(())
        })
        .await
        .with_context(|| {
            let log = fs::read_to_string(directory.join("log")).unwrap_or_default();
            format!("its log: {log}")
        })?;
        Ok(prometheus)
    }

    /// The labels of the series for which an expression holds now.
    pub async fn query(&self, expression: &str) -> Result<Vec<Labels>> {
        let results = self.ask(expression).await?;
        let labels = results.iter().filter_map(|result| result.get("metric"));
        labels.map(|labels| Ok(Labels::deserialize(labels)?)).collect()
    }

    /// The value of the only series of an expression.
    pub async fn value(&self, expression: &str) -> Result<f64> {
        let results = self.ask(expression).await?;
        let value = results.first().and_then(|result| result.pointer("/value/1"));
        let value = value.and_then(Value::as_str);
        let value = value.with_context(|| format!("{expression} has no value"))?;
        Ok(value.parse()?)
    }

    /// Waits until the expression of an alert holds with these labels.
    pub async fn tells(&self, alert: &str, labels: &[(&str, &str)], within: Duration) -> Result<()> {
        let expression = alerts::expression(alert)?;
        eventually(within, &format!("{alert} {labels:?}"), async || {
            let found = self.query(&expression).await?;
            let is_meant = |series: &Labels| {
                labels
                    .iter()
                    .all(|(label, value)| series.get(*label).map(String::as_str) == Some(value))
            };
            ensure!(found.iter().any(is_meant), "it holds for {found:?}");
            Ok(())
        })
        .await
    }

    /// Waits until no alert's expression holds.
    pub async fn tells_nothing(&self, within: Duration) -> Result<()> {
        self.tells_nothing_but(&[], within).await
    }

    /// Waits until no alert's expression holds, these aside.
    pub async fn tells_nothing_but(&self, aside: &[&str], within: Duration) -> Result<()> {
        let mut alerts = alerts::all()?;
        alerts.retain(|alert| !aside.contains(&alert.alert.as_str()));
        eventually(within, "no alert", async || {
            for alert in &alerts {
                let found = self.query(&alert.expr).await?;
                ensure!(found.is_empty(), "{} holds for {found:?}", alert.alert);
            }
            Ok(())
        })
        .await
    }

    /// Writes what there is to scrape, with the labels that Prometheus' discovery of pods gives. Debian builds it without that.
    async fn discover(&self) -> Result<()> {
        let pods = self.pods.list(&ListParams::default()).await?;
        let targets: Vec<_> = pods.items.iter().flat_map(targets_of).collect();
        let directory = self.host.file(DIRECTORY);
        let unfinished = directory.join("unfinished");
        fs::write(&unfinished, serde_json::to_string(&targets)?)?;
        Ok(fs::rename(&unfinished, directory.join(TARGETS))?)
    }

    async fn ask(&self, expression: &str) -> Result<Vec<Value>> {
        self.discover().await?;
        let mut curl = Command::from(self.host.command("curl")?);
        curl.args(["--silent", "--show-error", "--max-time", "5", "--data-urlencode"])
            .arg(format!("query={expression}"))
            .arg(format!("http://{ADDRESS}/api/v1/query"));
        let output = curl.stdin(Stdio::null()).kill_on_drop(true).output().await?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "failed to ask Prometheus: {said}");
        let answer: Value = serde_json::from_slice(&output.stdout)?;
        let results = answer.pointer("/data/result").and_then(Value::as_array);
        Ok(results
            .with_context(|| format!("{expression}: {answer}"))?
            .clone())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // What is left is replaced by the next start.
        drop(remove(&self.host.file(DIRECTORY).join("data")));
    }
}

/// A target for each port that a container of the pod declares, or one without a port.
fn targets_of(pod: &Pod) -> Vec<Value> {
    const OF_POD: &str = "__meta_kubernetes_pod";
    let status = pod.status.as_ref();
    let (Some(spec), Some(ip)) = (&pod.spec, status.and_then(|status| status.pod_ip.clone())) else {
        return Vec::new();
    };
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let is_ready = conditions.into_iter().flatten();
    let is_ready = is_ready
        .into_iter()
        .any(|it| it.type_ == "Ready" && it.status == "True");
    let mut labels: Labels = [
        (format!("{OF_POD}_name"), pod.name_any()),
        ("__meta_kubernetes_namespace".to_owned(), NAMESPACE.to_owned()),
        (
            format!("{OF_POD}_node_name"),
            spec.node_name.clone().unwrap_or_default(),
        ),
        (format!("{OF_POD}_ip"), ip.clone()),
        (
            format!("{OF_POD}_host_ip"),
            status
                .and_then(|status| status.host_ip.clone())
                .unwrap_or_default(),
        ),
        (
            format!("{OF_POD}_phase"),
            status.and_then(|status| status.phase.clone()).unwrap_or_default(),
        ),
        (format!("{OF_POD}_ready"), is_ready.to_string()),
    ]
    .into();
    for (kind, values) in [("label", pod.labels()), ("annotation", pod.annotations())] {
        labels.extend(
            values
                .iter()
                .map(|(key, value)| (format!("{OF_POD}_{kind}_{}", label_of(key)), value.clone())),
        );
    }
    let address = if ip.contains(':') { format!("[{ip}]") } else { ip };
    let mut targets = Vec::new();
    for container in &spec.containers {
        for port in container.ports.iter().flatten() {
            let mut labels = labels.clone();
            labels.insert(format!("{OF_POD}_container_name"), container.name.clone());
            labels.insert(
                format!("{OF_POD}_container_port_name"),
                port.name.clone().unwrap_or_default(),
            );
            labels.insert(
                format!("{OF_POD}_container_port_number"),
                port.container_port.to_string(),
            );
            targets
                .push(json!({ "targets": [format!("{address}:{}", port.container_port)], "labels": labels }));
        }
    }
    if targets.is_empty() {
        targets.push(json!({ "targets": [address], "labels": labels }));
    }
    targets
}

/// The name that a label of Kubernetes has as one of Prometheus.
fn label_of(key: &str) -> String {
    let character = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    key.chars().map(character).collect()
}

fn remove(directory: &PathBuf) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error)?,
        Ok(()) | Err(_) => Ok(()),
    }
}

/// What the operator of Prometheus makes of the chart's PodMonitors.
async fn scrape_configs(installation: &Installation) -> Result<Vec<Value>> {
    let template = format!(
        "template {RELEASE} {CHART} --namespace {NAMESPACE} --show-only templates/monitoring.yaml \
         --set monitoring.nodeExposure.enabled=true --set monitoring.podMonitor.enabled=true"
    );
    let rendered = installation.tools().helm(&template).await?;
    let mut configs = Vec::new();
    for document in rendered.split("\n---\n") {
        let object: Value = serde_saphyr::from_str(document).context("failed to understand the chart")?;
        if object.get("kind").and_then(Value::as_str) == Some("PodMonitor") {
            configs.push(scrape_config(&object).with_context(|| format!("failed to translate {object}"))?);
        }
    }
    ensure!(configs.len() == 2, "two PodMonitors are expected: {rendered}");
    Ok(configs)
}

fn scrape_config(monitor: &Value) -> Option<Value> {
    let name = monitor.pointer("/metadata/name")?;
    let endpoint = monitor.pointer("/spec/podMetricsEndpoints/0")?;
    let mut relabelings = Vec::new();
    for (label, value) in monitor.pointer("/spec/selector/matchLabels")?.as_object()? {
        let label = label_of(label);
        relabelings.push(kept(&format!("__meta_kubernetes_pod_label_{label}"), value));
    }
    if let Some(port) = endpoint.get("port") {
        relabelings.push(kept("__meta_kubernetes_pod_container_port_name", port));
    }
    relabelings.extend(endpoint.get("relabelings")?.as_array()?.iter().map(translated));
    let mut config = json!({
        "job_name": name,
        "metrics_path": endpoint.get("path")?,
        "file_sd_configs": [{ "files": [format!("{DIRECTORY}/{TARGETS}")] }],
        "relabel_configs": relabelings,
    });
    if endpoint.get("authorization").is_some() {
        let insecure = endpoint.pointer("/tlsConfig/insecureSkipVerify")?;
        let secured = config.as_object_mut()?;
        secured.insert("scheme".to_owned(), endpoint.get("scheme")?.clone());
        secured.insert(
            "tls_config".to_owned(),
            json!({ "insecure_skip_verify": insecure }),
        );
        let credentials = json!({ "credentials_file": format!("{DIRECTORY}/token") });
        secured.insert("authorization".to_owned(), credentials);
    }
    Some(config)
}

fn kept(label: &str, value: &Value) -> Value {
    json!({ "action": "keep", "source_labels": [label], "regex": value })
}

/// The same step in the words of Prometheus.
fn translated(relabeling: &Value) -> Value {
    let fields = relabeling.as_object().into_iter().flatten();
    let fields = fields.map(|(name, value)| {
        let name = match name.as_str() {
            "sourceLabels" => "source_labels",
            "targetLabel" => "target_label",
            same => same,
        };
        (name.to_owned(), value.clone())
    });
    fields.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_monitor_becomes_what_prometheus_reads() {
        let monitor = json!({
            "metadata": { "name": "trivet-proxy" },
            "spec": {
                "selector": { "matchLabels": { "app.kubernetes.io/name": "trivet-proxy" } },
                "podMetricsEndpoints": [{
                    "path": "/metrics", "scheme": "https", "tlsConfig": { "insecureSkipVerify": true },
                    "authorization": { "type": "Bearer" },
                    "relabelings": [{ "sourceLabels": ["a"], "targetLabel": "b" }],
                }],
            },
        });
        let config = scrape_config(&monitor).unwrap();
        assert_eq!(config["tls_config"], json!({ "insecure_skip_verify": true }));
        assert_eq!(
            config["relabel_configs"],
            json!([
                { "action": "keep", "source_labels": ["__meta_kubernetes_pod_label_app_kubernetes_io_name"], "regex": "trivet-proxy" },
                { "source_labels": ["a"], "target_label": "b" },
            ])
        );
    }
}
