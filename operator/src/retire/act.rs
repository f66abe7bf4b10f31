//! Takes one step of a retirement. Each step may be taken again, by this operator or a later one: what is done already is no
//! failure.
//!
//! The chart's policies let the operator delete only what has the annotation [`RETIREMENT`]. A change that somebody has made
//! since the facts were read makes the API server refuse the step (409), and the next look decides anew.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use trivet_crds::report::ProxyReport;
use trivet_crds::{RETIRE, RETIREMENT, data_plane_name};

use super::facts::{Begun, Fleet};
use super::read::Nodes;
use crate::MANAGER;
use crate::dns;
use crate::render::remover;

/// Why a step was not taken.
#[derive(Debug, thiserror::Error)]
#[error("failed to {attempt} {name}")]
pub struct Error {
    /// What was tried.
    attempt: &'static str,
    /// The object.
    name: String,
    /// Why.
    source: kube::Error,
}

impl Error {
    /// Whether the object has changed since it was read: the next look decides anew.
    pub fn is_conflict(&self) -> bool {
        matches!(&self.source, kube::Error::Api(status) if status.code == 409)
    }
}

/// Takes steps in one namespace.
#[derive(Clone)]
pub struct Actor<'a> {
    /// The client.
    pub client: &'a Client,
    /// The namespace.
    pub namespace: &'a str,
}

impl Actor<'_> {
    /// Notes that the retirement of these proxies begins.
    pub async fn begin(&self, fleet: &Fleet, begun: &Begun) -> Result<(), Error> {
        match &fleet.proxies {
            Some(proxies) => self.note(proxies, Some(begun)).await,
            None => Ok(()),
        }
    }

    /// Takes away what asks for a retirement.
    pub async fn ignore(&self, fleet: &Fleet) -> Result<(), Error> {
        match &fleet.proxies {
            Some(proxies) => self.annotate(proxies, &json!({ RETIRE: null })).await,
            None => Ok(()),
        }
    }

    /// Deletes the writer of manifests. The pods that it leaves write nothing any more.
    pub async fn delete_writer(&self, fleet: &Fleet) -> Result<(), Error> {
        let (Some(writer), Some(begun)) = (&fleet.writer, fleet.begun()) else {
            return Ok(());
        };
        if writer.annotations().contains_key(RETIREMENT) {
            self.delete(writer, "delete DaemonSet").await
        } else {
            // The deletion is the next step: the object has another version afterwards.
            self.note(writer, Some(&begun)).await
        }
    }

    /// Places the remover.
    pub async fn place(&self, fleet: &Fleet, begun: &Begun) -> Result<(), Error> {
        let remover = fleet
            .proxies
            .as_ref()
            .and_then(|proxies| remover::render(&fleet.pool, proxies, begun));
        let Some(remover) = remover else {
            return Ok(());
        };
        let name = remover.name_any();
        let api: Api<DaemonSet> = Api::namespaced(self.client.clone(), self.namespace);
        let params = PatchParams::apply(MANAGER).force();
        let applied = api.patch(&name, &params, &Patch::Apply(&remover)).await;
        applied.map(drop).map_err(|source| Error {
            attempt: "apply DaemonSet",
            name,
            source,
        })
    }

    /// Deletes the proxies' DaemonSet. Its pods end in the background.
    pub async fn delete_proxies(&self, fleet: &Fleet) -> Result<(), Error> {
        match &fleet.proxies {
            Some(proxies) => self.delete(proxies, "delete DaemonSet").await,
            None => Ok(()),
        }
    }

    /// Takes back what has begun: first the remover, which would take the files of a proxy that only restarts.
    pub async fn undo(&self, fleet: &Fleet) -> Result<(), Error> {
        if let Some(remover) = &fleet.remover {
            self.delete(remover, "delete DaemonSet").await?;
        }
        // The proxies last: by their note a later operator knows that this is not done.
        let noted = fleet.writer.iter().chain(&fleet.proxies);
        for set in noted.filter(|set| set.annotations().contains_key(RETIREMENT)) {
            self.note(set, None).await?;
        }
        Ok(())
    }

    /// Deletes what is left in the API: the document, the names in DNS, the reports, and the remover, by which a later operator
    /// knows that this is not done.
    pub async fn finish(&self, fleet: &Fleet, nodes: &Nodes) -> Result<(), Error> {
        self.delete_document(fleet).await?;
        self.delete_names(fleet).await?;
        let api: Api<ProxyReport> = Api::all(self.client.clone());
        let of_fleet = nodes
            .reports
            .iter()
            .filter(|(_, report)| report.pool == fleet.pool);
        for (name, _report) in of_fleet {
            gone(api.delete(name, &DeleteParams::default()).await.map(drop)).map_err(|source| Error {
                attempt: "delete ProxyReport",
                name: name.clone(),
                source,
            })?;
        }
        match &fleet.remover {
            Some(remover) => self.delete(remover, "delete DaemonSet").await,
            None => Ok(()),
        }
    }

    async fn delete_document(&self, fleet: &Fleet) -> Result<(), Error> {
        let name = data_plane_name(&fleet.pool);
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), self.namespace);
        let failure = |attempt| {
            let name = name.clone();
            move |source| Error {
                attempt,
                name,
                source,
            }
        };
        let noted = json!({ "metadata": { "annotations": { RETIREMENT: "{}" } } });
        let noted = api.patch_metadata(&name, &params(), &Patch::Merge(noted)).await;
        gone(noted.map(drop)).map_err(failure("annotate ConfigMap"))?;
        let deleted = api.delete(&name, &DeleteParams::default()).await;
        gone(deleted.map(drop)).map_err(failure("delete ConfigMap"))
    }

    /// Deletes what says in DNS where the apiservers are.
    async fn delete_names(&self, fleet: &Fleet) -> Result<(), Error> {
        let names = dns::act::Actor {
            client: self.client,
            namespace: self.namespace,
        };
        let failure = |attempt, name| {
            move |source| Error {
                attempt,
                name,
                source,
            }
        };
        let of_pool = fleet.pool.clone();
        let left = Box::pin(names.read(Some(&fleet.pool))).await;
        let left = left.map_err(failure("list the names in DNS of pool", of_pool))?;
        for object in left.into_objects() {
            let name = format!("{} {}", object.kind(), object.name());
            let deleted = names.delete(&object).await;
            deleted.map_err(failure("delete", name))?;
        }
        Ok(())
    }

    async fn note(&self, set: &DaemonSet, begun: Option<&Begun>) -> Result<(), Error> {
        let note = begun.and_then(|begun| serde_json::to_string(begun).ok());
        self.annotate(set, &json!({ RETIREMENT: note })).await
    }

    /// Writes annotations, unless somebody has changed the object.
    async fn annotate(&self, set: &DaemonSet, annotations: &Value) -> Result<(), Error> {
        let api: Api<DaemonSet> = Api::namespaced(self.client.clone(), self.namespace);
        let metadata = json!({
            "metadata": { "annotations": annotations, "resourceVersion": set.resource_version() },
        });
        let name = set.name_any();
        let written = api
            .patch_metadata(&name, &params(), &Patch::Merge(metadata))
            .await;
        gone(written.map(drop)).map_err(|source| Error {
            attempt: "annotate DaemonSet",
            name,
            source,
        })
    }

    /// Deletes an object, unless somebody has changed it.
    async fn delete<K>(&self, object: &K, attempt: &'static str) -> Result<(), Error>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
        K: Clone + DeserializeOwned + std::fmt::Debug,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), self.namespace);
        let name = object.name_any();
        let how = DeleteParams {
            preconditions: Some(Preconditions {
                uid: object.uid(),
                resource_version: object.resource_version(),
            }),
            ..DeleteParams::background()
        };
        let deleted = api.delete(&name, &how).await;
        gone(deleted.map(drop)).map_err(|source| Error {
            attempt,
            name,
            source,
        })
    }
}

fn params() -> PatchParams {
    PatchParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PatchParams::default()
    }
}

/// What is not there needs no more.
fn gone(outcome: Result<(), kube::Error>) -> Result<(), kube::Error> {
    match outcome {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        outcome => outcome,
    }
}
