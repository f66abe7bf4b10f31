//! A call: who asked for what, and whether authorization let it pass.

use crate::audit::{Event, ObjectRef};
use crate::rights::{On, Request};

/// What authorization says of a request that it refuses.
const REFUSED: &str = "forbid";

/// In the words of a refusal by authorization, and by nothing else: `User "…" cannot create resource "…"`.
const CANNOT: &str = "\" cannot ";

/// The verb that a patch or an update also needs where it makes the object: authorization is asked again, without a note.
const CREATE: &str = "create";

/// Calls that differ only in their time are one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Call {
    /// Whose credentials it had.
    pub(crate) user: String,
    pub(crate) request: Request,
    /// Whether a patch or an update has made the object, for which it needs the right to create it too.
    pub(crate) has_created: bool,
    /// Whether authorization refused it. Admission may refuse what authorization allows.
    pub(crate) is_refused: bool,
    /// The binding by which it was allowed, as the API server names it.
    pub(crate) by: Option<String>,
    /// The program, as it calls itself.
    pub(crate) program: String,
}

impl Call {
    /// The call of an event, if authorization decided on it.
    pub(crate) fn of(event: &Event) -> Option<Self> {
        let note = |key: &str| event.annotations.get(&format!("authorization.k8s.io/{key}"));
        let decision = note("decision")?;
        let (code, message) = match &event.response_status {
            Some(status) => (status.code, status.message.as_str()),
            None => (0, ""),
        };
        Some(Self {
            user: event.user.username.clone(),
            request: request(event),
            has_created: code == 201 && event.verb != CREATE,
            is_refused: decision == REFUSED || (code == 403 && message.contains(CANNOT)),
            by: note("reason").and_then(|reason| binding(reason)),
            program: event.user_agent.split('/').next().unwrap_or_default().to_owned(),
        })
    }
}

impl Request {
    /// The request that authorization is asked about when this one makes the object.
    pub(super) fn creating(&self) -> Self {
        Self {
            verb: CREATE.to_owned(),
            ..self.clone()
        }
    }
}

/// `ClusterRoleBinding system:discovery` of `RBAC: allowed by ClusterRoleBinding "system:discovery" of …`.
fn binding(reason: &str) -> Option<String> {
    let (_, binding) = reason.split_once("allowed by ")?;
    let mut parts = binding.split('"');
    let (kind, name) = (parts.next()?, parts.next()?);
    Some(format!("{kind}{name}"))
}

fn request(event: &Event) -> Request {
    let Some(object) = &event.object_ref else {
        let path = event.request_uri.split('?').next().unwrap_or_default();
        return Request {
            namespace: None,
            on: On::Path(path.to_owned()),
            verb: event.verb.clone(),
        };
    };
    let resource = if object.subresource.is_empty() {
        object.resource.clone()
    } else {
        format!("{}/{}", object.resource, object.subresource)
    };
    Request {
        namespace: some(&object.namespace),
        on: On::Resource {
            group: object.api_group.clone(),
            resource,
            name: name(event, object),
        },
        verb: event.verb.clone(),
    }
}

/// The name that the request itself has, as authorization sees it.
fn name(event: &Event, object: &ObjectRef) -> Option<String> {
    match event.verb.as_str() {
        // The audit log has the name from the body, which authorization does not read.
        CREATE if object.subresource.is_empty() => None,
        "list" | "watch" | "deletecollection" => {
            some(&object.name).or_else(|| selected(&event.request_uri).map(str::to_owned))
        }
        _ => some(&object.name),
    }
}

fn some(word: &str) -> Option<String> {
    (!word.is_empty()).then(|| word.to_owned())
}

/// The one object that the field selector of a request selects by its name.
fn selected(uri: &str) -> Option<&str> {
    let (_, query) = uri.split_once('?')?;
    let selector = query
        .split('&')
        .find_map(|field| field.strip_prefix("fieldSelector="))?;
    let name = selector.split("%2C").find_map(|part| {
        part.strip_prefix("metadata.name%3D")
            .or_else(|| part.strip_prefix("metadata.name="))
    })?;
    // `==` is the same as `=`, and an empty name is none.
    let name = name
        .strip_prefix("%3D")
        .or_else(|| name.strip_prefix('='))
        .unwrap_or(name);
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An event as an apiserver writes it, with these parts.
    pub(in crate::calls) fn event(user: &str, verb: &str, uri: &str, object: &str, second: u8) -> Event {
        let line = format!(
            r#"{{"kind":"Event","auditID":"{second}","stage":"ResponseComplete","requestURI":"{uri}","verb":"{verb}","user":{{"username":"{user}"}},"userAgent":"trivet-proxy/0.1.0","objectRef":{object},"responseStatus":{{"code":200}},"requestReceivedTimestamp":"2026-01-01T00:00:{second:02}.000000Z","stageTimestamp":"2026-01-01T00:00:{second:02}.500000Z","annotations":{{"authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":"RBAC: allowed by RoleBinding \"trivet-proxy/trivet-system\" of Role \"trivet-proxy\" to ServiceAccount"}}}}"#
        );
        Event::of_line(&line).unwrap()
    }

    fn asked(verb: &str, uri: &str, object: &str) -> String {
        Call::of(&event("u", verb, uri, object, 0))
            .unwrap()
            .request
            .to_string()
    }

    #[test]
    fn a_call_is_what_authorization_decided_on() {
        let object = r#"{"resource":"configmaps","namespace":"n","name":"c","apiVersion":"v1"}"#;
        let mut event = event("u", "get", "/api/v1/namespaces/n/configmaps/c", object, 0);
        let call = Call::of(&event).unwrap();
        assert_eq!(call.request.to_string(), "get configmaps c in n");
        assert_eq!(call.by.as_deref(), Some("RoleBinding trivet-proxy/trivet-system"));
        assert_eq!(call.program, "trivet-proxy");
        assert!(!call.is_refused);
        event
            .annotations
            .insert("authorization.k8s.io/decision".to_owned(), "forbid".to_owned());
        assert!(Call::of(&event).unwrap().is_refused);
        // As of a request whose user is unknown.
        event.annotations.clear();
        assert!(Call::of(&event).is_none());
    }

    #[test]
    fn a_patch_that_makes_its_object_is_a_creation_too() {
        let object = r#"{"resource":"configmaps","namespace":"n","name":"c"}"#;
        let mut event = event("u", "patch", "/api/v1/namespaces/n/configmaps/c", object, 0);
        assert!(!Call::of(&event).unwrap().has_created);
        event.response_status.as_mut().unwrap().code = 201;
        let call = Call::of(&event).unwrap();
        assert!(call.has_created);
        assert_eq!(call.request.creating().to_string(), "create configmaps c in n");
        // The second question is answered no, which only the message tells. Admission's refusals are others.
        for (message, is_refused) in [
            (
                r#"configmaps \"c\" is forbidden: User "u" cannot create resource "configmaps""#,
                true,
            ),
            (
                "configmaps \"c\" is forbidden: the namespace is being terminated",
                false,
            ),
        ] {
            let status = event.response_status.as_mut().unwrap();
            (status.code, status.message) = (403, message.to_owned());
            assert_eq!(Call::of(&event).unwrap().is_refused, is_refused, "{message}");
        }
    }

    #[test]
    fn a_creation_names_nothing_but_one_of_a_subresource_does() {
        let object = r#"{"resource":"leases","namespace":"n","name":"l","apiGroup":"coordination.k8s.io"}"#;
        assert_eq!(
            asked(
                "create",
                "/apis/coordination.k8s.io/v1/namespaces/n/leases",
                object
            ),
            "create leases.coordination.k8s.io in n"
        );
        let object = r#"{"resource":"pods","namespace":"n","name":"p","subresource":"eviction"}"#;
        assert_eq!(
            asked("create", "/api/v1/namespaces/n/pods/p/eviction", object),
            "create pods/eviction p in n"
        );
    }

    #[test]
    fn a_list_that_selects_one_name_names_it() {
        let object = r#"{"resource":"pods","namespace":"n","apiVersion":"v1"}"#;
        for (query, told) in [
            ("", "list pods in n"),
            ("?limit=500", "list pods in n"),
            ("?fieldSelector=metadata.name%3Dp&limit=500", "list pods p in n"),
            ("?fieldSelector=metadata.name=p", "list pods p in n"),
            (
                "?fieldSelector=spec.nodeName%3Dw1%2Cmetadata.name%3D%3Dp",
                "list pods p in n",
            ),
            ("?fieldSelector=spec.nodeName%3Dw1", "list pods in n"),
            ("?fieldSelector=metadata.name%3D", "list pods in n"),
        ] {
            assert_eq!(
                asked("list", &format!("/api/v1/namespaces/n/pods{query}"), object),
                told,
                "{query}"
            );
        }
        let named = r#"{"resource":"pods","namespace":"n","name":"p","apiVersion":"v1"}"#;
        assert_eq!(
            asked("watch", "/api/v1/namespaces/n/pods", named),
            "watch pods p in n"
        );
    }

    #[test]
    fn what_is_no_resource_is_a_path() {
        assert_eq!(asked("get", "/readyz?verbose", "null"), "get /readyz");
    }
}
