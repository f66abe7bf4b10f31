//! What the operator notes about rollouts, in an annotation of the DaemonSet, so that the next operator goes on with it.

use serde::{Deserialize, Serialize};

/// The notes of one pool's rollouts. Times are Unix seconds by the operator's clock; 0 means never.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Record {
    /// The last template whose rollout was complete; empty if that is not known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub good: String,
    /// The template under way, once it has soaked on its first node.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub soaked: String,
    /// When the rollout under way was last seen to make progress.
    #[serde(skip_serializing_if = "is_zero")]
    pub since: i64,
    /// When the first node's new proxy was first seen ready, if it is.
    #[serde(skip_serializing_if = "is_zero")]
    pub ready_since: i64,
    /// How many nodes were done at the last progress.
    #[serde(skip_serializing_if = "is_none_done")]
    pub done: u32,
    /// Whether the owner has paused the rollout: what passes meanwhile is no time without progress.
    #[serde(skip_serializing_if = "is_off")]
    pub paused: bool,
    /// The last template that has failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub halted: Option<Halt>,
    /// The owner's last request to try a failed template once more that was obeyed, while it stands.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub retried: String,
}

/// A template that is not rolled out, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Halt {
    /// The template.
    pub template: String,
    /// The node where it has failed; empty if it got to none.
    pub node: String,
    /// What was wrong, for people.
    pub cause: String,
}

impl Record {
    /// Notes that a template begins.
    pub(super) fn begin(&mut self, now: i64) {
        *self = Self {
            good: std::mem::take(&mut self.good),
            halted: self.halted.take(),
            retried: std::mem::take(&mut self.retried),
            ..Self::default()
        };
        self.since = now;
    }

    /// Notes that the rollout of this template is complete. One that failed before it may be tried again.
    pub(super) fn complete(&mut self, template: &str) {
        *self = Self {
            good: template.to_owned(),
            retried: std::mem::take(&mut self.retried),
            ..Self::default()
        };
    }

    /// Notes progress.
    pub(super) fn advance(&mut self, now: i64) {
        self.since = now;
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(time: &i64) -> bool {
    *time == 0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_none_done(done: &u32) -> bool {
    *done == 0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_off(paused: &bool) -> bool {
    !*paused
}
