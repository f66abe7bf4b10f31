//! The ConfigMap with the wire document.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::ObjectMeta;
use trivet_crds::{data_plane_name, wire};

use super::{Settings, labels};
use crate::plan::{Marks, Rollout};

/// The annotation with the names of the members that the spec lists with addresses. By it a later pass knows that the
/// pool's owner has removed a member, which is obeyed at once, and not discovery.
pub const EXPLICIT_MEMBERS: &str = "trivet.dev/explicit-members";

/// The annotation with the last used permission to shrink: pool UID and generation.
pub const USED_PERMISSION: &str = "trivet.dev/used-allow-shrink";

/// The annotation with what the spec lists of the members that it lists by DNS names, as JSON.
pub const NAMED_MEMBERS: &str = "trivet.dev/named-members";

/// The annotation with `spec.discovery` of the last spec that was accepted, as JSON.
pub const ACCEPTED_DISCOVERY: &str = "trivet.dev/accepted-discovery";

/// Renders the ConfigMap.
pub fn render(rollout: &Rollout, settings: &Settings) -> Result<ConfigMap, wire::Error> {
    let pool = &rollout.document.pool;
    let Marks {
        explicit,
        named,
        used_permission,
        discovery,
        unread,
    } = &rollout.marks;
    let explicit = explicit.iter().map(String::as_str).collect::<Vec<_>>();
    let mut annotations = unread.clone();
    annotations.insert(EXPLICIT_MEMBERS.to_owned(), explicit.join(","));
    if !named.is_empty() {
        annotations.insert(NAMED_MEMBERS.to_owned(), serde_json::json!(named).to_string());
    }
    if !used_permission.is_empty() {
        annotations.insert(USED_PERMISSION.to_owned(), used_permission.clone());
    }
    if let Some(discovery) = discovery {
        let text = serde_json::to_string(discovery)?;
        annotations.insert(ACCEPTED_DISCOVERY.to_owned(), text);
    }
    Ok(ConfigMap {
        metadata: ObjectMeta {
            name: Some(data_plane_name(pool)),
            namespace: Some(settings.namespace.clone()),
            labels: Some(labels(pool)),
            annotations: Some(annotations),
            // The plan was made for this version. If someone else has written since, this write must fail.
            resource_version: rollout.version.clone(),
            ..ObjectMeta::default()
        },
        data: Some(
            [(
                wire::KEY.to_owned(),
                rollout.document.to_text_with(&rollout.later)?,
            )]
            .into(),
        ),
        ..ConfigMap::default()
    })
}
