//! The release before, whose commit `tests/skew/base` names, and this one understand each other's pools and documents.
//!
//! What the release before says is in `tests/skew/before/`. After a change of `tests/skew/base` this writes it anew, from the
//! history of the clone: `TRIVET_GENERATE=write cargo test -p trivet-crds --all-features --test skew`

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test says by its panic what is wrong, its helpers too"
)]

mod skew {
    pub(crate) mod additive;
}

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use skew::additive::{Schema, flat, violations};
use trivet_crds::wire::{Document, Gate, RolloutTarget};

/// The CRDs by their file names in `crds/`.
const CRDS: [&str; 2] = ["trivet.dev_apiserverpools.yaml", "trivet.dev_proxyreports.yaml"];

/// A document in its ConfigMap, as the operator's tests have rendered it.
const RENDERED: &str = "operator/src/render/snapshots/trivet_operator__render__tests__config_map.snap";

/// A DaemonSet, from the same tests.
const DAEMON_SET: &str = "operator/src/render/snapshots/trivet_operator__render__tests__daemon_set.snap";

/// Why a rule about listeners may come.
const ONE_LISTENER: &str =
    "the pools of the release before have the entry apiserver alone, and none of these fields";

/// Rules that the release before has not, each with the reason why it may come.
const NEW_RULES: [(&str, &str); 9] = [
    (
        "!self.metadata.name.endsWith('-bootstrap')",
        "the DaemonSet of such a pool would be that of another pool's writer; the API server still takes edits of one that \
         is there (ratcheting), unless they change its name, which nobody can",
    ),
    (
        "self.exposure != 'Node' || (isIP(self.address) && ip(self.address).isLoopback())",
        "the release before has no exposure, so none of its pools breaks it",
    ),
    (
        "self.exists(l, l.name == 'apiserver') && self.all(l, (l.name == 'apiserver') == (!has(l.kind) || l.kind == 'Apiserver'))",
        ONE_LISTENER,
    ),
    (
        "self.all(l, self.all(m, l.name == m.name || (has(l.port) ? l.port : 7443) != (has(m.port) ? m.port : 7443)))",
        ONE_LISTENER,
    ),
    ("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')", ONE_LISTENER),
    (
        "(!has(self.kind) || self.kind == 'Apiserver') ? !has(self.memberPort) : (has(self.port) && has(self.memberPort))",
        ONE_LISTENER,
    ),
    (
        "!has(self.balancing) || self.balancing == 'LeastConnections' || (has(self.kind) && self.kind != 'Apiserver')",
        ONE_LISTENER,
    ),
    (
        "!has(self.healthCheck) || (has(self.kind) && self.kind == 'HTTPS')",
        ONE_LISTENER,
    ),
    (
        "!has(self.spec) || !has(self.spec.dns) || !has(self.spec.dns.service) || !has(self.spec.dns.service.policy) || self.spec.dns.service.policy != 'Enabled' || has(self.spec.dns.service.name) || self.metadata.name.matches('^[a-z][-a-z0-9]*$')",
        "the release before has no names in DNS, so none of its pools breaks it",
    ),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn base() -> String {
    let commit = fs::read_to_string(root().join("tests/skew/base")).unwrap();
    commit.trim().to_owned()
}

/// A file of the release before; `None` if it has none of this name.
fn file_of_base(path: &str) -> Option<String> {
    let commit = base();
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).current_dir(root()).output();
        output.expect("git starts")
    };
    assert!(
        git(&["cat-file", "-e", &commit]).status.success(),
        "commit {commit} is not in this clone: fetch its history with `git fetch --unshallow`"
    );
    let shown = git(&["show", &format!("{commit}:{path}")]);
    shown
        .status
        .success()
        .then(|| String::from_utf8(shown.stdout).unwrap())
}

/// The schemas of CRDs in YAML, by file name and path in the schema.
fn schemas(read: impl Fn(&str) -> Option<String>) -> Schema {
    let mut schemas = Schema::new();
    for name in CRDS {
        let Some(text) = read(&format!("crds/{name}")) else {
            continue;
        };
        let crd: Value = serde_saphyr::from_str(&text).unwrap();
        for version in crd["spec"]["versions"].as_array().unwrap() {
            let at = format!("{name} {}", version["name"].as_str().unwrap());
            flat(&at, &version["schema"]["openAPIV3Schema"], &mut schemas);
        }
    }
    schemas
}

/// The object in a snapshot.
fn object_in(snapshot: &str) -> Value {
    let (_, yaml) = snapshot.split_once("\n---\n").unwrap();
    serde_saphyr::from_str(yaml).unwrap()
}

/// The wire document in the ConfigMap of a snapshot.
fn document_in(snapshot: &str) -> String {
    let map = object_in(snapshot);
    map["data"]["pool.json"].as_str().unwrap().to_owned()
}

/// What the proxy in the DaemonSet of a snapshot is asked on its command lines, without values: `run --config`.
fn flags_in(snapshot: &str) -> String {
    let container = &object_in(snapshot)["spec"]["template"]["spec"]["containers"][0];
    let mut flags = BTreeSet::new();
    let probes = ["livenessProbe", "readinessProbe", "startupProbe"];
    let commands = probes.map(|probe| &container[probe]["exec"]["command"]);
    for command in commands.into_iter().chain([&container["args"]]) {
        let mut words = command
            .as_array()
            .unwrap()
            .iter()
            .map(|word| word.as_str().unwrap());
        let verb = words.find(|word| !word.starts_with('/')).unwrap();
        flags.insert(verb.to_owned());
        flags.extend(
            words
                .filter(|word| word.starts_with("--"))
                .map(|flag| format!("{verb} {flag}")),
        );
    }
    flags.into_iter().map(|flag| flag + "\n").collect()
}

/// One line for each part of a schema, so that a change of the file can be read.
fn lines(schema: &Schema) -> String {
    let lines = schema.iter().map(|(path, part)| format!("{path}\t{part}\n"));
    format!("{}\n{}", base(), lines.collect::<String>())
}

fn parsed(text: &str) -> Schema {
    let parts = text.lines().skip(1).map(|line| {
        let (path, part) = line.split_once('\t').unwrap();
        (path.to_owned(), serde_json::from_str(part).unwrap())
    });
    parts.collect()
}

/// What the release before says.
struct Before {
    schema: Schema,
    /// A document that its operator has rendered.
    document: String,
    /// With which flags its operator starts a proxy.
    flags: String,
}

fn of_the_release_before() -> Before {
    let file = |name: &str| root().join("tests/skew/before").join(name);
    let (schema, document, flags) = (file("schema.tsv"), file("document.json"), file("flags.txt"));
    if std::env::var_os("TRIVET_GENERATE").is_some_and(|mode| mode == "write") {
        fs::write(&schema, lines(&schemas(file_of_base))).unwrap();
        fs::write(&document, document_in(&file_of_base(RENDERED).unwrap()) + "\n").unwrap();
        fs::write(&flags, flags_in(&file_of_base(DAEMON_SET).unwrap())).unwrap();
    }
    let schema = fs::read_to_string(schema).unwrap();
    assert_eq!(
        schema.lines().next(),
        Some(base().as_str()),
        "tests/skew/before is of another release: write it anew, as the head of this file says"
    );
    Before {
        schema: parsed(&schema),
        document: fs::read_to_string(document).unwrap(),
        flags: fs::read_to_string(flags).unwrap(),
    }
}

fn now(path: &str) -> Option<String> {
    fs::read_to_string(root().join(path)).ok()
}

#[test]
fn the_crds_take_all_that_those_of_the_release_before_took() {
    let before = of_the_release_before().schema;
    assert!(!before.is_empty());
    let allowed = NEW_RULES.map(|(rule, _why)| rule);
    let mut found = violations(&before, &schemas(now), &allowed);
    found.retain(|violation| !is_new_bound_of_status(violation));
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// A status is written by operators alone, and those of the release before keep within the bounds that this one declares.
fn is_new_bound_of_status(violation: &str) -> bool {
    let bounds = ["maxLength was null", "minLength was null", "minimum was null"];
    violation.starts_with("trivet.dev_apiserverpools.yaml v1alpha1/status/")
        && bounds.iter().any(|bound| violation.contains(bound))
}

#[test]
fn a_document_of_the_release_before_has_the_documented_defaults() {
    let document = Document::parse(&of_the_release_before().document).unwrap();
    let RolloutTarget { template, gate } = &document.rollout;
    assert!(template.is_empty() && *gate == Gate::default() && gate.is_open());
    assert!(document.disabled_members.is_empty());
    assert!(document.further_endpoints.is_empty());
}

#[test]
fn a_document_of_this_release_has_all_that_the_release_before_reads() {
    let before = of_the_release_before().document;
    let now = document_in(&now(RENDERED).unwrap());
    let [before, now] = [before, now].map(|text| serde_json::from_str::<Value>(&text).unwrap());
    let mut lacking = Vec::new();
    lacks("", &before, &now, &mut lacking);
    assert!(lacking.is_empty(), "{lacking:?}");
}

/// It reads the entries without a kind, and those of kind Apiserver, which is the whole of its rule.
#[test]
fn extra_listeners_are_left_out_by_the_release_before() {
    let mut text: Value = serde_json::from_str(&document_in(&now(RENDERED).unwrap())).unwrap();
    let of_apiservers = text["listeners"].clone();
    let extra = serde_json::json!({
        "name": "konnectivity", "kind": "TLS", "addresses": ["127.0.0.1"], "port": 18132, "memberPort": 8132,
        "balancing": "Spread",
    });
    text["listeners"].as_array_mut().unwrap().push(extra);
    text.as_object_mut().unwrap().remove("hash");
    let document = Document::parse(&text.to_string()).unwrap();
    assert_eq!(document.extra_listeners().count(), 1);
    let mut entries = serde_json::to_value(&document.listeners).unwrap();
    let entries = entries.as_array_mut().unwrap();
    entries.retain(|entry| entry.get("kind").is_none_or(|kind| kind == "Apiserver"));
    assert_eq!(*entries, *of_apiservers.as_array().unwrap());
}

/// An older proxy ends where it does not know a flag, and ignores an environment variable. So what is new comes by the
/// environment until the release before knows the flag too, and what the release before still sets stays.
#[test]
fn proxies_of_both_releases_know_the_flags_that_operators_of_both_set() {
    assert_eq!(flags_in(&now(DAEMON_SET).unwrap()), of_the_release_before().flags);
}

/// Collects what `now` lacks of `before`, or has of another type. Entries of lists are like the first one.
fn lacks(at: &str, before: &Value, now: &Value, found: &mut Vec<String>) {
    match (before, now) {
        (Value::Object(before), Value::Object(now)) => {
            for (key, value) in before {
                match now.get(key) {
                    Some(now) => lacks(&format!("{at}/{key}"), value, now, found),
                    None => found.push(format!("{at}/{key} is gone")),
                }
            }
        }
        (Value::Array(before), Value::Array(now)) => {
            if let (Some(before), Some(now)) = (before.first(), now.first()) {
                lacks(&format!("{at}/*"), before, now, found);
            }
        }
        (Value::String(_), Value::String(_)) | (Value::Number(_), Value::Number(_)) => {}
        _ => found.push(format!("{at} is of another type")),
    }
}

#[test]
fn a_field_that_goes_is_noticed() {
    let before = serde_json::json!({ "a": [{ "b": 1, "c": "x" }], "d": {} });
    let now = serde_json::json!({ "a": [{ "b": "1" }], "d": {}, "e": 2 });
    let mut found = Vec::new();
    lacks("", &before, &now, &mut found);
    assert_eq!(found, ["/a/*/b is of another type", "/a/*/c is gone"]);
}

#[test]
fn what_is_written_down_of_a_schema_reads_as_it_was() {
    let schema = schemas(now);
    assert_eq!(parsed(&lines(&schema)), schema);
    let kinds: BTreeMap<_, _> = schema.iter().filter(|(path, _)| !path.contains('/')).collect();
    assert_eq!(kinds.len(), CRDS.len());
}
