//! Rights of the operator that a scenario takes away for a while.

use anyhow::Result;
use serde_json::json;

use crate::installation::{Installation, NAMESPACE};

/// The rights of an account, as the chart binds them.
#[derive(Clone, Copy, Debug)]
pub struct Rights {
    /// The ServiceAccount in Trivet's namespace.
    account: &'static str,
    /// Its bindings, as kubectl takes them.
    bindings: &'static [&'static str],
}

/// What the operator may do in the whole cluster, and in its namespace.
pub const OF_OPERATOR: Rights = Rights {
    account: "trivet-operator",
    bindings: &[
        "clusterrolebinding trivet-operator",
        "rolebinding trivet-operator",
    ],
};

/// What the operator may do in the whole cluster.
pub const OF_OPERATOR_IN_CLUSTER: Rights = Rights {
    account: "trivet-operator",
    bindings: &["clusterrolebinding trivet-operator"],
};

impl Rights {
    /// Takes them away: the bindings stay, and bind nobody.
    pub async fn revoke(&self, installation: &Installation) -> Result<()> {
        // An `add` replaces what is there, so that it does not matter whether some are gone already.
        self.patch(installation, r#"[{"op":"add","path":"/subjects","value":[]}]"#)
            .await
    }

    /// Gives them back, whether or not they were taken away.
    pub async fn give_back(&self, installation: &Installation) -> Result<()> {
        let subject = json!({ "kind": "ServiceAccount", "name": self.account, "namespace": NAMESPACE });
        let patch = json!([{ "op": "add", "path": "/subjects", "value": [subject] }]);
        self.patch(installation, &patch.to_string()).await
    }

    async fn patch(&self, installation: &Installation, patch: &str) -> Result<()> {
        for binding in self.bindings {
            let command = format!("patch {binding} --namespace {NAMESPACE} --type=json --patch={patch}");
            installation.tools().kubectl(&command).await?;
        }
        Ok(())
    }
}
