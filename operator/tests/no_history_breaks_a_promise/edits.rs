//! Edits of every field of a pool's spec. The fields are those of the schema, so none can be forgotten.

use serde_json::{Value, json};

use crate::api_server::ApiServer;

/// A field with the values that edits give it; null removes it.
#[derive(Clone, Debug)]
pub(crate) struct Field {
    /// Its path below `spec`, such as `members[].port`.
    pub(crate) path: String,
    pub(crate) values: Vec<Value>,
}

/// The values of fields whose schema does not say which there are. Those that begin with `proxy.affinity` have all its fields.
fn values() -> Vec<(&'static str, Value)> {
    let requirement = |key: &str, operator: &str, values: &[&str]| json!({ "key": key, "operator": operator, "values": values });
    let affinity = |terms: Value| json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": terms } } });
    vec![
        // Names of nodes, of endpoints, and others.
        (
            "members[].name",
            json!(["cp1", "cp2", "cp3", "w5", "extra", "master-4", "10.0.0.2", "api"]),
        ),
        (
            "members[].addresses",
            json!([
                null,
                ["10.0.0.1"],
                ["10.0.0.2", "fd00::2"],
                ["fd00::3"],
                ["10.0.1.1"],
                ["10.0.0.5"],
                ["10.0.0.99"],
                ["api.example.com"],
                ["api.example.com", "10.0.0.4"],
                ["10.0.0.1", "10.0.0.2"],
                ["10.0.0.99", "10.0.0.98", "10.0.0.97", "10.0.0.96"],
            ]),
        ),
        ("members[].zone", json!([null, "a", "b"])),
        (
            "discovery.nodeSelector",
            json!([
                null, {}, { "role": "x" }, { "node-role.kubernetes.io/control-plane": "" }, { "kubernetes.io/os": "linux" },
            ]),
        ),
        ("listeners", listeners()),
        (
            "healthCheck.tlsServerName",
            json!(["kubernetes", "api.example.com", "10.0.0.1"]),
        ),
        (
            "proxy.image",
            json!([null, "registry.example.com/proxy:1", "trivet.dev/trivet-proxy:9"]),
        ),
        (
            "proxy.imagePullSecrets",
            json!([null, [], [{ "name": "a" }, { "name": "b" }]]),
        ),
        (
            "proxy.resources",
            json!([null, {}, { "requests": { "cpu": "5m" }, "limits": { "memory": "64Mi" } }]),
        ),
        (
            "proxy.nodeSelector",
            json!([null, {}, { "zone": "a" }, { "kubernetes.io/os": "linux" }, { "role": "x" }]),
        ),
        (
            "proxy.affinity",
            json!([
                null,
                affinity(json!([])),
                affinity(json!([{
                    "matchExpressions": [requirement("zone", "NotIn", &["b"])],
                    "matchFields": [requirement("metadata.name", "NotIn", &["w6"])],
                }])),
                affinity(json!([{ "matchExpressions": [{ "key": "role", "operator": "Exists" }] }])),
            ]),
        ),
        (
            "proxy.tolerations",
            json!([null, [], [{ "operator": "Exists" }], [{ "key": "a", "effect": "NoSchedule" }]]),
        ),
        (
            "proxy.priorityClassName",
            json!(["system-node-critical", "system-cluster-critical"]),
        ),
        (
            "proxy.appArmorProfile",
            json!([null, { "type": "RuntimeDefault" }, { "type": "Localhost", "localhostProfile": "trivet" }]),
        ),
        (
            "proxy.seLinuxOptions",
            json!([null, {}, { "type": "trivet_t", "level": "s0:c1", "user": "u", "role": "r" }]),
        ),
        (
            "proxy.metrics.address",
            json!(["127.0.0.1", "::1", "0.0.0.0", "10.0.0.1"]),
        ),
        ("rollout.maxParallel", json!(["10%", "1", "3", "100%"])),
        (
            "nodeBootstrap.manifestPath",
            json!(["/etc/kubernetes/manifests", "/etc/kubelet.d"]),
        ),
        ("dns.service.name", json!([null, "apiservers", "masters"])),
        (
            "dns.external.hostname",
            json!([null, "api.example.com", "masters.example.com"]),
        ),
    ]
}

/// The listeners there may be, one of them for the apiservers. Those with others have all their fields.
fn listeners() -> Value {
    let apiserver =
        |addresses: &[&str], port: u32| json!({ "name": "apiserver", "addresses": addresses, "port": port });
    let konnectivity = |port: u32, member_port: u32| {
        json!([
            { "name": "apiserver" },
            {
                "name": "konnectivity", "kind": "TLS", "addresses": ["127.0.0.1"], "port": port, "memberPort": member_port,
                "balancing": "Spread",
            },
        ])
    };
    let supervisor = json!({
        "name": "supervisor", "kind": "HTTPS", "port": 19345, "memberPort": 9345, "healthCheck": { "path": "/ping" },
    });
    let mut all = vec![
        Value::Null,
        json!([{ "name": "apiserver" }]),
        json!([apiserver(&["127.0.0.1"], 7443)]),
        json!([apiserver(&["::1", "127.0.0.1"], 7443)]),
        json!([apiserver(&["127.0.0.2"], 7443)]),
        json!([{ "name": "apiserver" }, supervisor]),
        konnectivity(18132, 8132),
        // What the server itself has, and the members' own port.
        konnectivity(8132, 8132),
        konnectivity(18132, 6443),
    ];
    let at_ports = PORTS.map(|port| json!([apiserver(&["127.0.0.1", "::1"], port)]));
    all.extend(at_ports);
    all.extend(PORTS.map(|port| konnectivity(port, 8132)));
    all.into()
}

/// The edits that decide most of what becomes of a pool.
pub(crate) fn decisive() -> Vec<(&'static str, Value)> {
    vec![
        ("management", json!("Paused")),
        ("management", json!("Managed")),
        ("members[].state", json!("Disabled")),
        ("members[].state", json!("Draining")),
        ("members[].name", json!("cp1")),
        ("members[].name", json!("cp2")),
        ("members[].addresses", json!(["10.0.0.99"])),
        ("members[].addresses", json!(["10.0.0.3", "fd00::3"])),
        ("discovery.policy", json!("None")),
        ("discovery.policy", json!("EndpointSlices")),
        ("discovery.policy", json!("Nodes")),
        ("discovery.port", json!(6444)),
        ("proxy.nodeScope", json!("WorkersOnly")),
        ("proxy.image", json!("registry.example.com/proxy:1")),
        ("proxy.metrics.port", json!(7443)),
        ("nodeBootstrap.policy", json!("StaticPod")),
        ("rollout.policy", json!("Paused")),
        ("dns.service.policy", json!("Enabled")),
        (
            "dns.external",
            json!({ "policy": "Enabled", "hostname": "api.example.com" }),
        ),
    ]
}

/// Ports besides the bounds: each is one that something of the cluster has.
const PORTS: [u32; 5] = [6443, 6444, 7443, 7444, 7450];

/// The fields of the schema, each with its values.
pub(crate) fn fields(api: &ApiServer) -> Vec<Field> {
    let mut found = Vec::new();
    collect("", api.spec(), &values(), &mut found);
    found
}

fn collect(path: &str, schema: &Value, known: &[(&str, Value)], found: &mut Vec<Field>) {
    let values = if let Some((_, Value::Array(values))) = known.iter().find(|(other, _)| *other == path) {
        values.clone()
    } else if let Some(Value::Array(words)) = schema.get("enum") {
        words.clone()
    } else if schema["type"] == "integer" {
        numbers(path, schema)
    } else if let Some(Value::Object(properties)) = schema.get("properties") {
        for (name, property) in properties {
            let path = if path.is_empty() {
                name.clone()
            } else {
                format!("{path}.{name}")
            };
            collect(&path, property, known, found);
        }
        return;
    } else if schema.pointer("/items/properties").is_some() {
        return collect(&format!("{path}[]"), &schema["items"], known, found);
    } else {
        panic!("spec.{path} is new: which values do edits give it?");
    };
    found.push(Field {
        path: path.to_owned(),
        values,
    });
}

fn numbers(path: &str, schema: &Value) -> Vec<Value> {
    let (least, most) = (
        schema["minimum"].as_u64().unwrap(),
        schema["maximum"].as_u64().unwrap(),
    );
    let mut numbers = vec![json!(least), json!(most), json!(least.midpoint(most))];
    numbers.extend(schema.get("default").cloned());
    if path.ends_with("port") {
        numbers.extend(PORTS.map(|port| json!(port)));
    }
    numbers
}

/// Gives the field its value in `spec`. In a list it is the field of the entry with this number, or of a new one.
pub(crate) fn edit(spec: &mut Value, path: &str, value: &Value, entry: usize) {
    match path.split_once("[].") {
        Some((list, rest)) => {
            let entries = spec
                .as_object_mut()
                .unwrap()
                .entry(list)
                .or_insert_with(|| json!([]));
            let entries = entries.as_array_mut().unwrap();
            let index = entry % (entries.len() + 1);
            if index == entries.len() {
                entries.push(json!({ "name": format!("new-{index}") }));
            }
            set(&mut entries[index], rest, value);
        }
        None => set(spec, path, value),
    }
}

fn set(object: &mut Value, path: &str, value: &Value) {
    let fields = object.as_object_mut().unwrap();
    match path.split_once('.') {
        Some((first, rest)) => set(fields.entry(first).or_insert_with(|| json!({})), rest, value),
        None if value.is_null() => drop(fields.remove(path)),
        None => drop(fields.insert(path.to_owned(), value.clone())),
    }
}

/// The value of a field, of the first entry where it is in a list.
fn get<'a>(spec: &'a Value, path: &str) -> &'a Value {
    let pointer = format!("/{}", path.replace("[].", ".0.").replace('.', "/"));
    spec.pointer(&pointer).unwrap_or(&Value::Null)
}

#[test]
fn every_field_is_edited_and_the_operator_reads_what_is_stored() {
    let api = ApiServer::new();
    // With a member, discovery may be switched off; with a name, records may be switched on.
    let base = json!({
        "members": [{ "name": "cp1", "addresses": ["10.0.0.1"] }],
        "dns": { "external": { "hostname": "api.example.com" } },
    });
    let pool = |spec: &Value| json!({ "metadata": { "name": "default" }, "spec": spec });
    let before = api.admit(&pool(&base), None).unwrap()["spec"].clone();
    let fields = fields(&api);
    assert!(fields.len() > 40, "{fields:?}");
    for Field { path, values } in &fields {
        let mut seen = Vec::new();
        for value in values {
            let mut spec = base.clone();
            edit(&mut spec, path, value, 0);
            let Ok(stored) = api.admit(&pool(&spec), None) else {
                continue;
            };
            let spec: trivet_crds::pool::ApiserverPoolSpec =
                serde_json::from_value(stored["spec"].clone()).unwrap();
            let read = serde_json::to_value(&spec).unwrap();
            let stored = get(&stored["spec"], path).clone();
            let said = without_empty(&stored);
            assert!(
                said.is_null() || is_within(&said, get(&read, path)),
                "spec.{path} is {stored} and is not read"
            );
            if !seen.contains(&stored) && stored != *get(&before, path) {
                seen.push(stored);
            }
        }
        assert!(!seen.is_empty(), "no edit of spec.{path} is accepted: {values:?}");
    }
}

/// Whether all that is said is read. An entry of a list is read with the defaults that it leaves out.
fn is_within(said: &Value, read: &Value) -> bool {
    match (said, read) {
        (Value::Object(said), Value::Object(read)) => said
            .iter()
            .all(|(name, field)| read.get(name).is_some_and(|found| is_within(field, found))),
        (Value::Array(said), Value::Array(read)) => {
            said.len() == read.len() && said.iter().zip(read).all(|(said, read)| is_within(said, read))
        }
        (said, read) => said == read,
    }
}

/// The value without its parts that say nothing: the operator leaves them out where it writes a spec.
fn without_empty(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields
                .iter()
                .map(|(name, field)| (name.clone(), without_empty(field)));
            let fields: serde_json::Map<_, _> = fields.filter(|(_, field)| !field.is_null()).collect();
            if fields.is_empty() {
                Value::Null
            } else {
                fields.into()
            }
        }
        Value::Array(items) if items.is_empty() => Value::Null,
        Value::String(text) if text.is_empty() => Value::Null,
        value => value.clone(),
    }
}

#[test]
fn the_edits_of_affinity_and_listeners_have_every_field_of_them() {
    let api = ApiServer::new();
    let spec = &api.spec()["properties"];
    let known = values();
    let mut missing = Vec::new();
    for (path, schema) in [
        ("proxy.affinity", &spec["proxy"]["properties"]["affinity"]),
        ("listeners", &spec["listeners"]),
    ] {
        let (_, edits) = known.iter().find(|(known, _)| *known == path).unwrap();
        let edits: Vec<_> = edits.as_array().unwrap().iter().collect();
        lacks(path, schema, &edits, &mut missing);
    }
    assert_eq!(missing, Vec::<String>::new());
}

/// Collects the fields of `schema` that none of these values has.
fn lacks(at: &str, schema: &Value, values: &[&Value], found: &mut Vec<String>) {
    if let Some(Value::Object(properties)) = schema.get("properties") {
        for (name, property) in properties {
            let path = format!("{at}.{name}");
            let below: Vec<_> = values.iter().filter_map(|value| value.get(name)).collect();
            if below.is_empty() {
                found.push(path.clone());
            }
            lacks(&path, property, &below, found);
        }
    }
    if let Some(items) = schema.get("items") {
        let below: Vec<_> = values
            .iter()
            .filter_map(|value| value.as_array())
            .flatten()
            .collect();
        lacks(&format!("{at}[]"), items, &below, found);
    }
}
