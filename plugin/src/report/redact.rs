//! What leaves an object or a log before it goes into an archive. Pure.

use serde_json::Value;

/// What stands in place of a value.
pub(super) const REDACTED: &str = "REDACTED";

/// Annotations that hold a whole object as somebody applied it.
const APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The longest part of a line of a log that may be a token.
const TOKEN_LENGTH: usize = 40;

/// The object without the values of environment variables, without whole objects in annotations, and without what only makes it
/// longer.
pub(super) fn object(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove("managedFields");
            fields.remove(APPLIED);
            for (name, field) in fields.iter_mut() {
                if name == "env" {
                    environment(field);
                } else {
                    object(field);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(object),
        Value::String(text) => *text = self::text(text),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The names of variables stay: they tell what a container was given.
fn environment(variables: &mut Value) {
    for variable in variables.as_array_mut().into_iter().flatten() {
        if let Some(value) = variable.get_mut("value") {
            *value = REDACTED.into();
        }
    }
}

/// A text without what looks like a token or a private key.
pub(super) fn text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut is_in_key = false;
    for line in text.split_inclusive('\n') {
        if line.contains("-----BEGIN") && line.contains("PRIVATE KEY") {
            is_in_key = true;
            out.push_str(REDACTED);
            out.push('\n');
        }
        if !is_in_key {
            words(line, &mut out);
        }
        if line.contains("-----END") {
            is_in_key = false;
        }
    }
    out
}

/// A word is what stands between blanks, quotes and the like.
fn words(line: &str, out: &mut String) {
    let is_border = |c: char| c.is_whitespace() || "\"'`,;=:(){}[]<>&?".contains(c);
    let mut follows_bearer = false;
    for part in line.split_inclusive(is_border) {
        let word = part.trim_end_matches(is_border);
        let border = part.get(word.len()..).unwrap_or_default();
        if follows_bearer && !word.is_empty() || is_token(word) {
            out.push_str(REDACTED);
        } else {
            out.push_str(word);
        }
        out.push_str(border);
        if !word.is_empty() {
            follows_bearer = word.eq_ignore_ascii_case("bearer");
        }
    }
}

/// A JSON web token (its header is `{"`, in base64 `eyJ`), or a bootstrap token of kubeadm.
fn is_token(word: &str) -> bool {
    let is_web_token = word.starts_with("eyJ") && word.len() >= TOKEN_LENGTH;
    let is_bootstrap = word.split_once('.').is_some_and(|(id, secret)| {
        let is_made_of = |text: &str, length| {
            text.len() == length
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        };
        is_made_of(id, 6) && is_made_of(secret, 16)
    });
    is_web_token || is_bootstrap
}
