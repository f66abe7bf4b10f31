//! What clients that are on no node find in DNS of a pool's apiservers.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{Instant, sleep, timeout};
use trivet_crds::POOL_LABEL;
use trivet_instruments::eventually;
use trivet_testbed::{Progress, binaries};

use crate::installation::{Installation, NAMESPACE};
use crate::say::say;
use crate::tools::Tools;

/// The name of the records.
pub const HOSTNAME: &str = "api.trivet.example.com";

/// The zone that external-dns manages.
const ZONE: &str = "example.com";

/// The Service of the pool `default`.
const SERVICE: &str = "default-apiservers";

/// The operator reads the objects every ten seconds, and what it says of them is in the status seconds later.
pub const TOLD: Duration = Duration::from_secs(40);

/// The pause between two looks.
const LOOK: Duration = Duration::from_millis(200);

/// How long external-dns may take for its first look.
const STARTS: Duration = Duration::from_secs(60);

/// The policies of both names.
pub fn policies(policy: &str) -> Value {
    json!({ "dns": { "service": { "policy": policy }, "external": { "policy": policy, "hostname": HOSTNAME } } })
}

impl Installation {
    /// Installs the CRD of external-dns.
    pub async fn install_dns_endpoints(&self) -> Result<()> {
        let crd = self.disturb(|_| binaries::dns_endpoint_crd()).await?;
        let tools = self.tools();
        tools
            .kubectl(&format!("apply --filename {}", crd.display()))
            .await?;
        let established =
            "wait --for=condition=Established crd dnsendpoints.externaldns.k8s.io --timeout=30s";
        tools.kubectl(established).await.map(drop)
    }

    /// Removes it, and all DNSEndpoints with it.
    pub async fn remove_dns_endpoints(&self) -> Result<()> {
        let delete = "delete crd dnsendpoints.externaldns.k8s.io --ignore-not-found --timeout=60s";
        self.tools().kubectl(delete).await.map(drop)
    }

    /// Takes the names back once the masters are as before, and resets the pool. Fails if the scenario has, or if names are left.
    pub async fn withdraw_names(&self, seen: Result<()>) -> Result<()> {
        self.masters_ready().await?;
        self.edit_pool(policies("Disabled")).await?;
        let withdrawn = match &seen {
            Ok(()) => self.no_names_are_left().await,
            Err(_) => Ok(()),
        };
        self.remove_dns_endpoints().await?;
        self.reset_pool().await?;
        self.pool_ready().await?;
        seen.and(withdrawn)
    }

    /// Waits until nothing says in DNS where apiservers are.
    pub async fn no_names_are_left(&self) -> Result<()> {
        let tools = self.tools();
        eventually(TOLD, "no name left", async || {
            for kind in ["services", "endpointslices", "dnsendpoints"] {
                let get = format!("get {kind} --namespace {NAMESPACE} --selector {POOL_LABEL} --output name");
                let found = tools.kubectl(&get).await?;
                ensure!(found.is_empty(), "{found}");
            }
            Ok(())
        })
        .await
    }
}

#[derive(Deserialize)]
struct Slices {
    items: Vec<Slice>,
}

#[derive(Deserialize)]
struct Slice {
    #[serde(default)]
    endpoints: Vec<Endpoint>,
}

#[derive(Deserialize)]
struct Endpoint {
    addresses: Vec<String>,
    #[serde(default)]
    conditions: Conditions,
}

#[derive(Default, Deserialize)]
struct Conditions {
    ready: Option<bool>,
}

/// The addresses that CoreDNS answers for the headless Service: those of all endpoints of its slices that are ready, or do not
/// say that they are not. Without the Service there is no such name, which is an error and no empty answer.
pub async fn resolve(tools: &Tools) -> Result<BTreeSet<String>> {
    let service = format!("get service {SERVICE} --namespace {NAMESPACE} --output name");
    tools.kubectl(&service).await?;
    let get = format!(
        "get endpointslices --namespace {NAMESPACE} --selector kubernetes.io/service-name={SERVICE} --output json"
    );
    let slices: Slices = serde_json::from_str(&tools.kubectl(&get).await?)?;
    let endpoints = slices.items.into_iter().flat_map(|slice| slice.endpoints);
    let ready = endpoints.filter(|endpoint| endpoint.conditions.ready != Some(false));
    Ok(ready.flat_map(|endpoint| endpoint.addresses).collect())
}

/// The targets of the DNSEndpoint.
pub async fn targets(tools: &Tools) -> Result<BTreeSet<String>> {
    let get = format!("get dnsendpoint trivet-default --namespace {NAMESPACE} --output json");
    let object: Value = serde_json::from_str(&tools.kubectl(&get).await?)?;
    let sets = object.pointer("/spec/endpoints").and_then(Value::as_array);
    let lists = sets
        .into_iter()
        .flatten()
        .filter_map(|set| set.get("targets")?.as_array());
    let mut found = BTreeSet::new();
    for list in lists {
        ensure!(!list.is_empty(), "an empty list of targets: {object}");
        found.extend(list.iter().filter_map(Value::as_str).map(str::to_owned));
    }
    Ok(found)
}

/// How long it took until `look` found just `expected`. An error of the API server is no answer; an empty answer is a failure.
pub async fn until(
    limit: Duration,
    expected: &BTreeSet<String>,
    look: impl AsyncFn() -> Result<BTreeSet<String>>,
) -> Result<Duration> {
    let begun = Instant::now();
    let mut last = BTreeSet::new();
    while begun.elapsed() < limit {
        if let Ok(found) = look().await {
            ensure!(
                !found.is_empty(),
                "an empty answer {:?} after the begin",
                begun.elapsed()
            );
            if found == *expected {
                return Ok(begun.elapsed());
            }
            last = found;
        }
        sleep(LOOK).await;
    }
    anyhow::bail!("the answer is {last:?} and not {expected:?} after {limit:?}")
}

/// External-dns with its records in memory.
#[derive(Debug)]
pub struct ExternalDns {
    _program: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

/// A record of the zone.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Record {
    /// Its name.
    pub name: String,
    /// A or AAAA.
    #[serde(rename = "type")]
    pub type_: String,
    /// Its time to live in seconds.
    pub ttl: i64,
    /// Its addresses.
    pub targets: BTreeSet<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Records(Vec<Record>),
    Error(String),
}

impl ExternalDns {
    /// Starts it, as the cluster's admin through the first master.
    pub async fn start(installation: &Installation) -> Result<Self> {
        let program = installation
            .disturb(|_| binaries::external_dns(&Progress::new()))
            .await?;
        let mut command = Command::new(program);
        command
            .arg("--kubeconfig")
            .arg(installation.cluster().kubeconfig_of("cp1")?);
        command.args(["--namespace", NAMESPACE, "--zone", ZONE]);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut program = command.spawn().context("failed to start external-dns")?;
        let output = program.stdout.take().context("external-dns has no output")?;
        Ok(Self {
            _program: program,
            lines: BufReader::new(output).lines(),
        })
    }

    /// Waits until the zone has just these addresses for the name. Errors are those of an API server that is at fault.
    pub async fn has(&mut self, expected: &BTreeSet<String>, limit: Duration) -> Result<Duration> {
        let begun = Instant::now();
        let until = async {
            loop {
                let line = self.lines.next_line().await?.context("external-dns has ended")?;
                let line =
                    serde_json::from_str(&line).with_context(|| format!("external-dns says {line:?}"))?;
                let records = match line {
                    Line::Records(records) => records,
                    Line::Error(words) => {
                        say(format!("external-dns: {words}"));
                        continue;
                    }
                };
                let of_name = records.iter().filter(|record| record.name == HOSTNAME);
                let found: BTreeSet<_> = of_name.flat_map(|record| record.targets.clone()).collect();
                if found == *expected {
                    return anyhow::Ok(begun.elapsed());
                }
            }
        };
        timeout(limit.max(STARTS), until)
            .await
            .with_context(|| format!("the zone has not {expected:?} within {limit:?}"))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_line_is_understood() {
        let lines = [
            r#"{"records":[{"name":"api.trivet.example.com","type":"A","ttl":30,"targets":["10.0.0.1"]}]}"#,
            r#"{"error":"read the DNSEndpoints: EOF"}"#,
        ];
        let [records, error] = lines.map(|line| serde_json::from_str::<Line>(line).unwrap());
        assert!(matches!(records, Line::Records(records) if records[0].ttl == 30));
        assert!(matches!(error, Line::Error(words) if words.ends_with("EOF")));
    }
}
