//! The CRD as it is committed and installed: what the derive makes, brought to Kubernetes API conventions.
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use crate::pool::ApiserverPool;

/// raw
pub fn raw() -> CustomResourceDefinition {
    ApiserverPool::crd()
}

#[cfg(test)]
mod tests {
    #[test]
    fn dump() {
        std::fs::write("/tmp/crd.json", serde_json::to_string_pretty(&super::raw()).unwrap()).unwrap();
    }
}
