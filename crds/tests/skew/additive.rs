//! Whether a schema takes all that an earlier one took.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// The parts of schemas without their descriptions, by path; `*` is an entry of a list, `{}` a value of a map.
pub(crate) type Schema = BTreeMap<String, Value>;

/// Where the parts of a part are.
const NESTED: [&str; 3] = ["properties", "items", "additionalProperties"];

/// The rules of a part.
const RULES: &str = "x-kubernetes-validations";

/// What may only grow, and what may only shrink: otherwise a value that was valid is not.
const UPPER_BOUNDS: [&str; 4] = ["maximum", "maxLength", "maxItems", "maxProperties"];
const LOWER_BOUNDS: [&str; 4] = ["minimum", "minLength", "minItems", "minProperties"];

/// What stays as it is.
const FIXED: [&str; 8] = [
    "type",
    "format",
    "pattern",
    "nullable",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
];

/// Adds the parts of a schema.
pub(crate) fn flat(at: &str, schema: &Value, into: &mut Schema) {
    let mut part = schema.as_object().unwrap().clone();
    part.remove("description");
    for nested in NESTED {
        part.remove(nested);
    }
    if let Some(Value::Array(rules)) = part.get_mut(RULES) {
        *rules = rules.iter().map(|rule| rule["rule"].clone()).collect();
    }
    into.insert(at.to_owned(), Value::Object(part));
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        flat(&format!("{at}/{name}"), property, into);
    }
    for (nested, name) in [("items", "*"), ("additionalProperties", "{}")] {
        if schema[nested].is_object() {
            flat(&format!("{at}/{name}"), &schema[nested], into);
        }
    }
}

/// What `now` refuses that `before` took, or does otherwise. `allowed` are rules that may be new.
pub(crate) fn violations(before: &Schema, now: &Schema, allowed: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, before) in before {
        let Some(now) = now.get(path) else {
            found.push(format!("{path} is gone"));
            continue;
        };
        let (before, now) = (before.as_object().unwrap(), now.as_object().unwrap());
        let keywords = before
            .keys()
            .chain(now.keys().filter(|key| !before.contains_key(*key)));
        let worse = keywords.filter(|keyword| is_worse(keyword, before, now, allowed));
        found.extend(worse.map(|keyword| {
            let [before, now] = [before, now].map(|part| part.get(keyword).unwrap_or(&Value::Null));
            format!("{path}: {keyword} was {before} and is {now}")
        }));
    }
    found
}

fn is_worse(keyword: &str, before: &Map<String, Value>, now: &Map<String, Value>, allowed: &[&str]) -> bool {
    let words = before.get("enum");
    let (before, now) = (before.get(keyword), now.get(keyword));
    if before == now || now.is_none() && is_limit(keyword) {
        return false;
    }
    if before.is_none() && is_kept_by_all_words(keyword, now, words) {
        return false;
    }
    match keyword {
        keyword if UPPER_BOUNDS.contains(&keyword) => !rises(before, now),
        keyword if LOWER_BOUNDS.contains(&keyword) => !rises(now, before),
        // Words may come, and fields may be wanted no longer.
        "enum" => !contains_all(now, before) || before.is_none(),
        "required" => !contains_all(before, now),
        RULES => added(before, now).any(|rule| !allowed.contains(&rule.as_str().unwrap())),
        "default" => !keeps(before, now),
        keyword => {
            assert!(FIXED.contains(&keyword), "this test does not know {keyword} yet");
            true
        }
    }
}

/// Whether a new bound of a length holds for each of the words that alone were valid before.
fn is_kept_by_all_words(keyword: &str, bound: Option<&Value>, words: Option<&Value>) -> bool {
    let (Some(bound), Some(Value::Array(words))) = (bound.and_then(Value::as_u64), words) else {
        return false;
    };
    let mut lengths = words.iter().map(|word| word.as_str().unwrap().len() as u64);
    match keyword {
        "maxLength" => lengths.all(|length| length <= bound),
        "minLength" => lengths.all(|length| length >= bound),
        _ => false,
    }
}

/// Whether nothing is refused where this keyword is absent.
fn is_limit(keyword: &str) -> bool {
    UPPER_BOUNDS.contains(&keyword)
        || LOWER_BOUNDS.contains(&keyword)
        || ["enum", "required", RULES, "pattern"].contains(&keyword)
}

fn rises(from: Option<&Value>, to: Option<&Value>) -> bool {
    let number = |value: Option<&Value>| value.and_then(Value::as_f64);
    matches!((number(from), number(to)), (Some(from), Some(to)) if from <= to)
}

fn contains_all(all: Option<&Value>, some: Option<&Value>) -> bool {
    added(all, some).next().is_none()
}

/// The entries of a list that the one before lacks.
fn added<'a>(before: Option<&'a Value>, now: Option<&'a Value>) -> impl Iterator<Item = &'a Value> {
    let list = |value: Option<&'a Value>| value.and_then(Value::as_array).into_iter().flatten();
    list(now).filter(move |entry| !list(before).any(|known| known == *entry))
}

/// Whether a default is as it was; one of an object may have more fields.
fn keeps(before: Option<&Value>, now: Option<&Value>) -> bool {
    match (before, now) {
        (Some(Value::Object(before)), Some(Value::Object(now))) => {
            before.iter().all(|(key, value)| keeps(Some(value), now.get(key)))
        }
        _ => before == now,
    }
}

#[test]
fn whatever_takes_something_away_is_noticed() {
    let before = json!({
        "type": "object", "required": ["a"],
        "properties": {
            "a": { "type": "integer", "minimum": 1, "maximum": 9, "default": 5 },
            "b": { "type": "string", "enum": ["X", "Y"] },
            "c": { "type": "array", "items": { "type": "string" }, "maxItems": 3 },
            "d": { "type": "object", "default": { "e": 1 }, "properties": { "e": { "type": "integer" } } },
        },
    });
    let changed = |edit: &dyn Fn(&mut Value)| {
        let mut now = before.clone();
        edit(&mut now);
        let (mut old, mut new) = (Schema::new(), Schema::new());
        flat("s", &before, &mut old);
        flat("s", &now, &mut new);
        violations(&old, &new, &["allowed"])
    };
    let additive: [&dyn Fn(&mut Value); 8] = [
        &|now| now["properties"]["b"] = json!({ "type": "string", "minLength": 1, "maxLength": 1 }),
        &|now| now["properties"]["new"] = json!({ "type": "string" }),
        &|now| now["properties"]["a"]["maximum"] = 10.into(),
        &|now| drop(now["properties"]["a"].as_object_mut().unwrap().remove("minimum")),
        &|now| now["properties"]["b"]["enum"] = json!(["X", "Y", "Z"]),
        &|now| now["required"] = json!([]),
        &|now| now[RULES] = json!([{ "rule": "allowed" }]),
        &|now| now["properties"]["d"]["default"] = json!({ "e": 1, "f": 2 }),
    ];
    for (number, edit) in additive.iter().enumerate() {
        assert_eq!(changed(edit), Vec::<String>::new(), "{number}");
    }
    let taking: [&dyn Fn(&mut Value); 12] = [
        &|now| now["properties"]["b"] = json!({ "type": "string", "minLength": 2 }),
        &|now| drop(now["properties"].as_object_mut().unwrap().remove("c")),
        &|now| now["properties"]["a"]["type"] = "string".into(),
        &|now| now["properties"]["a"]["maximum"] = 8.into(),
        &|now| now["properties"]["a"]["minimum"] = 2.into(),
        &|now| now["properties"]["b"]["maxLength"] = 0.into(),
        &|now| now["properties"]["b"]["enum"] = json!(["X"]),
        &|now| now["properties"]["c"]["items"]["enum"] = json!(["X"]),
        &|now| now["required"] = json!(["a", "b"]),
        &|now| now[RULES] = json!([{ "rule": "new" }]),
        &|now| now["properties"]["a"]["default"] = 6.into(),
        &|now| now["properties"]["b"]["default"] = "X".into(),
    ];
    for (number, edit) in taking.iter().enumerate() {
        assert!(!changed(edit).is_empty(), "{number}");
    }
}
