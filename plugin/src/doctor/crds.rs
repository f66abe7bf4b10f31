//! Whether the CustomResourceDefinitions are those of this release, or later ones.

use std::collections::BTreeSet;

use kube::ResourceExt;
use serde_json::Value;
use trivet_crds::crdgen;

use super::expected::CRDS;
use super::finding::Finding;
use super::kind::Kind;
use crate::read::Facts;

/// A finding names up to this many fields.
const FIELDS_LIMIT: usize = 8;

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let Some(crds) = &facts.crds else {
        return Vec::new();
    };
    let own = [crdgen::apiserver_pool(), crdgen::proxy_report()];
    let mut found = Vec::new();
    for (name, own) in CRDS.iter().zip(own) {
        let Some(live) = crds.iter().find(|crd| crd.name_any() == *name) else {
            let message = "the API server does not know it";
            found.push(Finding::at(Kind::CrdMissing, format!("CRD {name}"), message));
            continue;
        };
        let live = serde_json::to_value(live).unwrap_or_default();
        if let Ok(own) = own {
            found.extend(older(name, &own, &live));
        }
        found.extend(stored(name, &live));
    }
    found
}

/// Fields of this release that the live definition does not have.
fn older(name: &str, own: &Value, live: &Value) -> Option<Finding> {
    let there = fields(live);
    let missing: Vec<_> = fields(own)
        .into_iter()
        .filter(|field| !there.contains(field))
        .collect();
    // Of a field that is missing, what is in it is missing too.
    let roots: Vec<_> = missing
        .iter()
        .filter(|field| !missing.iter().any(|other| is_inside(field, other)))
        .cloned()
        .collect();
    if roots.is_empty() {
        return None;
    }
    let more = match roots.len().saturating_sub(FIELDS_LIMIT) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let named = roots
        .iter()
        .take(FIELDS_LIMIT)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    Some(Finding::at(
        Kind::CrdOlder,
        format!("CRD {name}"),
        format!("it lacks {named}{more}"),
    ))
}

fn is_inside(field: &str, other: &str) -> bool {
    field
        .strip_prefix(other)
        .is_some_and(|rest| rest.starts_with('.') || rest.starts_with("[]"))
}

/// Versions in which objects may be stored and that are no longer served.
fn stored(name: &str, live: &Value) -> Option<Finding> {
    let names = |pointer: &str, key: Option<&str>| -> Vec<String> {
        let items = live
            .pointer(pointer)
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        let items = items.filter(|item| item.get("served") != Some(&Value::Bool(false)));
        items
            .filter_map(|item| {
                key.map_or(Some(item), |key| item.get(key))?
                    .as_str()
                    .map(str::to_owned)
            })
            .collect()
    };
    let served = names("/spec/versions", Some("name"));
    let stored = names("/status/storedVersions", None);
    let unserved: Vec<_> = stored
        .into_iter()
        .filter(|version| !served.contains(version))
        .collect();
    (!unserved.is_empty()).then(|| {
        let message = format!(
            "objects may be stored as {}; it serves {}",
            unserved.join(", "),
            served.join(", ")
        );
        Finding::at(Kind::StoredVersion, format!("CRD {name}"), message)
    })
}

/// The path of every field of a definition's served versions.
fn fields(crd: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let versions = crd.pointer("/spec/versions").and_then(Value::as_array);
    for version in versions.into_iter().flatten() {
        if let Some(schema) = version.pointer("/schema/openAPIV3Schema") {
            collect(schema, "", &mut found);
        }
    }
    found
}

fn collect(schema: &Value, path: &str, found: &mut BTreeSet<String>) {
    for (name, field) in schema
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        let path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        collect(field, &path, found);
        found.insert(path);
    }
    if let Some(items) = schema.get("items") {
        collect(items, &format!("{path}[]"), found);
    }
    if let Some(values) = schema.get("additionalProperties") {
        collect(values, &format!("{path}[]"), found);
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

    use super::*;
    use crate::doctor::tests::{facts, kinds};

    /// The facts with a change of the definition of pools.
    fn changed(change: impl FnOnce(&mut Value)) -> Facts {
        let mut facts = facts();
        let crds = facts.crds.as_mut().unwrap();
        let mut pool = serde_json::to_value(&crds[0]).unwrap();
        change(&mut pool);
        crds[0] = serde_json::from_value::<CustomResourceDefinition>(pool).unwrap();
        facts
    }

    fn properties<'a>(crd: &'a mut Value, path: &str) -> &'a mut serde_json::Map<String, Value> {
        let pointer = format!("/spec/versions/0/schema/openAPIV3Schema/properties/{path}");
        crd.pointer_mut(&pointer).unwrap().as_object_mut().unwrap()
    }

    #[test]
    fn the_definitions_of_this_release_are_in_order() {
        assert_eq!(check(&facts()), []);
    }

    #[test]
    fn a_definition_that_is_not_there_is_named() {
        let mut facts = facts();
        facts.crds.as_mut().unwrap().pop();
        let found = check(&facts);
        assert_eq!(kinds(&found), [Kind::CrdMissing]);
        assert_eq!(found[0].place, "CRD proxyreports.trivet.dev");
    }

    #[test]
    fn a_definition_of_an_earlier_release_is_named_with_the_fields_that_it_lacks() {
        let facts = changed(|crd| {
            properties(crd, "spec/properties").remove("nodeBootstrap");
            properties(crd, "spec/properties/members/items/properties").remove("zone");
        });
        let found = check(&facts);
        assert_eq!(kinds(&found), [Kind::CrdOlder]);
        assert_eq!(
            found[0].message,
            "it lacks spec.members[].zone, spec.nodeBootstrap"
        );
    }

    #[test]
    fn a_definition_of_a_later_release_is_in_order() {
        let facts = changed(|crd| {
            let field = serde_json::json!({ "type": "string" });
            properties(crd, "spec/properties").insert("ofALaterRelease".to_owned(), field);
        });
        assert_eq!(check(&facts), []);
    }

    #[test]
    fn a_stored_version_that_is_not_served_is_named() {
        let facts = changed(|crd| {
            crd["status"] = serde_json::json!({
                "acceptedNames": { "kind": "ApiserverPool", "plural": "apiserverpools" },
                "conditions": [], "storedVersions": ["v1alpha0", "v1alpha1"],
            });
        });
        let found = check(&facts);
        assert_eq!(kinds(&found), [Kind::StoredVersion]);
        assert_eq!(
            found[0].message,
            "objects may be stored as v1alpha0; it serves v1alpha1"
        );
    }
}
