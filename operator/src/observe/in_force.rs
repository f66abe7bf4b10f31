//! Reads the members and the revision in force from a pool's ConfigMap, or from the pool's status if the ConfigMap has lost
//! them.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use serde::Deserialize;
use serde_json::Value;
use trivet_crds::RETIREMENT;
use trivet_crds::pool::{ApiserverPool, Discovery, MemberSource, PoolMemberState};
use trivet_crds::wire::{self, Document, Later};

use crate::leader::take::LEADER_TERM;
use crate::logging::chain;
use crate::plan::{Current, Marks};
use crate::render::config_map::{ACCEPTED_DISCOVERY, EXPLICIT_MEMBERS, NAMED_MEMBERS, USED_PERMISSION};

/// The beginning of the annotations that operators of all releases write.
const OURS: &str = "trivet.dev/";

/// What is in force for `pool`, by its ConfigMap and its status. Pure.
pub fn current(pool: &ApiserverPool, map: Option<&ConfigMap>) -> Current {
    let text = map.and_then(|map| map.data.as_ref()?.get(wire::KEY));
    let parsed = text.map(|text| Document::parse(text));
    let error = parsed.as_ref().and_then(|parsed| parsed.as_ref().err());
    // One that is torn or was edited by hand is worth nothing, and one of a later release is.
    let is_intact = error.is_some() && text.is_some_and(|text| Document::is_intact(text));
    let unreadable = error.filter(|_| is_intact).map(|error| chain(error));
    if let Some(error) = error.filter(|_| !is_intact) {
        tracing::warn!(pool = pool.name_any(), %error, "document in force cannot be read; writing a new one");
    }
    let document = parsed.and_then(Result::ok);
    let status = pool.status.as_ref();
    let reported = status.and_then(|status| u64::try_from(status.config_revision?).ok());
    let stated = text.and_then(|text| stated_revision(text));
    let annotation = |name| map.and_then(|map| map.annotations().get(name).cloned());
    let names = annotation(EXPLICIT_MEMBERS).unwrap_or_default();
    let explicit = names
        .split(',')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect();
    let (members, explicit) = match &document {
        Some(document) => (document.members.clone(), explicit),
        None => remembered_members(pool),
    };
    let later = text.zip(document.as_ref());
    let discovery = annotation(ACCEPTED_DISCOVERY).and_then(|text| read_discovery(&text));
    let by_name = annotation(NAMED_MEMBERS).and_then(|text| serde_json::from_str(&text).ok());
    Current {
        later: later.map_or_else(Later::default, |(text, document)| Later::of(text, document)),
        unreadable,
        document,
        members,
        marks: Marks {
            explicit,
            unread: unread(map, discovery.is_some(), by_name.is_some()),
            // Without it, a name's answer is followed as that of a new entry is.
            named: by_name.unwrap_or_default(),
            used_permission: annotation(USED_PERMISSION).unwrap_or_default(),
            discovery,
        },
        told: [("the ConfigMap", stated), ("the pool's status", reported)]
            .into_iter()
            .filter_map(|(place, revision)| Some((place.into(), revision?)))
            .collect(),
        version: map.and_then(ResourceExt::resource_version),
        created: map.and_then(created).unwrap_or_default(),
    }
}

/// The discovery of a note. None if it has what this release does not know: that decides too.
fn read_discovery(text: &str) -> Option<Discovery> {
    let note: Value = serde_json::from_str(text).ok()?;
    let discovery = Discovery::deserialize(&note).ok()?;
    let known = serde_json::to_value(&discovery).ok()?;
    let is_known = |(field, value): (&String, &Value)| {
        let is_empty = value.as_object().is_some_and(serde_json::Map::is_empty);
        is_empty || known.get(field).is_some()
    };
    note.as_object()?.iter().all(is_known).then_some(discovery)
}

/// The notes that this release cannot read, by annotation. Those that are no part of what is applied stay where they are.
fn unread(map: Option<&ConfigMap>, has_discovery: bool, has_named: bool) -> BTreeMap<String, String> {
    let is_unread = |name: &str| match name {
        EXPLICIT_MEMBERS | USED_PERMISSION | LEADER_TERM | RETIREMENT => false,
        ACCEPTED_DISCOVERY => !has_discovery,
        NAMED_MEMBERS => !has_named,
        other => other.starts_with(OURS),
    };
    let notes = map.into_iter().flat_map(ResourceExt::annotations);
    let unread = notes.filter(|(name, _)| is_unread(name));
    unread.map(|(name, text)| (name.clone(), text.clone())).collect()
}

/// When the API server has created the object, in Unix seconds.
fn created(map: &ConfigMap) -> Option<u64> {
    u64::try_from(map.creation_timestamp()?.0.as_second()).ok()
}

/// The revision in a text, even if the text is not a valid document: the next revision must be higher than that too.
fn stated_revision(text: &str) -> Option<u64> {
    serde_json::from_str::<Value>(text)
        .ok()?
        .get("revision")?
        .as_u64()
}

/// The members in the pool's status, for a pool whose ConfigMap was deleted or is invalid.
fn remembered_members(pool: &ApiserverPool) -> (Vec<wire::Member>, BTreeSet<String>) {
    let told = pool.status.iter().flat_map(|status| &status.members);
    let in_force: Vec<_> = told
        .filter(|member| member.state != PoolMemberState::Disabled)
        .collect();
    let explicit = in_force
        .iter()
        .filter(|member| member.source == MemberSource::Spec);
    let names = explicit.map(|member| member.name.clone()).collect();
    let members = in_force.iter().map(|member| wire::Member {
        name: member.name.clone(),
        addresses: member
            .addresses
            .iter()
            .filter_map(|address| address.parse().ok())
            .collect(),
        port: member.port,
        state: match member.state {
            PoolMemberState::Draining => wire::MemberState::Draining,
            PoolMemberState::Active | PoolMemberState::Disabled => wire::MemberState::Active,
        },
        zone: member.zone.clone(),
        node_name: member.node_name.clone(),
    });
    (
        members.filter(|member| !member.addresses.is_empty()).collect(),
        names,
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use trivet_crds::pool::ApiserverPoolSpec;

    use super::*;

    /// A pool at revision 12 whose status knows a discovered, a listed and a disabled member.
    fn pool() -> ApiserverPool {
        let member = |name: &str, source: &str, state: &str| {
            json!({ "name": name, "addresses": ["10.0.0.1"], "port": 6443, "source": source, "state": state,
                    "nodeName": "n1", "zone": "a", "health": "Up" })
        };
        let mut pool = ApiserverPool::new("default", ApiserverPoolSpec::default());
        let members = [
            member("cp1", "Node", "Active"),
            member("extra", "Spec", "Draining"),
            member("off", "Node", "Disabled"),
        ];
        pool.status = serde_json::from_value(json!({ "configRevision": 12, "members": members })).unwrap();
        pool
    }

    fn map(text: &str) -> ConfigMap {
        serde_json::from_value(json!({
            "metadata": { "resourceVersion": "7", "annotations": { EXPLICIT_MEMBERS: "a,b" } },
            "data": { wire::KEY: text },
        }))
        .unwrap()
    }

    #[test]
    fn a_lost_document_leaves_the_members_and_the_revision_of_the_status() {
        let current = current(&pool(), None);
        assert!(current.document.is_none());
        assert_eq!(current.told, [("the pool's status".into(), 12)]);
        assert_eq!(
            current
                .members
                .iter()
                .map(|member| member.name.as_str())
                .collect::<Vec<_>>(),
            ["cp1", "extra"]
        );
        assert_eq!(current.members[1].state, wire::MemberState::Draining);
        assert_eq!(current.members[1].node_name, "n1");
        assert_eq!(current.members[1].zone, "a");
        assert_eq!(current.marks.explicit, ["extra".to_owned()].into());
    }

    #[test]
    fn the_time_at_which_a_config_map_was_created_is_read() {
        let mut map = map("");
        assert_eq!(current(&pool(), Some(&map)).created, 0);
        map.metadata.creation_timestamp = serde_json::from_value(json!("1970-01-01T00:01:40Z")).unwrap();
        assert_eq!(current(&pool(), Some(&map)).created, 100);
    }

    #[test]
    fn a_broken_document_still_tells_its_revision() {
        let current = current(&pool(), Some(&map(r#"{"revision": 40}"#)));
        assert!(current.document.is_none());
        assert_eq!(
            current.told,
            [("the ConfigMap".into(), 40), ("the pool's status".into(), 12)]
        );
        assert_eq!(current.version.as_deref(), Some("7"));
        assert_eq!(current.members.len(), 2);
    }

    #[test]
    fn what_the_spec_listed_of_members_by_name_is_read_back() {
        let named = [("a", &["a.example.com", "10.0.0.7"][..])];
        for (text, expected) in [
            (r#"{"a":["a.example.com","10.0.0.7"]}"#, &named[..]),
            ("broken", &[]),
        ] {
            let mut map = map("");
            map.annotations_mut()
                .insert(NAMED_MEMBERS.to_owned(), text.to_owned());
            let read = current(&pool(), Some(&map)).marks.named;
            let read: Vec<_> = read
                .iter()
                .map(|(name, texts)| (name.as_str(), texts.clone()))
                .collect();
            let expected: Vec<_> = expected
                .iter()
                .map(|(name, texts)| (*name, texts.iter().map(ToString::to_string).collect::<Vec<_>>()))
                .collect();
            assert_eq!(read, expected);
        }
    }

    #[test]
    fn the_discovery_of_the_accepted_spec_is_read_back_and_a_broken_one_is_none() {
        for (text, expected) in [
            (r#"{"policy":"EndpointSlices","port":6444}"#, Some(6444)),
            ("broken", None),
        ] {
            let mut map = map("");
            map.annotations_mut()
                .insert(ACCEPTED_DISCOVERY.to_owned(), text.to_owned());
            let read = current(&pool(), Some(&map)).marks.discovery;
            assert_eq!(read.map(|discovery| discovery.port), expected);
        }
    }

    #[test]
    fn a_pool_without_a_past_has_nothing_in_force() {
        let current = current(&ApiserverPool::new("default", ApiserverPoolSpec::default()), None);
        assert_eq!(current, Current::default());
    }
}
