//! The pool as a file has it: read, and checked by a dry run of the API server.

use anyhow::{Context, Result};
use kube::api::{Patch, PatchParams, ValidationDirective};
use kube::{Api, ResourceExt};
use serde_json::{Map, Value, json};
use trivet_crds::GROUP;
use trivet_crds::pool::ApiserverPool;

use crate::BadUsage;
use crate::access::MANAGER;

/// The kind that a file must have.
const KIND: &str = "ApiserverPool";

/// A pool as a file has it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Edit {
    /// Its name.
    pub(super) name: String,
    annotations: Map<String, Value>,
    spec: Value,
}

/// What the API server says of an edit.
#[derive(Debug)]
pub(super) enum Checked {
    /// The pool as it would be, with every default.
    ByServer(Box<ApiserverPool>),
    /// The same as far as it can be told here: the caller may not ask the API server.
    Here(Box<ApiserverPool>),
    /// It refuses the edit.
    Refused {
        /// In a word.
        reason: String,
        /// In its own words.
        message: String,
    },
}

impl Edit {
    /// Reads YAML or JSON with one pool.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let bad = |message: String| anyhow::Error::from(BadUsage(message));
        let file: Value = serde_saphyr::from_str(text)
            .map_err(|error| bad(format!("the file is no single YAML or JSON document: {error}")))?;
        let word = |pointer: &str| file.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (group, kind) = (word("/apiVersion"), word("/kind"));
        if kind != KIND || group.split('/').next() != Some(GROUP) {
            return Err(bad(format!(
                "the file has apiVersion {group:?} and kind {kind:?}; it must have {GROUP}/v1alpha1 and {KIND}"
            )));
        }
        let name = word("/metadata/name").to_owned();
        if name.is_empty() {
            return Err(bad("the file has no metadata.name; name the pool".to_owned()));
        }
        let annotations = file.pointer("/metadata/annotations").and_then(Value::as_object);
        Ok(Self {
            name,
            annotations: annotations.cloned().unwrap_or_default(),
            spec: file
                .get("spec")
                .filter(|spec| !spec.is_null())
                .cloned()
                .unwrap_or_else(|| json!({})),
        })
    }

    /// Asks the API server what the pool would be, and whether it takes the edit. It changes nothing.
    pub(super) async fn check(
        &self,
        pools: &Api<ApiserverPool>,
        live: Option<&ApiserverPool>,
    ) -> Result<Checked> {
        let params = PatchParams {
            dry_run: true,
            field_manager: Some(MANAGER.to_owned()),
            field_validation: Some(ValidationDirective::Strict),
            force: live.is_none(),
        };
        let patch = match live {
            Some(live) => Patch::Merge(self.replacing(live)?),
            None => Patch::Apply(self.whole()),
        };
        match pools.patch(&self.name, &params, &patch).await {
            Ok(pool) => Ok(Checked::ByServer(Box::new(pool))),
            Err(kube::Error::Api(status)) if status.code == 403 && status.reason == "Forbidden" => {
                Ok(Checked::Here(Box::new(self.here(live)?)))
            }
            Err(kube::Error::Api(status)) if matches!(status.code, 400 | 403 | 409 | 422) => {
                Ok(Checked::Refused {
                    reason: status.reason.clone(),
                    message: without_object(&status.message).to_owned(),
                })
            }
            Err(error) => {
                Err(error).with_context(|| format!("failed to check pool {} by a dry run", self.name))
            }
        }
    }

    /// The whole object.
    fn whole(&self) -> Value {
        json!({
            "apiVersion": format!("{GROUP}/v1alpha1"),
            "kind": KIND,
            "metadata": { "name": self.name, "annotations": self.annotations },
            "spec": self.spec,
        })
    }

    /// The merge patch that makes the live spec this one.
    fn replacing(&self, live: &ApiserverPool) -> Result<Value> {
        let spec = serde_json::to_value(&live.spec).context("failed to serialise the spec")?;
        Ok(json!({
            "metadata": { "annotations": self.annotations, "resourceVersion": live.resource_version() },
            "spec": merge_patch(&spec, &self.spec),
        }))
    }

    /// The pool as far as it can be told without the API server: with the defaults of this release.
    fn here(&self, live: Option<&ApiserverPool>) -> Result<ApiserverPool> {
        let mut pool: ApiserverPool = serde_json::from_value(self.whole())
            .map_err(|error| BadUsage(format!("spec of pool {} cannot be read: {error}", self.name)))?;
        if let Some(live) = live {
            let annotations = pool.metadata.annotations.take().unwrap_or_default();
            pool.metadata = live.metadata.clone();
            pool.annotations_mut().extend(annotations);
            let generation = live.metadata.generation.unwrap_or_default();
            pool.metadata.generation = Some(if pool.spec == live.spec {
                generation
            } else {
                generation + 1
            });
            pool.status.clone_from(&live.status);
        }
        Ok(pool)
    }
}

/// The JSON merge patch (RFC 7386) that makes `from` the same as `to`: what `to` does not have is removed.
fn merge_patch(from: &Value, to: &Value) -> Value {
    let (Value::Object(from), Value::Object(to)) = (from, to) else {
        return to.clone();
    };
    let gone = from.keys().filter(|key| !to.contains_key(*key));
    let mut patch: Map<_, _> = gone.map(|key| (key.clone(), Value::Null)).collect();
    for (key, value) in to {
        let value = from
            .get(key)
            .map_or_else(|| value.clone(), |old| merge_patch(old, value));
        patch.insert(key.clone(), value);
    }
    Value::Object(patch)
}

/// The words of the API server about an unknown field, without the whole object that it puts before them.
fn without_object(message: &str) -> &str {
    let at = message.find("strict decoding error").unwrap_or_default();
    message.get(at..).unwrap_or(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POOL: &str = "apiVersion: trivet.dev/v1alpha1\nkind: ApiserverPool\nmetadata:\n  name: default\n";

    #[test]
    fn a_pool_is_read_from_yaml_and_from_json() {
        let yaml = Edit::parse(&format!(
            "{POOL}spec:\n  members: [{{name: cp1, state: Draining}}]\n"
        ))
        .unwrap();
        assert_eq!(yaml.name, "default");
        assert_eq!(yaml.spec["members"][0]["state"], "Draining");
        let json = Edit::parse(&yaml.whole().to_string()).unwrap();
        assert_eq!(json, yaml);
        assert_eq!(Edit::parse(POOL).unwrap().spec, json!({}), "a spec is not needed");
    }

    #[test]
    fn a_file_that_is_no_pool_is_refused_with_what_it_must_have() {
        for (text, words) in [
            (
                "kind: Pod\napiVersion: v1\n",
                "must have trivet.dev/v1alpha1 and ApiserverPool",
            ),
            ("a: [", "no single YAML or JSON document"),
            ("---\na: 1\n---\nb: 2\n", "no single YAML or JSON document"),
            (
                "apiVersion: trivet.dev/v1alpha1\nkind: ApiserverPool\n",
                "metadata.name",
            ),
        ] {
            let refusal = Edit::parse(text).unwrap_err();
            assert!(refusal.is::<BadUsage>(), "{text}");
            assert!(refusal.to_string().contains(words), "{refusal}");
        }
    }

    #[test]
    fn a_merge_patch_removes_what_the_file_does_not_have() {
        let from = json!({ "a": 1, "b": { "c": 2, "d": 3 }, "list": [1, 2] });
        let to = json!({ "b": { "c": 4 }, "list": [1] });
        let patch = merge_patch(&from, &to);
        assert_eq!(
            patch,
            json!({ "a": null, "b": { "c": 4, "d": null }, "list": [1] })
        );
    }

    #[test]
    fn without_the_api_server_an_edit_keeps_the_identity_of_the_pool() {
        let live: ApiserverPool = serde_json::from_value(json!({
            "metadata": { "name": "default", "uid": "1", "generation": 4, "annotations": { "kept": "yes" } },
            "spec": { "discovery": { "port": 7000 } },
        }))
        .unwrap();
        let edit = Edit::parse(&format!("{POOL}  annotations: {{new: 'yes'}}\n")).unwrap();
        let pool = edit.here(Some(&live)).unwrap();
        assert_eq!(pool.metadata.generation, Some(5));
        assert_eq!(pool.metadata.uid.as_deref(), Some("1"));
        assert_eq!(
            pool.spec.discovery.port, 6443,
            "a field that the file does not have gets its default"
        );
        assert!(pool.annotations().contains_key("kept") && pool.annotations().contains_key("new"));
        let same = Edit::parse(&format!("{POOL}spec: {{discovery: {{port: 7000}}}}\n")).unwrap();
        assert_eq!(same.here(Some(&live)).unwrap().metadata.generation, Some(4));
    }
}
