//! Changes of roles and bindings: what an account may do changes when a chart is installed, upgraded or removed.

use jiff::Timestamp;

use crate::audit::Event;
use crate::rights::{GROUP, Id, Kind, Object};

/// The write of a role or a binding.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    /// When it was asked for: from then on it may be in force.
    pub(crate) from: Timestamp,
    /// When it was answered.
    pub(crate) to: Timestamp,
    pub(crate) of: Changed,
    /// The object as it is then.
    pub(crate) now: Now,
}

/// What is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Changed {
    One(Id),
    /// All of a kind, in a namespace or everywhere.
    All(Kind, Option<String>),
}

#[derive(Debug, Clone)]
pub(crate) enum Now {
    Gone,
    /// None where the log does not have it.
    There(Option<Object>),
}

impl Change {
    /// The change of an event, if it has made one.
    pub(crate) fn of(event: &Event) -> Option<Self> {
        let object = event.object_ref.as_ref()?;
        let is_done = event.stage == "ResponseComplete"
            && (200..300).contains(&event.response_status.as_ref()?.code)
            && !event.request_uri.contains("dryRun=");
        if object.api_group != GROUP || !is_done {
            return None;
        }
        let written = event
            .response_object
            .clone()
            .and_then(|object| Object::parse(object).ok());
        let kind = Kind::of(&object.resource)?;
        let namespace = (!object.namespace.is_empty()).then(|| object.namespace.clone());
        let now = match event.verb.as_str() {
            "create" | "update" | "patch" => Now::There(written),
            "delete" | "deletecollection" => Now::Gone,
            _ => return None,
        };
        let of = match (&now, object.name.as_str()) {
            (Now::There(Some(written)), _) => Changed::One(written.id()),
            (Now::Gone, "") => Changed::All(kind, namespace),
            (_, name) => Changed::One(Id {
                kind,
                namespace,
                name: name.to_owned(),
            }),
        };
        Some(Self {
            from: event.request_received_timestamp,
            to: event.stage_timestamp.unwrap_or(event.request_received_timestamp),
            of,
            now,
        })
    }
}

impl Changed {
    /// Whether this role or binding is among what is written.
    pub(crate) fn concerns(&self, id: &Id) -> bool {
        match self {
            Self::One(one) => one == id,
            Self::All(kind, namespace) => {
                *kind == id.kind && (namespace.is_none() || *namespace == id.namespace)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::call::tests::event;

    fn change(verb: &str, uri: &str, name: &str) -> Option<Change> {
        let object = format!(
            r#"{{"resource":"rolebindings","namespace":"n","name":"{name}","apiGroup":"rbac.authorization.k8s.io"}}"#
        );
        Change::of(&event("admin", verb, uri, &object, 1))
    }

    fn binding(name: &str) -> Id {
        Id {
            kind: Kind::RoleBinding,
            namespace: Some("n".to_owned()),
            name: name.to_owned(),
        }
    }

    #[test]
    fn a_deletion_of_all_concerns_those_of_its_namespace() {
        let change = change("deletecollection", "/rolebindings", "").unwrap();
        assert!(matches!(change.now, Now::Gone));
        assert!(change.of.concerns(&binding("a")));
        let elsewhere = Id {
            namespace: Some("m".to_owned()),
            ..binding("a")
        };
        assert!(!change.of.concerns(&elsewhere));
        let role = Id {
            kind: Kind::Role,
            ..binding("a")
        };
        assert!(!change.of.concerns(&role));
    }

    #[test]
    fn what_reads_or_would_write_is_no_change() {
        assert!(change("patch", "/rolebindings/a?fieldManager=helm", "a").is_some());
        for (verb, uri) in [
            ("get", "/rolebindings/a"),
            ("patch", "/rolebindings/a?dryRun=All"),
        ] {
            assert!(change(verb, uri, "a").is_none(), "{verb} {uri}");
        }
        let object = r#"{"resource":"pods","namespace":"n","name":"a"}"#;
        assert!(Change::of(&event("admin", "delete", "/pods/a", object, 1)).is_none());
    }

    #[test]
    fn an_object_that_is_created_has_the_name_of_the_answer() {
        let object = r#"{"resource":"rolebindings","namespace":"n","apiGroup":"rbac.authorization.k8s.io"}"#;
        let mut event = event("admin", "create", "/rolebindings", object, 1);
        event.response_object = Some(serde_json::json!({
            "kind": "RoleBinding", "metadata": { "name": "a", "namespace": "n" },
            "roleRef": { "kind": "Role", "name": "r" },
        }));
        let change = Change::of(&event).unwrap();
        assert_eq!(change.of, Changed::One(binding("a")));
        assert!(change.to > change.from);
    }
}
