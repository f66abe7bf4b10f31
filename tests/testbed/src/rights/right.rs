//! A right is one verb on one thing, as a rule of a role grants it; a request is what RBAC decides on.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Any value, in a rule.
const ANY: &str = "*";

/// One verb on one thing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Right {
    /// The only namespace in which it holds; everywhere if none.
    pub namespace: Option<String>,
    /// The thing.
    pub on: On,
    /// The verb.
    pub verb: String,
}

/// What a right or a request is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum On {
    /// Objects of a resource.
    #[serde(rename_all = "camelCase")]
    Resource {
        /// The API group; empty for the core group.
        group: String,
        /// The resource, with its subresource as in a rule: `pods/log`.
        resource: String,
        /// The object's name. A right without one is for all; a request without one names none.
        name: Option<String>,
    },
    /// A path that is no resource, such as `/readyz`.
    Path(String),
}

/// What a request asks for, by which RBAC decides.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// Where; none for what is in no namespace, and for lists of all namespaces.
    pub namespace: Option<String>,
    /// The thing.
    pub on: On,
    /// The verb.
    pub verb: String,
}

/// A rule of a role, as its YAML has it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Rule {
    pub(crate) api_groups: Vec<String>,
    pub(crate) resources: Vec<String>,
    pub(crate) resource_names: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    pub(crate) non_resource_urls: Vec<String>,
    pub(crate) verbs: Vec<String>,
}

impl Rule {
    /// The rights that it grants in a namespace, or everywhere.
    pub(crate) fn rights(&self, namespace: Option<&str>) -> Vec<Right> {
        let mut things: Vec<_> = self.non_resource_urls.iter().cloned().map(On::Path).collect();
        let names: Vec<_> = match self.resource_names.as_slice() {
            [] => vec![None],
            names => names.iter().cloned().map(Some).collect(),
        };
        for group in &self.api_groups {
            for resource in &self.resources {
                things.extend(names.iter().map(|name| On::Resource {
                    group: group.clone(),
                    resource: resource.clone(),
                    name: name.clone(),
                }));
            }
        }
        let verbs = |on: &On| {
            let right = |verb: &String| Right {
                namespace: namespace.map(str::to_owned),
                on: on.clone(),
                verb: verb.clone(),
            };
            self.verbs.iter().map(right).collect::<Vec<_>>()
        };
        things.iter().flat_map(verbs).collect()
    }
}

impl Right {
    /// Whether it is enough for a request.
    pub fn covers(&self, request: &Request) -> bool {
        let is_here = self.namespace.is_none() || self.namespace == request.namespace;
        let is_verb = self.verb == ANY || self.verb == request.verb;
        is_here && is_verb && self.on.covers(&request.on, self.namespace.is_none())
    }
}

impl On {
    /// Paths are granted by ClusterRoles that are bound in the whole cluster, and by nothing else.
    fn covers(&self, asked: &Self, everywhere: bool) -> bool {
        match (self, asked) {
            (Self::Path(granted), Self::Path(asked)) => {
                let is_under = |prefix| asked.starts_with(prefix);
                everywhere && (granted == asked || granted.strip_suffix(ANY).is_some_and(is_under))
            }
            (
                Self::Resource {
                    group,
                    resource,
                    name,
                },
                Self::Resource {
                    group: in_group,
                    resource: asked,
                    name: named,
                },
            ) => {
                let has_group = group == ANY || group == in_group;
                // One without a name is for all names, and one with a name not for a request without.
                has_group && is_resource(resource, asked) && (name.is_none() || name == named)
            }
            (Self::Path(_), Self::Resource { .. }) | (Self::Resource { .. }, Self::Path(_)) => false,
        }
    }
}

/// `*` is every resource and subresource, `*/scale` this subresource of every resource; `pods` is without subresources.
fn is_resource(granted: &str, asked: &str) -> bool {
    let subresource = |resource: &str| resource.split_once('/').map(|(_, sub)| sub.to_owned());
    granted == ANY
        || granted == asked
        || granted
            .strip_prefix("*/")
            .is_some_and(|of_all| subresource(asked).as_deref() == Some(of_all))
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.on)?;
        place(self.namespace.as_deref(), f)
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.on)?;
        place(self.namespace.as_deref(), f)
    }
}

fn place(namespace: Option<&str>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match namespace {
        Some(namespace) => write!(f, " in {namespace}"),
        None => Ok(()),
    }
}

/// As kubectl writes it: `daemonsets.apps`, and `leases.coordination.k8s.io trivet-operator`.
impl fmt::Display for On {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => f.write_str(path),
            Self::Resource {
                group,
                resource,
                name,
            } => {
                let (resource, subresource) = match resource.split_once('/') {
                    Some((resource, subresource)) => (resource, format!("/{subresource}")),
                    None => (resource.as_str(), String::new()),
                };
                let dot = if group.is_empty() { "" } else { "." };
                write!(f, "{resource}{dot}{group}{subresource}")?;
                match name {
                    Some(name) => write!(f, " {name}"),
                    None => Ok(()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(
        verb: &str,
        namespace: Option<&str>,
        group: &str,
        resource: &str,
        name: Option<&str>,
    ) -> Request {
        Request {
            namespace: namespace.map(str::to_owned),
            on: On::Resource {
                group: group.to_owned(),
                resource: resource.to_owned(),
                name: name.map(str::to_owned),
            },
            verb: verb.to_owned(),
        }
    }

    fn path(verb: &str, path: &str) -> Request {
        Request {
            namespace: None,
            on: On::Path(path.to_owned()),
            verb: verb.to_owned(),
        }
    }

    /// Whether a rule, given in a namespace or everywhere, is enough.
    fn allows(rule: &str, namespace: Option<&str>, request: &Request) -> bool {
        let rule: Rule = serde_saphyr::from_str(rule).unwrap();
        rule.rights(namespace).iter().any(|right| right.covers(request))
    }

    #[test]
    fn a_rule_is_for_its_verbs_groups_and_resources_alone() {
        let rule = "{apiGroups: [apps, ''], resources: [daemonsets, pods], verbs: [get, list]}";
        for (verb, group, resource, is_allowed) in [
            ("get", "apps", "daemonsets", true),
            ("list", "", "pods", true),
            ("watch", "", "pods", false),
            ("get", "extensions", "daemonsets", false),
            ("get", "", "pods/log", false),
            ("get", "", "podtemplates", false),
        ] {
            let request = request(verb, Some("n"), group, resource, Some("x"));
            assert_eq!(allows(rule, None, &request), is_allowed, "{request}");
        }
    }

    #[test]
    fn a_role_is_for_its_namespace_alone() {
        let rule = "{apiGroups: [''], resources: [pods], verbs: [list]}";
        for (namespace, is_allowed) in [(Some("mine"), true), (Some("other"), false), (None, false)] {
            let request = request("list", namespace, "", "pods", None);
            assert_eq!(allows(rule, Some("mine"), &request), is_allowed, "{request}");
            assert!(allows(rule, None, &request));
        }
    }

    #[test]
    fn a_rule_with_names_is_for_requests_that_name_one_of_them() {
        let rule = "{apiGroups: [''], resources: [configmaps], resourceNames: [a, b], verbs: ['*']}";
        for (verb, name, is_allowed) in [
            ("get", Some("a"), true),
            ("watch", Some("b"), true),
            ("get", Some("c"), false),
            // A list of all, and a creation, whose name is in its body.
            ("list", None, false),
            ("create", None, false),
        ] {
            let request = request(verb, Some("n"), "", "configmaps", name);
            assert_eq!(allows(rule, Some("n"), &request), is_allowed, "{request}");
        }
    }

    #[test]
    fn subresources_are_resources_of_their_own() {
        let status = request(
            "patch",
            None,
            "trivet.dev",
            "apiserverpools/status",
            Some("default"),
        );
        for (resources, is_allowed) in [
            ("apiserverpools", false),
            ("apiserverpools/status", true),
            ("'*/status'", true),
            ("'*/scale'", false),
            ("'*'", true),
        ] {
            let rule = format!("{{apiGroups: ['*'], resources: [{resources}], verbs: [patch]}}");
            assert_eq!(allows(&rule, None, &status), is_allowed, "{resources}");
        }
        let whole = request("patch", None, "trivet.dev", "apiserverpools", Some("default"));
        assert!(!allows(
            "{apiGroups: ['*'], resources: ['*/status'], verbs: [patch]}",
            None,
            &whole
        ));
    }

    #[test]
    fn paths_are_granted_whole_or_by_their_beginning_and_in_no_namespace() {
        let rule = "{nonResourceURLs: [/readyz, '/healthz/*'], verbs: [get]}";
        for (asked, is_allowed) in [
            (path("get", "/readyz"), true),
            (path("get", "/readyz/etcd"), false),
            (path("get", "/healthz/etcd"), true),
            (path("post", "/readyz"), false),
            (request("get", None, "", "readyz", None), false),
        ] {
            assert_eq!(allows(rule, None, &asked), is_allowed, "{asked}");
            assert!(!allows(rule, Some("n"), &asked));
        }
        assert!(allows(
            "{nonResourceURLs: ['*'], verbs: ['*']}",
            None,
            &path("get", "/metrics")
        ));
    }

    #[test]
    fn a_right_is_told_as_kubectl_names_resources() {
        let told = |request: Request| request.to_string();
        assert_eq!(
            told(request(
                "get",
                Some("kube-node-lease"),
                "coordination.k8s.io",
                "leases",
                Some("w1")
            )),
            "get leases.coordination.k8s.io w1 in kube-node-lease"
        );
        assert_eq!(
            told(request("get", Some("n"), "", "pods/log", None)),
            "get pods/log in n"
        );
        assert_eq!(told(path("get", "/version")), "get /version");
    }
}
