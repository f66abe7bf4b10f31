//! The object that carries a report. It has no spec and no status: an apply to a status cannot create an object, and who
//! may write it is decided by what it says when it is created.

use std::borrow::Cow;

use k8s_openapi::ClusterResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::{Deserialize, Serialize};

use super::{KIND, PLURAL, ReportContent, VERSION};
use crate::GROUP;

/// A report as the API server has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProxyReport {
    /// Its name and so on.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What the proxy says.
    #[serde(flatten)]
    pub content: ReportContent,
}

impl Resource for ProxyReport {
    type DynamicType = ();
    type Scope = ClusterResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        KIND.into()
    }

    fn group((): &()) -> Cow<'_, str> {
        GROUP.into()
    }

    fn version((): &()) -> Cow<'_, str> {
        VERSION.into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        PLURAL.into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
