//! Reads the listeners of the kinds that this release knows.
//!
//! An entry of another kind comes from a later release: it may forward to another port of the members, listen elsewhere, or
//! have other fields. A proxy of this release must not bind it as a listener of the apiservers. It must not reject the
//! document either, because then it could not follow the rest of it.

use serde::{Deserialize, Deserializer, de::Error};
use serde_json::Value;

use super::Listener;

/// The kind of listener that forwards to the members' own port; an entry without a kind has this one.
const APISERVER: &str = "Apiserver";

pub(super) fn of_known_kind<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Listener>, D::Error> {
    let mut listeners = Vec::new();
    for entry in Vec::<Value>::deserialize(deserializer)? {
        if is_known(&entry).map_err(D::Error::custom)? {
            listeners.push(Listener::deserialize(entry).map_err(D::Error::custom)?);
        }
    }
    Ok(listeners)
}

fn is_known(entry: &Value) -> Result<bool, &'static str> {
    match entry.get("kind") {
        None => Ok(true),
        Some(Value::String(kind)) => Ok(kind == APISERVER),
        Some(_) => Err("listeners[].kind must be a word"),
    }
}
