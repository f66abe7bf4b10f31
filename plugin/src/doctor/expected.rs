//! What the chart of this release installs: the names that doctor looks for. A test compares them with the chart.

/// The CustomResourceDefinitions.
pub const CRDS: [&str; 2] = ["apiserverpools.trivet.dev", "proxyreports.trivet.dev"];

/// The ValidatingAdmissionPolicies; their bindings have the same names.
pub const POLICIES: [&str; 9] = [
    "trivet-namespace",
    "trivet-daemonset-deletion",
    "trivet-daemonset-writes",
    "trivet-proxy-reports",
    "trivet-configmap-deletion",
    "trivet-pod-deletion",
    "trivet-pod-eviction",
    "trivet-pod-writes",
    "trivet-dns-writes",
];

/// A role of the chart and what its holder cannot do without.
#[derive(Clone, Copy, Debug)]
pub struct Right {
    /// Whose it is: operator or proxies.
    pub holder: Holder,
    /// The name of role and binding.
    pub role: &'static str,
    /// Where the role is.
    pub place: Place,
    /// What it must allow: API group, resource, verb.
    pub needs: &'static [(&'static str, &'static str, &'static str)],
}

/// Whose right it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the words say it")]
pub enum Holder {
    Operator,
    Proxy,
}

/// Where a role is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A ClusterRole.
    Cluster,
    /// A Role in Trivet's namespace.
    Home,
    /// A Role in this namespace.
    In(&'static str),
}

impl Holder {
    /// The name of its ServiceAccount.
    pub fn account(self) -> &'static str {
        match self {
            Self::Operator => "trivet-operator",
            Self::Proxy => "trivet-proxy",
        }
    }
}

impl Right {
    /// The namespace of the role; `None` for a ClusterRole.
    pub fn namespace<'a>(&self, home: &'a str) -> Option<&'a str> {
        match self.place {
            Place::Cluster => None,
            Place::Home => Some(home),
            Place::In(namespace) => Some(namespace),
        }
    }
}

/// The rights of operator and proxies.
pub const RIGHTS: [Right; 6] = [
    Right {
        holder: Holder::Operator,
        role: "trivet-operator",
        place: Place::Cluster,
        needs: &[
            ("trivet.dev", "apiserverpools", "watch"),
            ("trivet.dev", "apiserverpools/status", "patch"),
            ("trivet.dev", "proxyreports", "watch"),
            ("", "nodes", "watch"),
        ],
    },
    Right {
        holder: Holder::Operator,
        role: "trivet-operator",
        place: Place::Home,
        needs: &[
            ("", "configmaps", "patch"),
            ("apps", "daemonsets", "patch"),
            ("", "pods", "watch"),
        ],
    },
    Right {
        holder: Holder::Operator,
        role: "trivet-operator-endpoints",
        place: Place::In("default"),
        needs: &[("discovery.k8s.io", "endpointslices", "list")],
    },
    Right {
        holder: Holder::Operator,
        role: "trivet-operator-leases",
        place: Place::In("kube-node-lease"),
        needs: &[("coordination.k8s.io", "leases", "get")],
    },
    Right {
        holder: Holder::Proxy,
        role: "trivet-proxy",
        place: Place::Cluster,
        needs: &[
            ("trivet.dev", "proxyreports", "create"),
            ("trivet.dev", "proxyreports", "patch"),
        ],
    },
    Right {
        holder: Holder::Proxy,
        role: "trivet-proxy",
        place: Place::Home,
        needs: &[("", "configmaps", "watch")],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    fn template(name: &str) -> String {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/trivet/templates/");
        std::fs::read_to_string(format!("{folder}{name}")).unwrap()
    }

    /// The rules of a role of the chart, by its kind and name and, of several, its namespace.
    fn rules(right: &Right) -> String {
        let text = template(match right.holder {
            Holder::Operator => "operator-rbac.yaml",
            Holder::Proxy => "proxy-rbac.yaml",
        });
        let (kind, namespace) = match right.place {
            Place::Cluster => ("kind: ClusterRole\n", String::new()),
            Place::Home => ("kind: Role\n", "namespace: {{ .Release.Namespace }}\n".to_owned()),
            Place::In(namespace) => ("kind: Role\n", format!("namespace: {namespace}\n")),
        };
        let name = format!("name: {}\n", right.role);
        let mut documents = text.split("\n---\n");
        let found = documents
            .find(|document| {
                [kind, &name, &namespace]
                    .iter()
                    .all(|part| document.contains(*part))
            })
            .unwrap_or_else(|| panic!("the chart has no {right:?}"));
        found.to_owned()
    }

    #[test]
    fn the_chart_gives_every_right_that_is_looked_for() {
        for right in &RIGHTS {
            let rules = rules(right);
            for (group, resource, verb) in right.needs {
                let is_given = rules.split("- apiGroups: ").skip(1).any(|rule| {
                    let group = if group.is_empty() { "[\"\"]" } else { group };
                    let lines: Vec<_> = rule.lines().collect();
                    let list = |key: &str| {
                        let line = lines.iter().find(|line| line.trim_start().starts_with(key));
                        line.map(|line| line.trim_start().trim_start_matches(key).to_owned())
                            .unwrap_or_default()
                    };
                    let has = |list: &str, word: &str| {
                        list.trim_matches(|c| " []".contains(c))
                            .split(", ")
                            .any(|item| item == word)
                    };
                    lines[0].contains(group)
                        && has(&list("resources:"), resource)
                        && has(&list("verbs:"), verb)
                });
                assert!(is_given, "{right:?} lacks {verb} {resource}: {rules}");
            }
        }
    }

    #[test]
    fn the_chart_has_every_policy_and_every_crd() {
        let policies = template("admission-policies.yaml");
        for name in POLICIES {
            assert!(policies.contains(&format!("\n  name: {name}\n")), "{name}");
        }
        let installed = policies.matches("kind: ValidatingAdmissionPolicy\n").count();
        assert_eq!(installed, POLICIES.len(), "the chart has other policies");
        let crds = concat!(env!("CARGO_MANIFEST_DIR"), "/../crds");
        let files = std::fs::read_dir(crds)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut installed: Vec<_> = files
            .filter_map(|file| Some(file.strip_suffix(".yaml")?.to_owned()))
            .collect();
        installed.sort();
        let expected = CRDS.map(|name| {
            let (plural, group) = name.split_once('.').unwrap();
            format!("{group}_{plural}")
        });
        assert_eq!(installed, expected);
    }
}
