//! Publishes events about pools. Pools are cluster-scoped, so the events land in namespace `default`.

use std::collections::VecDeque;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder};

use crate::api::fence::is_fenced;
use crate::logging::chain;

/// The longest note that the API server takes, in characters.
const NOTE_LIMIT: usize = 1024;

/// The most events of one pool that wait for an API server.
const UNSENT_LIMIT: usize = 64;

/// An event about a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Whether the pool's owner may need to act.
    pub is_warning: bool,
    /// One fixed word.
    pub reason: &'static str,
    /// The member that it is about; empty if it is about the pool.
    pub member: String,
    /// The sentence.
    pub note: String,
}

/// Logs new notices about the pool of this name.
pub fn log(name: &str, notices: &[Notice]) {
    for notice in notices {
        let Notice { reason, note, .. } = notice;
        if notice.is_warning {
            tracing::warn!(pool = name, reason, note, "the pool's owner may need to act");
        } else {
            tracing::info!(pool = name, reason, note, "the pool has changed");
        }
    }
}

/// Publishes `notices` about the pool `regarding`, and returns those to publish later, because the API server is absent or
/// overloaded. An event that the API server refuses is dropped: it would refuse it again.
pub async fn publish(recorder: &Recorder, regarding: &ObjectReference, notices: Vec<Notice>) -> Vec<Notice> {
    let name = regarding.name.as_deref().unwrap_or_default();
    let mut notices = VecDeque::from(notices);
    while let Some(notice) = notices.pop_front() {
        if let Err(error) = recorder.publish(&event(notice.clone()), regarding).await {
            if is_fenced(&error) {
                // The next leader tells what it finds.
                return Vec::new();
            }
            tracing::warn!(pool = name, error = chain(&error), "failed to publish an event");
            if !is_refused(&error) {
                notices.push_front(notice);
                // The others would only wait for the same time-out.
                break;
            }
        }
    }
    notices.truncate(UNSENT_LIMIT);
    notices.into()
}

fn is_refused(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if (400..500).contains(&status.code) && status.code != 429)
}

fn event(notice: Notice) -> Event {
    // The recorder merges events that differ only in their notes, so the member goes into a field of its own.
    let secondary = (!notice.member.is_empty()).then(|| ObjectReference {
        kind: Some("Node".to_owned()),
        name: Some(notice.member),
        ..ObjectReference::default()
    });
    Event {
        type_: if notice.is_warning {
            EventType::Warning
        } else {
            EventType::Normal
        },
        reason: notice.reason.to_owned(),
        note: Some(notice.note.chars().take(NOTE_LIMIT).collect()),
        action: "Reconcile".to_owned(),
        secondary,
    }
}
