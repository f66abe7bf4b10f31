//! Tells that a pool cannot be read, and writes nothing else of it.
//!
//! Its document, its proxies and its status are those of the spec before, perhaps of a later release, and stay as they are:
//! this release would write them without what it does not know. So not even a term is noted on its objects. Only the
//! conditions Ready and Accepted change, in a status that is otherwise left as it was found.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource};
use serde_json::{Value, json};
use trivet_crds::pool::ApiserverPoolStatus;

use super::{StoredPool, Unreadable, status};
use crate::MANAGER;
use crate::api::events::{Notice, log, publish};
use crate::context::{Context, PoolState};
use crate::logging::chain;
use crate::report::status::conditions::{ACCEPTED, READY};
use crate::report::{self, now};

/// The reason word of the conditions, the event and the metric.
pub const UNREADABLE: &str = "Unreadable";

impl Unreadable {
    /// Its name.
    fn name(&self) -> String {
        self.metadata.name.clone().unwrap_or_default()
    }

    /// What events are about.
    fn object_ref(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some(StoredPool::api_version(&()).into_owned()),
            kind: Some(StoredPool::kind(&()).into_owned()),
            name: self.metadata.name.clone(),
            uid: self.metadata.uid.clone(),
            resource_version: self.metadata.resource_version.clone(),
            ..ObjectReference::default()
        }
    }

    /// The conditions that say so, among those that the status has; none if it says so already.
    fn conditions(&self, now: Timestamp) -> Option<Vec<Value>> {
        let found = self.object.pointer("/status/conditions");
        let found = found.and_then(Value::as_array).cloned().unwrap_or_default();
        let mut conditions = found.clone();
        for type_ in [READY, ACCEPTED] {
            self.set(&mut conditions, type_, now);
        }
        (conditions != found).then_some(conditions)
    }

    /// Sets a condition to False. Its time stays if it was False before, and so do fields of a later release.
    fn set(&self, conditions: &mut Vec<Value>, type_: &str, now: Timestamp) {
        let is_it = |condition: &&mut Value| condition.get("type").and_then(Value::as_str) == Some(type_);
        let found = conditions.iter_mut().find(is_it);
        let before = found.as_ref().and_then(|found| found.as_object());
        let mut after = before.cloned().unwrap_or_default();
        if after.get("status").and_then(Value::as_str) != Some("False") {
            after.insert("lastTransitionTime".to_owned(), now.to_string().into());
        }
        let told = [
            ("type", json!(type_)),
            ("status", json!("False")),
            ("reason", json!(UNREADABLE)),
            ("message", json!(self.fault.to_string())),
            ("observedGeneration", json!(self.metadata.generation)),
        ];
        after.extend(told.map(|(field, value)| (field.to_owned(), value)));
        match found {
            Some(found) => *found = after.into(),
            None => conditions.push(after.into()),
        }
    }

    /// The patch of the status, over the version that was read; none if nothing has to be said.
    pub fn patch(&self, now: Timestamp) -> Option<Value> {
        let conditions = self.conditions(now)?;
        Some(json!({
            "metadata": { "uid": self.metadata.uid, "resourceVersion": self.metadata.resource_version },
            "status": { "observedGeneration": self.metadata.generation, "conditions": conditions },
        }))
    }

    /// The status as far as it can be read, with what is said now.
    fn told(&self, now: Timestamp) -> ApiserverPoolStatus {
        let stored = self.object.get("status").and_then(Value::as_object);
        let mut told = stored.cloned().unwrap_or_default();
        if let Some(conditions) = self.conditions(now) {
            told.insert("conditions".to_owned(), conditions.into());
        }
        status(&json!({ "status": told })).unwrap_or_default()
    }
}

/// Tells that `pool` cannot be read: by an event and a line of the log, once for each fault, by its metrics, and by its status
/// if that can be written.
pub async fn tell(ctx: &Context, pool: &Unreadable) -> Result<(), report::Error> {
    let name = pool.name();
    let note = pool.fault.to_string();
    ctx.metrics.status(&name, &pool.told(now()));
    let PoolState {
        uid,
        reported,
        unsent,
        ..
    } = ctx.pool_states.of(&name);
    let is_same_pool = uid == pool.metadata.uid;
    let is_told = is_same_pool && reported.contains(&note);
    let notice = Notice {
        is_warning: true,
        reason: UNREADABLE,
        member: String::new(),
        note: note.clone(),
    };
    let notices: Vec<_> = (!is_told).then_some(notice).into_iter().collect();
    if !is_told {
        ctx.metrics.refused(&name, UNREADABLE);
    }
    log(&name, &notices);
    let unsent = unsent.into_iter().filter(|_| is_same_pool);
    let unsent = publish(&ctx.recorder, &pool.object_ref(), unsent.chain(notices).collect()).await;
    ctx.pool_states.change(&name, |state| {
        state.uid.clone_from(&pool.metadata.uid);
        state.reported = vec![note];
        state.unsent = unsent;
        state.memory = std::mem::take(&mut state.memory).after_a_gap();
        // The status is no longer the one that the last pass has written.
        state.status = None;
        state.stored = None;
        state.versions = None;
        // Nothing of such a pool is written, so its names stay as they are.
        state.dns.facts = None;
    });
    write(ctx, pool, !is_told).await
}

/// Writes the conditions. An API server may refuse to, because the object does not fit its CRD: then the event and the log
/// have told it. `is_new`: this fault was not told before.
async fn write(ctx: &Context, pool: &Unreadable, is_new: bool) -> Result<(), report::Error> {
    let Some(patch) = pool.patch(now()) else {
        return Ok(());
    };
    let name = pool.name();
    let api: Api<StoredPool> = Api::all(ctx.client.clone());
    let params = PatchParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PatchParams::default()
    };
    match api.patch_status(&name, &params, &Patch::Merge(patch)).await {
        // The pool was deleted meanwhile.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(kube::Error::Api(status)) if matches!(status.code, 400 | 422) => {
            if is_new {
                let error = kube::Error::Api(status);
                tracing::warn!(
                    pool = name,
                    error = chain(&error),
                    "the API server refuses a status that says that the pool cannot be read"
                );
            }
            Ok(())
        }
        Err(source) => Err(report::Error { pool: name, source }),
        Ok(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
