//! Reads and writes the objects behind the names of pools.
//!
//! Each write is a server-side apply over the version that was read, as all writes of the operator: one of an earlier leader, or
//! over an object that somebody else has made, fails (409).

use std::fmt::Debug;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use trivet_crds::POOL_LABEL;

use super::decision::{Live, Object};
use super::render::dns_endpoint;
use crate::MANAGER;
use crate::apply::ABSENT;

/// The label that all objects have which the operator writes.
const WRITTEN_BY: &str = "app.kubernetes.io/managed-by";

/// Reads and writes in one namespace.
#[derive(Clone, Copy)]
pub struct Actor<'a> {
    /// The client.
    pub client: &'a Client,
    /// The namespace.
    pub namespace: &'a str,
}

impl Actor<'_> {
    /// The objects of this pool, or of all, and no others. An API server without the CRD of external-dns has no DNSEndpoints.
    pub async fn read(&self, pool: Option<&str>) -> Result<Live, kube::Error> {
        let of_pool = pool.map_or_else(|| POOL_LABEL.to_owned(), |pool| format!("{POOL_LABEL}={pool}"));
        let ours = ListParams::default().labels(&format!("{of_pool},{WRITTEN_BY}={MANAGER}"));
        let (services, slices, all) = (self.services(), self.slices(), self.records());
        let (services, slices, records) =
            tokio::join!(services.list(&ours), slices.list(&ours), all.list(&ours));
        let (records, refused) = match records {
            Ok(records) => (Some(records.items), None),
            Err(kube::Error::Api(status)) if status.code == 404 => (None, None),
            // The name within the cluster does not depend on it.
            Err(kube::Error::Api(status)) if status.code == 403 => (None, Some(status.message.clone())),
            Err(error) => return Err(error),
        };
        Ok(Live {
            services: services?.items,
            slices: slices?.items,
            records,
            refused,
        })
    }

    /// Writes an object over this version of it; `None`: there is none.
    pub async fn apply(&self, object: &Object, version: Option<String>) -> Result<Object, kube::Error> {
        Ok(match object {
            Object::Service(object) => Object::from(put(&self.services(), object.as_ref(), version).await?),
            Object::Slice(object) => Object::from(put(&self.slices(), object.as_ref(), version).await?),
            Object::Records(object) => Object::from(put(&self.records(), object.as_ref(), version).await?),
        })
    }

    /// Deletes an object, unless somebody has changed it. One that is gone needs no more.
    pub async fn delete(&self, object: &Object) -> Result<(), kube::Error> {
        match object {
            Object::Service(object) => delete(&self.services(), object.as_ref()).await,
            Object::Slice(object) => delete(&self.slices(), object.as_ref()).await,
            Object::Records(object) => delete(&self.records(), object.as_ref()).await,
        }
    }

    fn services(&self) -> Api<Service> {
        Api::namespaced(self.client.clone(), self.namespace)
    }

    fn slices(&self) -> Api<EndpointSlice> {
        Api::namespaced(self.client.clone(), self.namespace)
    }

    fn records(&self) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), self.namespace, &dns_endpoint())
    }
}

async fn put<K>(api: &Api<K>, object: &K, version: Option<String>) -> Result<K, kube::Error>
where
    K: Resource + Clone + Debug + DeserializeOwned + Serialize,
{
    let mut object = object.clone();
    object.meta_mut().resource_version = Some(version.unwrap_or_else(|| ABSENT.to_owned()));
    let params = PatchParams::apply(MANAGER).force();
    api.patch(&object.name_any(), &params, &Patch::Apply(&object))
        .await
}

async fn delete<K>(api: &Api<K>, object: &K) -> Result<(), kube::Error>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let how = DeleteParams {
        preconditions: Some(Preconditions {
            uid: object.uid(),
            resource_version: object.resource_version(),
        }),
        ..DeleteParams::background()
    };
    match api.delete(&object.name_any(), &how).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        outcome => outcome.map(drop),
    }
}
