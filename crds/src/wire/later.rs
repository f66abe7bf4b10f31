//! What a document of a later release has that this release does not know: fields, entries of lists, and words.
//!
//! An operator of this release that writes such a document anew changes what it decides, and carries over the rest. Without
//! it, proxies of the later release would lose what their owner asked for, and a document whose content is the same would no
//! longer have its hash.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{Document, Error, content_hash};

/// The text of a document that has more than this release knows; empty for any other one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Later(Option<Arc<Texts>>);

#[derive(Debug, PartialEq, Eq)]
struct Texts {
    /// The document as it was written.
    written: Value,
    /// The same as far as this release knows it.
    known: Value,
}

impl Later {
    /// What the text of `document` has besides what was read of it. Nothing where the text is no JSON.
    pub fn of(text: &str, document: &Document) -> Self {
        let texts = || {
            let written = serde_json::from_str(text).ok()?;
            let known = serde_json::to_value(document).ok()?;
            (written != known).then(|| Arc::new(Texts { written, known }))
        };
        Self(texts())
    }

    /// The whole of `document`, which takes the place of the one with this rest.
    fn whole(&self, document: &Document) -> Result<Value, Error> {
        let new = serde_json::to_value(document)?;
        Ok(match &self.0 {
            Some(texts) => carry(&texts.written, &texts.known, new),
            None => new,
        })
    }
}

impl Document {
    /// As [`Document::seal`], for a document that takes the place of the one with this rest. One that proxies would refuse gets
    /// no seal: it would take the place of one that they follow, and be taken for one of a later release from then on.
    pub fn seal_with(mut self, later: &Later) -> Result<Self, Error> {
        self.hash = content_hash(&later.whole(&self)?);
        Self::parse(&self.to_text_with(later)?)
    }

    /// As [`Document::to_text`], for a document that was sealed with this rest.
    pub fn to_text_with(&self, later: &Later) -> Result<String, Error> {
        match &later.0 {
            Some(_) => Ok(serde_json::to_string_pretty(&later.whole(self)?)?),
            None => self.to_text(),
        }
    }
}

/// `new`, with what `written` has and `known` has not. What is the same in `known` and `new` stays as it was written.
fn carry(written: &Value, known: &Value, new: Value) -> Value {
    if new == *known {
        return written.clone();
    }
    match (written, known, new) {
        (Value::Object(written), Value::Object(known), Value::Object(new)) => {
            Value::Object(carry_fields(written, known, new))
        }
        (Value::Array(written), Value::Array(known), Value::Array(new)) => {
            Value::Array(carry_entries(written, known, new))
        }
        (_, _, new) => new,
    }
}

fn carry_fields(
    written: &Map<String, Value>,
    known: &Map<String, Value>,
    mut new: Map<String, Value>,
) -> Map<String, Value> {
    for (name, was) in written {
        let value = match (known.get(name), new.remove(name)) {
            (Some(known), Some(value)) => carry(was, known, value),
            (None, Some(value)) => value,
            (None, None) => was.clone(),
            // This release knows the field, and leaves it out.
            (Some(_), None) => continue,
        };
        new.insert(name.clone(), value);
    }
    new
}

/// Entries with a name are told apart by it. Those that this release cannot read come last.
fn carry_entries(written: &[Value], known: &[Value], new: Vec<Value>) -> Vec<Value> {
    let unknown = written.iter().filter(|entry| {
        let is_named = entry.get("name").is_some();
        is_named && named(known, entry).is_none() && named(&new, entry).is_none()
    });
    let unknown: Vec<_> = unknown.cloned().collect();
    let entries = new
        .into_iter()
        .map(|entry| match (named(written, &entry), named(known, &entry)) {
            (Some(written), Some(known)) => carry(written, known, entry),
            (_, None) | (None, _) => entry,
        });
    entries.chain(unknown).collect()
}

/// The entry with the name of `like`.
fn named<'a>(entries: &'a [Value], like: &Value) -> Option<&'a Value> {
    let name = like.get("name")?;
    entries.iter().find(|entry| entry.get("name") == Some(name))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{document, edited};
    use super::*;

    /// A document of a later release: an unknown field at the top, in a member and in a known part, a listener of an unknown
    /// kind, and an unknown word.
    fn of_later_release() -> String {
        let text = edited(|value| {
            value["virtualIP"] = json!({ "addresses": ["10.0.0.100"] });
            let mut second = value["members"][0].clone();
            second["name"] = "cp2".into();
            second["addresses"] = json!(["10.0.0.12"]);
            value["members"].as_array_mut().unwrap().push(second);
            value["members"][0]["weight"] = 3.into();
            value["connection"]["pacing"] = "Slow".into();
            value["balancing"]["locality"] = "Nearest".into();
            let listeners = value["listeners"].as_array_mut().unwrap();
            listeners.insert(0, json!({ "name": "gossip", "kind": "UDP", "port": 8132 }));
        });
        Document::parse(&text).unwrap();
        text
    }

    #[test]
    fn a_document_that_stays_is_written_as_it_was() {
        for text in [of_later_release(), document().seal().unwrap().to_text().unwrap()] {
            let read = Document::parse(&text).unwrap();
            let later = Later::of(&text, &read);
            let written = read.to_text_with(&later).unwrap();
            assert_eq!(Document::parse(&written).unwrap(), read);
            let (written, text): (Value, Value) = (
                serde_json::from_str(&written).unwrap(),
                serde_json::from_str(&text).unwrap(),
            );
            assert_eq!(written, text);
        }
        let plain = document().seal().unwrap();
        assert_eq!(Later::of(&plain.to_text().unwrap(), &plain), Later::default());
    }

    #[test]
    fn a_document_that_changes_keeps_what_this_release_does_not_know() {
        let text = of_later_release();
        let mut read = Document::parse(&text).unwrap();
        let later = Later::of(&text, &read);
        read.revision += 1;
        read.connection.drain_timeout_seconds += 1;
        read.members.rotate_left(1);
        read.members[0].zone = "elsewhere".to_owned();
        let sealed = read.seal_with(&later).unwrap();
        let written = sealed.to_text_with(&later).unwrap();
        assert_eq!(Document::parse(&written).unwrap(), sealed);
        let value: Value = serde_json::from_str(&written).unwrap();
        assert_eq!(value["virtualIP"]["addresses"][0], "10.0.0.100");
        assert_eq!(value["connection"]["pacing"], "Slow");
        assert_eq!(value["balancing"]["locality"], "Nearest");
        assert_eq!(value["listeners"][0]["kind"], "UDP");
        let members = value["members"].as_array().unwrap();
        let heavy: Vec<_> = members.iter().filter(|member| member["weight"] == 3).collect();
        assert_eq!(heavy.len(), 1);
        assert_eq!(heavy[0]["name"], document().members[0].name);
    }

    #[test]
    fn a_document_that_proxies_would_refuse_gets_no_seal() {
        let mut beyond = document();
        beyond.connection.drain_timeout_seconds = u32::MAX;
        for later in [Later::default(), Later::of(&of_later_release(), &document())] {
            let error = beyond.clone().seal_with(&later).unwrap_err();
            assert_eq!(error.reason(), "Invalid", "{error}");
        }
    }

    #[test]
    fn what_this_release_changes_or_leaves_out_is_not_carried_over() {
        let text = of_later_release();
        let mut read = Document::parse(&text).unwrap();
        let later = Later::of(&text, &read);
        read.balancing.locality = super::super::Locality::PreferLocal;
        let gone = read.members.remove(0).name;
        let written = read.seal_with(&later).unwrap().to_text_with(&later).unwrap();
        let value: Value = serde_json::from_str(&written).unwrap();
        assert_eq!(value["balancing"]["locality"], "PreferLocal");
        let mut members = value["members"].as_array().unwrap().iter();
        assert!(members.all(|member| member["name"] != gone.as_str()));
    }
}
