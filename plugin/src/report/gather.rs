//! Reads the objects and logs of the archive. Which kinds those are is fixed here, and Secrets are none of them.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{ConfigMap, Event, Node, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ListParams, LogParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use trivet_crds::POOL_LABEL;
use trivet_crds::pool::ApiserverPool;
use trivet_crds::report::ProxyReport;

use super::archive::Entry;
use super::redact;
use crate::doctor::expected::CRDS;

/// The most of one log: what a maintainer reads, and an archive that can be sent.
const LOG_BYTES: i64 = 512 * 1024;

/// Pods whose logs are read, so that the archive of a large cluster can be sent.
const LOGS: usize = 60;

/// Objects of one kind that are kept, for the same reason.
const OBJECTS: u32 = 500;

/// All files but doctor's. What cannot be read is noted in `unread.txt`.
pub(super) async fn all(client: Client, namespace: &str, log_lines: i64) -> Vec<Entry> {
    let mut gatherer = Gatherer {
        entries: Vec::new(),
        unread: String::new(),
    };
    let any = ListParams::default().limit(OBJECTS);
    let of_pools = any.clone().labels(POOL_LABEL);
    gatherer
        .list::<ApiserverPool>("apiserverpools", Api::all(client.clone()), &any)
        .await;
    gatherer
        .list::<ProxyReport>("proxyreports", Api::all(client.clone()), &any)
        .await;
    gatherer
        .list::<Node>("nodes", Api::all(client.clone()), &any)
        .await;
    gatherer
        .list::<ConfigMap>("configmaps", at_home(&client, namespace), &of_pools)
        .await;
    gatherer
        .list::<DaemonSet>("daemonsets", at_home(&client, namespace), &any)
        .await;
    gatherer
        .list::<Deployment>("deployments", at_home(&client, namespace), &any)
        .await;
    gatherer
        .list::<ControllerRevision>("controllerrevisions", at_home(&client, namespace), &any)
        .await;
    gatherer
        .list::<Event>("events", at_home(&client, namespace), &any)
        .await;
    // Events about pools, which are in no namespace.
    let about_pools = any.clone().fields("involvedObject.kind=ApiserverPool");
    gatherer
        .list::<Event>("events-of-pools", at_home(&client, "default"), &about_pools)
        .await;
    for name in CRDS {
        gatherer
            .get::<CustomResourceDefinition>(name, Api::all(client.clone()))
            .await;
    }
    let pods = gatherer
        .list::<Pod>("pods", at_home(&client, namespace), &any)
        .await;
    gatherer
        .logs(&at_home(&client, namespace), &pods, log_lines)
        .await;
    gatherer.finish()
}

fn at_home<K>(client: &Client, namespace: &str) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    Api::namespaced(client.clone(), namespace)
}

struct Gatherer {
    entries: Vec<Entry>,
    unread: String,
}

impl Gatherer {
    /// The first objects of a kind, as one file.
    async fn list<K>(&mut self, name: &str, api: Api<K>, which: &ListParams) -> Vec<K>
    where
        K: Resource + Clone + DeserializeOwned + Serialize + Debug,
    {
        match api.list(which).await {
            Ok(found) => {
                self.keep(&format!("{name}.json"), &found.items);
                found.items
            }
            Err(error) => {
                self.failed(name, error);
                Vec::new()
            }
        }
    }

    async fn get<K>(&mut self, name: &str, api: Api<K>)
    where
        K: Resource + Clone + DeserializeOwned + Serialize + Debug,
    {
        match api.get_opt(name).await {
            Ok(found) => self.keep(&format!("crd-{name}.json"), &found),
            Err(error) => self.failed(name, error),
        }
    }

    /// The logs of the pods, those of containers that were restarted too.
    async fn logs(&mut self, api: &Api<Pod>, pods: &[Pod], lines: i64) {
        if lines == 0 {
            return;
        }
        for pod in pods.iter().take(LOGS) {
            let name = pod.name_any();
            let statuses = pod
                .status
                .iter()
                .flat_map(|status| status.container_statuses.iter().flatten());
            for status in statuses {
                self.log(api, &name, &status.name, false, lines).await;
                if status.restart_count > 0 {
                    self.log(api, &name, &status.name, true, lines).await;
                }
            }
        }
        if pods.len() > LOGS {
            let line = format!("logs of {} pods: only the first {LOGS} are read\n", pods.len());
            self.unread.push_str(&line);
        }
    }

    async fn log(&mut self, api: &Api<Pod>, pod: &str, container: &str, previous: bool, lines: i64) {
        let params = LogParams {
            container: Some(container.to_owned()),
            previous,
            tail_lines: Some(lines),
            limit_bytes: Some(LOG_BYTES),
            timestamps: true,
            ..LogParams::default()
        };
        let name = format!(
            "logs/{pod}.{container}{}.log",
            if previous { ".previous" } else { "" }
        );
        match api.logs(pod, &params).await {
            Ok(text) => self.entries.push(Entry::text(&name, &redact::text(&text))),
            // The pod has ended since the list: what is gone is nothing that could not be read.
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => self.failed(&name, error),
        }
    }

    fn keep(&mut self, name: &str, value: &impl Serialize) {
        let kept = serde_json::to_value(value).map(|mut value| {
            redact::object(&mut value);
            value
        });
        match kept
            .map_err(anyhow::Error::from)
            .and_then(|value| Entry::json(name, &value))
        {
            Ok(entry) => self.entries.push(entry),
            Err(error) => {
                let line = format!("{name}: {error:#}\n");
                self.unread.push_str(&line);
            }
        }
    }

    fn failed(&mut self, what: &str, error: kube::Error) {
        let why = crate::output::chain(&error.into());
        self.unread.extend([what, ": ", &redact::text(&why), "\n"]);
    }

    fn finish(mut self) -> Vec<Entry> {
        if !self.unread.is_empty() {
            self.entries.push(Entry::text("unread.txt", &self.unread));
        }
        self.entries
    }
}
