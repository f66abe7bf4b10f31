//! Writes the rendered objects by server-side apply, and only those that differ from what is in place.

use std::fmt::{self, Debug};

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::MANAGER;
use crate::render::Desired;

/// The kinds that are applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The wire document.
    ConfigMap,
    /// The proxies.
    DaemonSet,
    /// What writes the manifests of the standbys.
    Writer,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ConfigMap => "ConfigMap",
            Self::DaemonSet | Self::Writer => "DaemonSet",
        })
    }
}

/// The reason where manifests are wanted that the installation of the operator does not allow.
pub const BOOTSTRAP_FORBIDDEN: &str = "BootstrapForbidden";

/// The chart's admission policy that limits what the operator writes. The API server names it in its refusals.
const WRITES_POLICY: &str = "trivet-daemonset-writes";

/// The resourceVersion of a write of an object that does not exist, so that it creates the object and never replaces one that
/// another leader has created since: the API server compares it with that of an object that is there, and none has the first
/// revision of etcd.
pub(crate) const ABSENT: &str = "1";

/// Why an object is not as rendered.
#[derive(Debug, thiserror::Error)]
#[error("failed to apply {kind} {name}")]
pub struct Error {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Why.
    pub source: kube::Error,
}

impl Error {
    /// One fixed word for conditions, events and metrics.
    pub fn reason(&self) -> &'static str {
        match (self.kind, &self.source) {
            (Kind::Writer, kube::Error::Api(status)) if status.message.contains(WRITES_POLICY) => {
                BOOTSTRAP_FORBIDDEN
            }
            (Kind::ConfigMap | Kind::DaemonSet | Kind::Writer, _) => "ApplyFailed",
        }
    }

    /// The API server's error, if it refused the object itself. None if the API server is absent or overloaded, or if the
    /// resourceVersion was old: that says nothing about the object.
    pub fn refusal(&self) -> Option<String> {
        match &self.source {
            kube::Error::Api(status) if !matches!(status.code, 404 | 409 | 429 | 502..=504) => Some(format!(
                "the API server refuses {} {}: {}",
                self.kind, self.name, status.message
            )),
            _ => None,
        }
    }
}

/// The result of an apply.
#[derive(Debug, Default)]
pub struct Applied {
    /// The proxies as they are now.
    pub proxies: Live,
    /// The writer of the standbys' manifests as it is now.
    pub writer: Live,
    /// Why something is not as rendered.
    pub failure: Option<Error>,
}

/// A DaemonSet in place.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// The object, if there is one.
    pub object: Option<DaemonSet>,
    /// The last write of it that succeeded, which the next apply compares with.
    pub last: Option<LastApply>,
}

impl Live {
    /// Writes `rendered` unless it is in place.
    async fn put(&mut self, client: &Client, kind: Kind, rendered: Option<DaemonSet>) -> Result<(), Error> {
        let Self { object, last } = &*self;
        let to_write = rendered.filter(|rendered| !is_in_place(rendered, object.as_ref(), last.as_ref()));
        let Some(rendered) = to_write else {
            return Ok(());
        };
        let version = object.as_ref().and_then(ResourceExt::resource_version);
        let written = put(client, kind, &rendered, version).await?;
        self.last = Some(LastApply::new(rendered, &written));
        self.object = Some(written);
        Ok(())
    }
}

impl Applied {
    /// Whether the document of the plan is in force.
    pub fn has_document(&self) -> bool {
        self.failure
            .as_ref()
            .is_none_or(|failure| failure.kind != Kind::ConfigMap)
    }
}

/// The last write of a DaemonSet, and the object that resulted.
///
/// The API server fills in defaults, so the rendered object never equals the one in place. But as long as the object has the
/// generation and the managed fields of the operator's last write, its content is what the operator wrote. The operator
/// keeps this in memory, so it writes each DaemonSet once after a start.
#[derive(Clone, Debug, PartialEq)]
pub struct LastApply {
    rendered: DaemonSet,
    uid: Option<String>,
    generation: Option<i64>,
    owned: Option<FieldsV1>,
}

impl LastApply {
    fn new(rendered: DaemonSet, answer: &DaemonSet) -> Self {
        Self {
            rendered,
            uid: answer.metadata.uid.clone(),
            generation: answer.metadata.generation,
            owned: owned(answer),
        }
    }
}

/// Applies every object of a pool that differs from what is in place, the document first. `proxies` and `writer` are the
/// DaemonSets in place.
pub async fn apply(client: &Client, desired: Desired, proxies: Live, writer: Live) -> Applied {
    let mut applied = Applied {
        proxies,
        writer,
        failure: None,
    };
    applied.failure = Box::pin(put_all(client, desired, &mut applied)).await.err();
    applied
}

async fn put_all(client: &Client, desired: Desired, applied: &mut Applied) -> Result<(), Error> {
    let Desired {
        config_map,
        daemon_set,
        writer,
    } = desired;
    if let Some(config_map) = &config_map {
        // The one that the plan was made for.
        let version = config_map.resource_version();
        put(client, Kind::ConfigMap, config_map, version).await?;
    }
    let proxies = &mut applied.proxies;
    proxies.put(client, Kind::DaemonSet, daemon_set).await?;
    // Last: nothing else may depend on whether the cluster allows it.
    applied.writer.put(client, Kind::Writer, writer).await
}

/// Whether `live` is unchanged since the last write, and that wrote the same `rendered`.
fn is_in_place(rendered: &DaemonSet, live: Option<&DaemonSet>, last: Option<&LastApply>) -> bool {
    match (live, last) {
        (Some(live), Some(last)) => *last == LastApply::new(rendered.clone(), live),
        (None, _) | (_, None) => false,
    }
}

/// The fields that the last writes of this operator own.
fn owned(object: &DaemonSet) -> Option<FieldsV1> {
    let is_ours = |entry: &&ManagedFieldsEntry| {
        entry.manager.as_deref() == Some(MANAGER)
            && entry.operation.as_deref() == Some("Apply")
            && entry.subresource.is_none()
    };
    let entries = object.metadata.managed_fields.as_ref()?;
    entries.iter().find(is_ours)?.fields_v1.clone()
}

/// Writes `object` over this version of it; `None`: there is none.
async fn put<K>(client: &Client, kind: Kind, object: &K, version: Option<String>) -> Result<K, Error>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    K: Clone + Debug + DeserializeOwned + Serialize,
{
    let name = object.name_any();
    let api: Api<K> = Api::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    let mut object = object.clone();
    object.meta_mut().resource_version = Some(version.unwrap_or_else(|| ABSENT.to_owned()));
    // With force, so that this also repairs an object that was edited by hand or is left from an earlier installation.
    let params = PatchParams::apply(MANAGER).force();
    let applied = api.patch(&name, &params, &Patch::Apply(&object)).await;
    applied.map_err(|source| Error { kind, name, source })
}

#[cfg(test)]
mod tests {
    use kube::core::Status;
    use serde_json::json;

    use super::*;

    /// A DaemonSet whose image was written by us.
    fn live(generation: i64, owned: &serde_json::Value) -> DaemonSet {
        serde_json::from_value(json!({ "metadata": {
            "uid": "1", "generation": generation, "resourceVersion": generation.to_string(),
            "managedFields": [
                { "manager": "kube-controller-manager", "operation": "Update", "subresource": "status" },
                { "manager": MANAGER, "operation": "Apply", "fieldsV1": owned },
            ],
        } }))
        .unwrap()
    }

    fn rendered(name: &str) -> DaemonSet {
        serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap()
    }

    #[test]
    fn only_a_difference_that_matters_is_written() {
        let fields = json!({ "f:spec": { "f:minReadySeconds": {} } });
        let last = LastApply::new(rendered("a"), &live(3, &fields));
        let in_place =
            |desired: &str, live: Option<&DaemonSet>| is_in_place(&rendered(desired), live, Some(&last));

        let mut status_changed = live(3, &fields);
        status_changed.metadata.resource_version = Some("9".to_owned());
        assert!(in_place("a", Some(&status_changed)), "a change of the status");

        assert!(!in_place("b", Some(&live(3, &fields))), "another desired object");
        assert!(!in_place("a", Some(&live(4, &fields))), "an edit of the spec");
        assert!(!in_place("a", Some(&live(3, &json!({})))), "a label taken over");
        let mut recreated = live(3, &fields);
        recreated.metadata.uid = Some("2".to_owned());
        assert!(!in_place("a", Some(&recreated)), "a recreated object");
        assert!(!in_place("a", None), "a deleted object");
        assert!(
            !is_in_place(&rendered("a"), Some(&live(3, &fields)), None),
            "the first pass after a start"
        );
    }

    #[test]
    fn a_refusal_carries_the_words_of_the_api_server() {
        let error = |code| Error {
            kind: Kind::DaemonSet,
            name: "trivet-default".to_owned(),
            source: kube::Error::Api(
                Status::failure("exceeded quota: pods", "Forbidden")
                    .with_code(code)
                    .boxed(),
            ),
        };
        assert_eq!(
            error(403).refusal().as_deref(),
            Some("the API server refuses DaemonSet trivet-default: exceeded quota: pods")
        );
        assert!(error(409).refusal().is_none(), "a conflict is retried");
        assert!(error(503).refusal().is_none(), "an overload is no refusal");
    }

    #[test]
    fn what_the_chart_forbids_has_a_reason_of_its_own() {
        let reason = |kind, message: &str| {
            let source = kube::Error::Api(Status::failure(message, "Forbidden").with_code(403).boxed());
            let name = "trivet-default-bootstrap".to_owned();
            Error { kind, name, source }.reason()
        };
        let by_policy = "ValidatingAdmissionPolicy 'trivet-daemonset-writes' with binding \
                         'trivet-daemonset-writes' denied request: the chart value nodeBootstrap.enabled";
        assert_eq!(reason(Kind::Writer, by_policy), "BootstrapForbidden");
        assert_eq!(reason(Kind::DaemonSet, by_policy), "ApplyFailed");
        assert_eq!(reason(Kind::Writer, "exceeded quota: pods"), "ApplyFailed");
    }
}
