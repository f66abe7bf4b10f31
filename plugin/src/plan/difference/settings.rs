//! Which fields of the document change, besides members and rollout. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;
use trivet_crds::wire::Document;

/// Fields of the document that are told in another way: members by name, the rollout by its template.
const TOLD_OTHERWISE: [&str; 5] = ["revision", "hash", "members", "disabledMembers", "rollout"];

/// A setting of the proxies that changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(in crate::plan) struct SettingChange {
    pub(in crate::plan) field: String,
    pub(in crate::plan) from: String,
    pub(in crate::plan) to: String,
}

/// The fields of the document that change. A first document changes none: all of it is new.
pub(super) fn changes(old: Option<&Document>, new: &Document) -> Vec<SettingChange> {
    let Some(old) = old else {
        return Vec::new();
    };
    let flat = |document: &Document| {
        let mut fields = BTreeMap::new();
        let value = serde_json::to_value(document).unwrap_or_default();
        for (name, value) in value.as_object().into_iter().flatten() {
            if !TOLD_OTHERWISE.contains(&name.as_str()) {
                flatten(name, value, &mut fields);
            }
        }
        fields
    };
    let (old, new) = (flat(old), flat(new));
    let names: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let changes = names.into_iter().filter_map(|name| {
        let told = |fields: &BTreeMap<String, String>| fields.get(name).cloned().unwrap_or_default();
        let (from, to) = (told(&old), told(&new));
        (from != to).then(|| SettingChange {
            field: name.clone(),
            from,
            to,
        })
    });
    changes.collect()
}

fn flatten(path: &str, value: &Value, fields: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                flatten(&format!("{path}.{name}"), value, fields);
            }
        }
        // Pages of certificates: that they change is enough.
        Value::String(text) if text.contains("-----BEGIN") => {
            fields.insert(
                path.to_owned(),
                format!("{} characters of certificates", text.len()),
            );
        }
        Value::String(text) => {
            fields.insert(path.to_owned(), text.clone());
        }
        other => {
            fields.insert(path.to_owned(), other.to_string());
        }
    }
}
