//! The two questions to the API about a caller, and how its answers read. Pure.

use serde_json::{Value, json};

/// Where a TokenReview is created.
pub(super) const TOKENS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

/// Where a SubjectAccessReview is created.
pub(super) const ACCESSES: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";

/// Whose token this is.
pub(super) fn of_token(token: &str) -> Value {
    json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": { "token": token },
    })
}

/// The user of a token; none if the API server does not know the token.
pub(super) fn user(review: &Value) -> Option<&Value> {
    let status = review.get("status")?;
    let is_known = status.get("authenticated").and_then(Value::as_bool) == Some(true);
    status.get("user").filter(|_| is_known)
}

/// Whether this user may read metrics.
pub(super) fn of_access(user: &Value) -> Value {
    let part = |name| user.get(name).cloned().unwrap_or_default();
    json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": part("username"),
            "uid": part("uid"),
            "groups": part("groups"),
            "extra": part("extra"),
            "nonResourceAttributes": { "path": "/metrics", "verb": "get" },
        },
    })
}

/// Whether it may.
pub(super) fn is_allowed(review: &Value) -> bool {
    let says = |what: &str| review.pointer(what).and_then(Value::as_bool) == Some(true);
    says("/status/allowed") && !says("/status/denied")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_authenticated_token_has_a_user() {
        let user_of = |status: Value| user(&json!({ "status": status })).cloned();
        let named = json!({ "username": "prometheus" });
        assert_eq!(
            user_of(json!({ "authenticated": true, "user": named })),
            Some(named.clone())
        );
        assert_eq!(user_of(json!({ "authenticated": false, "user": named })), None);
        assert_eq!(user_of(json!({ "user": named })), None);
        assert_eq!(user_of(json!({ "authenticated": true })), None);
        assert_eq!(user(&json!({})), None);
    }

    #[test]
    fn the_second_question_has_all_that_the_first_answer_says_of_the_user() {
        let user = json!({ "username": "u", "uid": "1", "groups": ["g"], "extra": { "k": ["v"] } });
        let spec = of_access(&user)["spec"].clone();
        assert_eq!(spec["user"], "u");
        assert_eq!(spec["uid"], "1");
        assert_eq!(spec["groups"], json!(["g"]));
        assert_eq!(spec["extra"], json!({ "k": ["v"] }));
        assert_eq!(
            spec["nonResourceAttributes"],
            json!({ "path": "/metrics", "verb": "get" })
        );
    }

    #[test]
    fn no_answer_but_a_clear_yes_allows() {
        assert!(is_allowed(&json!({ "status": { "allowed": true } })));
        for no in [
            json!({ "status": { "allowed": false } }),
            json!({ "status": { "allowed": true, "denied": true } }),
            json!({ "status": { "allowed": "true" } }),
            json!({ "status": {} }),
            json!({}),
        ] {
            assert!(!is_allowed(&no), "{no}");
        }
    }
}
