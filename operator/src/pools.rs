//! The pools as the API server has them, each read as far as this release can.
//!
//! A pool may have been written by a later release, or under an edited CRD, so that this release cannot read it. Pools are
//! therefore taken as they come, and each is read alone: one that cannot be read hides no other. What is in force for it
//! stays: nothing of it is written but the conditions that say so ([`unreadable`]).

pub mod unreadable;

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};
use serde_path_to_error::{Path, Segment};
use trivet_crds::pool::{ApiserverPool, ApiserverPoolSpec, ApiserverPoolStatus};

/// The longest value in a message, in characters.
const VALUE_LIMIT: usize = 80;

/// The longest words about it, in characters: they may have the value too.
const WHY_LIMIT: usize = 240;

/// A pool as the API server has it.
#[derive(Clone, Debug)]
pub enum StoredPool {
    /// This release can read its spec. Its status is read as far as it can be: the next pass writes it anew.
    Readable(Box<ApiserverPool>),
    /// This release cannot read its spec.
    Unreadable(Box<Unreadable>),
}

/// A pool whose spec this release cannot read.
#[derive(Clone, Debug)]
pub struct Unreadable {
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// What cannot be read.
    pub fault: Fault,
    /// The whole object.
    pub object: Value,
}

/// What of a spec cannot be read. The text ends with the way out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this release of the operator cannot read {path}, which is {value} ({why}): upgrade the operator to the release that knows \
     it, or set a value that this one knows; until then what is in force stays, edits and changes of the members included"
)]
pub struct Fault {
    /// The path of the field, such as `spec.discovery.policy`.
    pub path: String,
    /// Its value as JSON, shortened.
    pub value: String,
    /// What is wrong with it.
    pub why: String,
}

impl StoredPool {
    /// Reads a whole object. The error is that of its metadata, which every release writes in the same way.
    pub fn read(object: Value) -> Result<Self, serde_json::Error> {
        let metadata = object.get("metadata").cloned().unwrap_or_default();
        let metadata: ObjectMeta = serde_json::from_value(metadata)?;
        Ok(match spec(&object) {
            Ok(spec) => {
                let mut pool = ApiserverPool::new("", spec);
                pool.metadata = metadata;
                pool.status = status(&object);
                Self::Readable(Box::new(pool))
            }
            Err(fault) => Self::Unreadable(Box::new(Unreadable {
                metadata,
                fault,
                object,
            })),
        })
    }
}

impl From<ApiserverPool> for StoredPool {
    fn from(pool: ApiserverPool) -> Self {
        Self::Readable(Box::new(pool))
    }
}

impl<'de> Deserialize<'de> for StoredPool {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::read(Value::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl Resource for StoredPool {
    type DynamicType = ();
    type Scope = <ApiserverPool as Resource>::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        ApiserverPool::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        ApiserverPool::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        ApiserverPool::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        ApiserverPool::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        match self {
            Self::Readable(pool) => &pool.metadata,
            Self::Unreadable(pool) => &pool.metadata,
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Self::Readable(pool) => &mut pool.metadata,
            Self::Unreadable(pool) => &mut pool.metadata,
        }
    }
}

fn spec(object: &Value) -> Result<ApiserverPoolSpec, Fault> {
    let all_defaults = json!({});
    let spec = object.get("spec").unwrap_or(&all_defaults);
    serde_path_to_error::deserialize(spec).map_err(|error| {
        let (path, value) = place("spec", spec, error.path());
        Fault {
            path,
            value: value.to_string().chars().take(VALUE_LIMIT).collect(),
            why: error.inner().to_string().chars().take(WHY_LIMIT).collect(),
        }
    })
}

/// The path of a field as people write it, and its value.
fn place<'a>(root: &str, mut value: &'a Value, path: &Path) -> (String, &'a Value) {
    let mut text = root.to_owned();
    for segment in path {
        let (next, step) = match segment {
            Segment::Map { key } => (value.get(key), format!(".{key}")),
            Segment::Seq { index } => (value.get(index), format!("[{index}]")),
            Segment::Enum { .. } | Segment::Unknown => (None, String::new()),
        };
        let Some(next) = next else { break };
        value = next;
        text.push_str(&step);
    }
    (text, value)
}

/// The status: all of it, or each of its fields, and of its lists each entry, that can be read. It is a record of this operator
/// or of a later one, and decides nothing while there is a document.
fn status(object: &Value) -> Option<ApiserverPoolStatus> {
    let stored = object.get("status")?;
    if let Ok(whole) = read(stored) {
        return Some(whole);
    }
    let can_read = |field: &str, value: &Value| read::<ApiserverPoolStatus>(&json!({ field: value })).is_ok();
    let mut readable = Map::new();
    for (field, value) in stored.as_object()? {
        let value = match value {
            Value::Array(entries) => {
                let entries = entries.iter().filter(|entry| can_read(field, &json!([entry])));
                entries.cloned().collect()
            }
            other => other.clone(),
        };
        if can_read(field, &value) {
            readable.insert(field.clone(), value);
        }
    }
    read(&Value::Object(readable)).ok()
}

fn read<T: DeserializeOwned>(value: &Value) -> Result<T, serde_json::Error> {
    T::deserialize(value)
}

#[cfg(test)]
pub(crate) mod tests;
