//! The roles and bindings of a rendered chart, and who has what by them.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::right::{Right, Rule};
use super::templates;
use crate::cluster::Cluster;
use crate::output;

/// The ServiceAccount that stands in for a user of the plugin.
pub const PLUGIN_USER: &str = "trivet-plugin-user";

/// The namespace of the chart's release, as in the documentation.
pub(crate) const NAMESPACE: &str = "trivet-system";

/// The API group of roles and bindings.
pub(crate) const GROUP: &str = "rbac.authorization.k8s.io";

/// The values that add rights or holders of them.
const ALL_VALUES: [&str; 4] = [
    "--set",
    "monitoring.nodeExposure.enabled=true",
    "--set-json",
    r#"plugin.editors=[{"kind":"ServiceAccount","name":"trivet-plugin-user","namespace":"trivet-system"}]"#,
];

/// A ServiceAccount.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Account {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What a binding gives to an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Who has it.
    pub account: Account,
    pub(crate) binding: Id,
    pub(crate) role: Id,
    /// The rights.
    pub rights: Vec<Right>,
}

/// Which role or binding.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Id {
    pub(crate) kind: Kind,
    /// None for one of the cluster.
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
}

/// The kinds of the API group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(crate) enum Kind {
    Role,
    ClusterRole,
    RoleBinding,
    ClusterRoleBinding,
}

/// Roles and bindings.
#[derive(Debug, Clone, Default)]
pub struct Roles(Vec<Object>);

/// A role or a binding, as its YAML has it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Object {
    kind: Kind,
    metadata: Metadata,
    #[serde(default)]
    rules: Option<Vec<Rule>>,
    role_ref: Option<RoleRef>,
    #[serde(default)]
    subjects: Option<Vec<Subject>>,
}

#[derive(Debug, Clone, Deserialize)]
struct Metadata {
    name: String,
    namespace: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
struct RoleRef {
    kind: Kind,
    name: String,
}

#[derive(Debug, Clone, Deserialize)]
struct Subject {
    kind: String,
    name: String,
    namespace: Option<String>,
}

/// The chart's roles as they are installed usually, and with every value that adds to them.
#[derive(Debug, Clone)]
pub(crate) struct Rendered {
    pub(crate) usual: Roles,
    pub(crate) all: Roles,
}

/// Lets helm render the chart of this tree.
pub(crate) fn render(cluster: &Cluster) -> Result<Rendered> {
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts/trivet");
    let rendered = |values: &[&str]| {
        let mut helm: Command = cluster.helm()?;
        helm.args(["template", "trivet"]).arg(&chart);
        helm.args(["--namespace", NAMESPACE]).args(values);
        Roles::parse(&output::of(&mut helm)?)
    };
    let all = rendered(&ALL_VALUES)?;
    let (with_values, written) = (all.granted(), templates::read()?.granted());
    let missing: Vec<_> = written.difference(&with_values).collect();
    ensure!(
        missing.is_empty(),
        "the values that this turns on leave out {missing:?}: add those on which they depend"
    );
    Ok(Rendered {
        usual: rendered(&[])?,
        all,
    })
}

impl Roles {
    /// The roles and bindings among the objects of a YAML stream.
    pub(crate) fn parse(yaml: &str) -> Result<Self> {
        let documents: Vec<Value> =
            serde_saphyr::from_multiple(yaml).context("failed to read the rendered chart")?;
        let is_of_group = |object: &Value| {
            let version = object.get("apiVersion").and_then(Value::as_str);
            version.is_some_and(|version| version.starts_with(GROUP))
        };
        let objects = documents.into_iter().filter(is_of_group);
        let objects = objects.map(|object| Object::parse(object).context("failed to read a role"));
        Ok(Self(objects.collect::<Result<_>>()?))
    }

    /// Who has what.
    pub fn grants(&self) -> Vec<Grant> {
        let mut grants = Vec::new();
        for binding in &self.0 {
            let Some(role) = binding.role() else {
                continue;
            };
            let namespace = binding.metadata.namespace.as_deref();
            for account in binding.accounts() {
                grants.push(Grant {
                    account,
                    binding: binding.id(),
                    role: role.clone(),
                    rights: self.rights(&role, namespace),
                });
            }
        }
        grants
    }

    /// The rights of a role, where it is bound in this namespace, or everywhere; none if there is no such role.
    pub(crate) fn rights(&self, role: &Id, namespace: Option<&str>) -> Vec<Right> {
        let role = self.find(role);
        role.map(|role| role.rights(namespace)).unwrap_or_default()
    }

    pub(crate) fn find(&self, id: &Id) -> Option<&Object> {
        self.0.iter().find(|object| object.id() == *id)
    }

    /// Every right with the name of its role.
    pub(crate) fn granted(&self) -> BTreeSet<(String, Right)> {
        let of = |role: &Object| {
            let rights = role.rights(role.metadata.namespace.as_deref()).into_iter();
            let name = role.metadata.name.clone();
            rights.map(move |right| (name.clone(), right)).collect::<Vec<_>>()
        };
        self.0.iter().flat_map(of).collect()
    }
}

impl Object {
    pub(crate) fn parse(object: Value) -> serde_json::Result<Self> {
        serde_json::from_value(object)
    }

    pub(crate) fn id(&self) -> Id {
        Id {
            kind: self.kind,
            namespace: self.metadata.namespace.clone(),
            name: self.metadata.name.clone(),
        }
    }

    /// The rights of this role in a namespace, or everywhere.
    pub(crate) fn rights(&self, namespace: Option<&str>) -> Vec<Right> {
        let rules = self.rules.iter().flatten();
        rules.flat_map(|rule| rule.rights(namespace)).collect()
    }

    /// The role that this binding gives.
    pub(crate) fn role(&self) -> Option<Id> {
        let role = self.role_ref.as_ref()?;
        let in_namespace = role.kind == Kind::Role;
        Some(Id {
            kind: role.kind,
            namespace: self.metadata.namespace.clone().filter(|_| in_namespace),
            name: role.name.clone(),
        })
    }

    /// The ServiceAccounts to which this binding gives it.
    pub(crate) fn accounts(&self) -> Vec<Account> {
        let subjects = self.subjects.iter().flatten();
        let accounts = subjects.filter(|subject| subject.kind == "ServiceAccount");
        accounts
            .map(|subject| Account {
                namespace: subject.namespace.clone().unwrap_or_default(),
                name: subject.name.clone(),
            })
            .collect()
    }
}

impl Kind {
    /// The kind of a resource of the group.
    pub(crate) fn of(resource: &str) -> Option<Self> {
        Some(match resource {
            "roles" => Self::Role,
            "clusterroles" => Self::ClusterRole,
            "rolebindings" => Self::RoleBinding,
            "clusterrolebindings" => Self::ClusterRoleBinding,
            _ => return None,
        })
    }
}

impl Account {
    /// Its name as a user.
    pub fn user(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.name)
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHART: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: a, namespace: home}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reader}
rules: [{apiGroups: [''], resources: [pods], verbs: [get, list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: here, namespace: home}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reader}
subjects: [{kind: ServiceAccount, name: a, namespace: home}, {kind: User, name: jane}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: everywhere}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reader}
subjects: [{kind: ServiceAccount, name: b, namespace: home}]
";

    #[test]
    fn a_cluster_role_is_for_the_namespace_of_the_binding_that_gives_it() {
        let grants = Roles::parse(CHART).unwrap().grants();
        let told: Vec<_> = grants
            .iter()
            .map(|grant| {
                (
                    grant.account.user(),
                    grant.rights.iter().map(ToString::to_string).collect(),
                )
            })
            .collect();
        let expected = |account: &str, rights: [&str; 2]| {
            (
                format!("system:serviceaccount:home:{account}"),
                rights.map(str::to_owned).to_vec(),
            )
        };
        assert_eq!(
            told,
            [
                expected("a", ["get pods in home", "list pods in home"]),
                expected("b", ["get pods", "list pods"]),
            ]
        );
    }
}
