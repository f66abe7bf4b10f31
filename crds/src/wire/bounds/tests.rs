use super::*;
use crate::wire::{Document, Gate, ListenerHealthCheck, tests::document};

/// A change that breaks a bound; the field and the value that the error names; a part of its rule.
type Case = (fn(&mut Document), &'static str, &'static str, &'static str);

const CASES: &[Case] = &[
    (|d| d.pool.clear(), "pool", "\"\"", "1 to 40"),
    (
        |d| d.pool = "p".repeat(41),
        "pool",
        "\"ppppppppppppppppppppppppppppppppppppppppp\"",
        "1 to 40",
    ),
    (
        |d| d.revision = MAX_REVISION + 1,
        "revision",
        "1099511627776",
        "below 2^40",
    ),
    (
        |d| d.revision = u64::MAX,
        "revision",
        "18446744073709551615",
        "below 2^40",
    ),
    (|d| d.members.clear(), "members", "a list of 0", "1 to 64"),
    (|d| grow(d, MAX_MEMBERS + 1), "members", "a list of 65", "1 to 64"),
    (
        |d| d.disabled_members = vec![disabled("cp9", 1); MAX_DISABLED + 1],
        "disabledMembers",
        "a list of 65",
        "64 entries at most",
    ),
    (
        |d| d.further_endpoints = vec!["10.0.0.19:6443".parse().unwrap(); MAX_FURTHER_ENDPOINTS + 1],
        "furtherEndpoints",
        "a list of 17",
        "16 addresses",
    ),
    (
        |d| d.further_endpoints = vec!["10.0.0.19:0".parse().unwrap()],
        "furtherEndpoints[0]",
        "0",
        "1 to 65535",
    ),
    (
        |d| d.further_endpoints = vec!["10.0.0.19:6443".parse().unwrap(), "0.0.0.0:6443".parse().unwrap()],
        "furtherEndpoints[1]",
        "0.0.0.0",
        "unspecified",
    ),
    (
        |d| d.further_endpoints = vec!["127.0.0.1:7443".parse().unwrap()],
        "furtherEndpoints[0]",
        "127.0.0.1",
        "must not be a listener",
    ),
    (
        |d| d.disabled_members = vec![disabled("", 1)],
        "disabledMembers[0].name",
        "\"\"",
        "1 to 253",
    ),
    (
        |d| d.disabled_members = vec![disabled("cp9", 1), disabled("cp1", 1)],
        "disabledMembers[1].name",
        "\"cp1\"",
        "not be the name of a member",
    ),
    (
        |d| d.disabled_members = vec![disabled("cp9", MAX_ADDRESSES + 1)],
        "disabledMembers[0].sockets",
        "a list of 5",
        "4 addresses",
    ),
    (
        |d| {
            let mut disabled = disabled("cp9", 1);
            disabled.sockets.extend(d.members[0].sockets());
            d.disabled_members = vec![disabled];
        },
        "disabledMembers[0].sockets",
        "10.0.0.11:6443",
        "not be the address of a member",
    ),
    (
        |d| d.members[0].name.clear(),
        "members[0].name",
        "\"\"",
        "1 to 253",
    ),
    (
        |d| d.members.push(d.members[0].clone()),
        "members[1].name",
        "\"cp1\"",
        "unique",
    ),
    (
        |d| d.members[0].addresses.clear(),
        "members[0].addresses",
        "a list of 0",
        "1 to 4",
    ),
    (
        |d| d.members[0].addresses = vec![IpAddr::from([10, 0, 0, 1]); 5],
        "members[0].addresses",
        "a list of 5",
        "1 to 4",
    ),
    (|d| d.members[0].port = 0, "members[0].port", "0", "1 to 65535"),
    (
        |d| d.members[0].zone = "z".repeat(64),
        "members[0].zone",
        "\"zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz\"… of 64 bytes",
        "0 to 63",
    ),
    (
        |d| at_listener(d, "127.0.0.1"),
        "members[0].addresses",
        "127.0.0.1",
        "listener",
    ),
    (
        |d| at_listener(d, "::1"),
        "members[0].addresses",
        "::1",
        "listener",
    ),
    (
        |d| at_listener(d, "0.0.0.0"),
        "members[0].addresses",
        "0.0.0.0",
        "unspecified",
    ),
    (
        |d| at_listener(d, "::ffff:127.0.0.1"),
        "members[0].addresses",
        "::ffff:127.0.0.1",
        "IPv4-mapped",
    ),
    (|d| d.listeners.clear(), "listeners", "a list of 0", "1 to 8"),
    (
        |d| d.listeners = vec![d.listeners[0].clone(); MAX_LISTENERS + 1],
        "listeners",
        "a list of 9",
        "1 to 8",
    ),
    (
        |d| d.listeners.push(d.listeners[0].clone()),
        "listeners[1].name",
        "\"apiserver\"",
        "unique",
    ),
    (
        |d| d.listeners[0].addresses.clear(),
        "listeners[0].addresses",
        "a list of 0",
        "1 to 4",
    ),
    (
        |d| d.listeners[0].addresses[1] = IpAddr::from([10, 0, 0, 1]),
        "listeners[0].addresses",
        "10.0.0.1",
        "loopback",
    ),
    (
        |d| d.listeners[0].port = 0,
        "listeners[0].port",
        "0",
        "1024 to 65535",
    ),
    (
        |d| d.listeners = vec![extra("konnectivity", 8132)],
        "listeners",
        "a list of 1",
        "an entry of kind Apiserver",
    ),
    (
        |d| d.listeners.push(extra("konnectivity", 7443)),
        "listeners[1].port",
        "7443",
        "not be that of another listener",
    ),
    (
        |d| {
            let mut extra = extra("konnectivity", 8132);
            extra.member_port = None;
            d.listeners.push(extra);
        },
        "listeners[1].memberPort",
        "absent",
        "the port of the members' servers",
    ),
    (
        |d| {
            let mut extra = extra("konnectivity", 8132);
            extra.member_port = Some(0);
            d.listeners.push(extra);
        },
        "listeners[1].memberPort",
        "0",
        "1 to 65535",
    ),
    (
        |d| d.listeners[0].member_port = Some(6443),
        "listeners[0].memberPort",
        "6443",
        "absent with kind Apiserver",
    ),
    (
        |d| {
            let mut extra = checked("/healthz");
            extra.kind = ListenerKind::Tls;
            d.listeners.push(extra);
        },
        "listeners[1].healthCheck",
        "set",
        "unless the kind is HTTPS",
    ),
    (
        |d| d.listeners.push(checked("")),
        "listeners[1].healthCheck.path",
        "\"\"",
        "1 to 253",
    ),
    (
        |d| d.listeners.push(checked("/a b")),
        "listeners[1].healthCheck.path",
        "\"/a b\"",
        "begin with a slash",
    ),
    (
        |d| d.listeners.push(checked("healthz")),
        "listeners[1].healthCheck.path",
        "\"healthz\"",
        "begin with a slash",
    ),
    // A master's own apiserver is no listener, and its other server is one.
    (
        |d| {
            d.members[0].addresses = vec![IpAddr::from([127, 0, 0, 1])];
            d.listeners.push(extra("konnectivity", 8132));
        },
        "members[0].addresses",
        "127.0.0.1",
        "must not be a listener",
    ),
    (
        |d| d.tls.server_name.clear(),
        "tls.serverName",
        "\"\"",
        "1 to 253",
    ),
    (
        |d| d.tls.server_name = "n".repeat(254),
        "tls.serverName",
        "\"nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn\"… of 254 bytes",
        "1 to 253",
    ),
    (
        |d| d.health_check.period_milliseconds = 1,
        "healthCheck.periodMilliseconds",
        "1",
        "250 to 15000",
    ),
    (
        |d| d.health_check.timeout_milliseconds = 1001,
        "healthCheck.timeoutMilliseconds",
        "1001",
        "at most periodMilliseconds",
    ),
    (
        |d| d.connection.user_timeout_milliseconds = 1 << 31,
        "connection.userTimeoutMilliseconds",
        "2147483648",
        "1000 to 60000",
    ),
    (
        |d| d.connection.keep_alive_seconds = 32_768,
        "connection.keepAliveSeconds",
        "32768",
        "1 to 300",
    ),
    (
        |d| d.rollout.gate.nodes = vec!["w1".to_owned(); MAX_GATE_NODES + 1],
        "rollout.gate.nodes",
        "a list of 65",
        "64 names at most",
    ),
    (
        |d| d.rollout.gate = Gate::of_node(""),
        "rollout.gate.nodes[0]",
        "\"\"",
        "1 to 253",
    ),
];

/// A disabled member with so many addresses.
fn disabled(name: &str, addresses: usize) -> DisabledMember {
    DisabledMember {
        name: name.to_owned(),
        sockets: vec![SocketAddr::from(([10, 0, 9, 1], 6443)); addresses],
    }
}

/// A listener for other servers, which listen on the same port.
fn extra(name: &str, port: u16) -> Listener {
    Listener {
        name: name.to_owned(),
        kind: ListenerKind::Tls,
        member_port: Some(port),
        ..Listener::apiserver(vec![IpAddr::from([127, 0, 0, 1])], port)
    }
}

/// One whose servers are asked this path.
fn checked(path: &str) -> Listener {
    Listener {
        kind: ListenerKind::Https,
        health_check: Some(ListenerHealthCheck {
            path: path.to_owned(),
        }),
        ..extra("supervisor", 9345)
    }
}

/// Gives the document so many members.
fn grow(document: &mut Document, count: usize) {
    let member = document.members[0].clone();
    let named = |index| Member {
        name: format!("cp{index}"),
        ..member.clone()
    };
    document.members = (0..count).map(named).collect();
}

/// Makes the member one at this address and the listener's port.
fn at_listener(document: &mut Document, address: &str) {
    document.members[0].addresses = vec![address.parse().unwrap()];
    document.members[0].port = document.listeners[0].port;
}

fn parsed(document: Document) -> Result<Document, crate::wire::Error> {
    Document::parse(&document.seal().unwrap().to_text().unwrap())
}

/// The document with this number, by its path.
fn with_number(path: &str, value: u32) -> String {
    let mut document = serde_json::to_value(document()).unwrap();
    document["healthCheck"]["periodMilliseconds"] = 15_000.into();
    document["healthCheck"]["timeoutMilliseconds"] = 100.into();
    document.as_object_mut().unwrap().remove("hash");
    let pointer = format!("/{}", path.replace('.', "/"));
    *document.pointer_mut(&pointer).unwrap() = value.into();
    document.to_string()
}

#[test]
fn a_violation_names_field_value_rule_and_way_out() {
    for (change, field, value, rule) in CASES {
        let mut document = document();
        change(&mut document);
        let revision = document.revision;
        let error = parsed(document).unwrap_err();
        assert_eq!(error.reason(), "Invalid", "{field}: {error}");
        let message = error.to_string();
        let start = format!("wire document of revision {revision}: {field} is {value}: ");
        let rest = message
            .strip_prefix(&start)
            .unwrap_or_else(|| panic!("{message}"));
        let (broken, way_out) = rest.split_once("; ").unwrap_or_else(|| panic!("{message}"));
        assert!(broken.contains(rule), "{message}");
        assert!(!way_out.is_empty(), "{message}");
    }
}

#[test]
fn every_number_is_accepted_at_its_bounds_and_rejected_beyond() {
    for (path, bounds, _) in NUMBERS {
        let (least, most) = (*bounds.start(), *bounds.end());
        for value in [least, most] {
            // The longest timeout needs the longest period, and the shortest period the shortest timeout.
            let read = Document::parse(&with_number(path, value));
            assert!(read.is_ok(), "{path} {value}: {read:?}");
        }
        for value in [least.checked_sub(1), Some(most + 1), Some(u32::MAX)]
            .into_iter()
            .flatten()
        {
            let error = Document::parse(&with_number(path, value))
                .unwrap_err()
                .to_string();
            assert!(
                error.contains(&format!("{path} is {value}: must be {least} to {most}")),
                "{error}"
            );
        }
    }
}

#[test]
fn values_at_their_bounds_are_accepted() {
    let within: [fn(&mut Document); 12] = [
        |d| d.revision = MAX_REVISION,
        |d| d.disabled_members = vec![disabled(&"n".repeat(253), MAX_ADDRESSES); MAX_DISABLED],
        |d| d.disabled_members = vec![disabled("cp9", 0)],
        |d| d.further_endpoints = vec!["10.0.0.11:6443".parse().unwrap(); MAX_FURTHER_ENDPOINTS],
        |d| grow(d, MAX_MEMBERS),
        |d| d.members[0].addresses = vec![IpAddr::from([10, 0, 0, 1]); MAX_ADDRESSES],
        |d| d.health_check.timeout_milliseconds = d.health_check.period_milliseconds,
        // A master's own apiserver, beside a listener on another port.
        |d| d.members[0].addresses = vec![IpAddr::from([127, 0, 0, 1])],
        |d| d.rollout.gate.nodes = vec!["n".repeat(253); MAX_GATE_NODES],
        |d| {
            let numbered = (8001_u16..).take(MAX_LISTENERS - 1);
            d.listeners
                .extend(numbered.map(|port| extra(&port.to_string(), port)));
        },
        |d| d.listeners.push(checked(&format!("/{}", "p".repeat(252)))),
        // Two listeners of the apiservers at one address do no harm.
        |d| {
            let mut second = d.listeners[0].clone();
            second.name = "second".to_owned();
            d.listeners.push(second);
        },
    ];
    for change in within {
        let mut document = document();
        change(&mut document);
        let document = document.seal().unwrap();
        assert_eq!(parsed(document.clone()).unwrap(), document);
    }
}

#[test]
fn a_revision_is_at_most_ten_years_ahead_of_the_clock() {
    let now = 1_796_000_000;
    let of = |revision| Document {
        revision,
        ..document()
    };
    for plausible in [0, 7, now, now + 86_400, now + MAX_AHEAD_SECONDS] {
        assert!(of(plausible).check_revision(now).is_ok(), "{plausible}");
    }
    for implausible in [now + MAX_AHEAD_SECONDS + 1, MAX_REVISION] {
        let error = of(implausible).check_revision(now).unwrap_err();
        assert_eq!(error.reason(), "Invalid");
        assert!(
            error
                .to_string()
                .contains(&format!("revision is {implausible}: ")),
            "{error}"
        );
    }
}

/// The CRD's schema has the same bounds: what the API server accepts, proxies follow, and the other way round.
#[cfg(feature = "crd")]
mod schema {
    use serde_json::{Value, json};

    use super::*;

    fn schema(path: &str) -> Value {
        let crd = crate::crdgen::apiserver_pool().unwrap();
        let mut node = crd
            .pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec")
            .unwrap();
        for step in path.split('.') {
            node = match step {
                "*" => &node["items"],
                property => &node["properties"][property],
            };
        }
        node.clone()
    }

    #[test]
    fn the_pool_has_the_same_bounds_for_every_number() {
        for (path, bounds, _) in NUMBERS {
            let schema = schema(path);
            assert_eq!(schema["minimum"], json!(bounds.start()), "{path}");
            assert_eq!(schema["maximum"], json!(bounds.end()), "{path}");
        }
        for (path, bounds) in [
            ("members.*.port", PORT),
            ("listeners.*.port", LISTENER_PORT),
            ("listeners.*.memberPort", PORT),
        ] {
            let schema = schema(path);
            assert_eq!(schema["minimum"], json!(bounds.start()), "{path}");
            assert_eq!(schema["maximum"], json!(bounds.end()), "{path}");
        }
    }

    #[test]
    fn the_table_has_every_number_of_the_pool_that_reaches_proxies() {
        for section in ["healthCheck", "connection"] {
            let schema = schema(section);
            for (name, field) in schema["properties"].as_object().unwrap() {
                let path = format!("{section}.{name}");
                let known = NUMBERS.iter().any(|(known, ..)| *known == path);
                assert_eq!(known, field["type"] == "integer", "{path}");
            }
        }
    }

    #[test]
    fn no_list_and_no_name_of_a_pool_is_longer_than_a_document_allows() {
        for (path, key, most) in [
            ("members.*.addresses", "maxItems", MAX_ADDRESSES),
            ("listeners", "maxItems", MAX_LISTENERS),
            ("listeners.*.addresses", "maxItems", MAX_ADDRESSES),
            ("listeners.*.name", "maxLength", *MEMBER_NAME.end()),
            ("members.*.name", "maxLength", *MEMBER_NAME.end()),
            ("members.*.zone", "maxLength", *ZONE.end()),
        ] {
            let bound = schema(path)[key].as_u64().unwrap();
            assert!(bound <= most as u64, "{path}: {bound}");
        }
        for (path, bounds) in [
            ("members.*.name", MEMBER_NAME),
            ("healthCheck.tlsServerName", SERVER_NAME),
            ("listeners.*.healthCheck.path", CHECK_PATH),
        ] {
            let schema = schema(path);
            assert_eq!(schema["minLength"], json!(bounds.start()), "{path}");
            assert_eq!(schema["maxLength"], json!(bounds.end()), "{path}");
        }
        // The other half of a document's members are discovered.
        let members = schema("members")["maxItems"].as_u64().unwrap();
        assert_eq!(members * 2, MAX_MEMBERS as u64);
        // A disabled one goes by its own name and by that of its node.
        assert_eq!(members * 2, MAX_DISABLED as u64);
    }

    /// Whether the pool's rules accept a member at this address.
    fn accepted_by_pool(address: &str) -> bool {
        let crd = crate::crdgen::apiserver_pool().unwrap();
        let schema = crd.pointer("/spec/versions/0/schema/openAPIV3Schema").unwrap();
        let pool = json!({
            "metadata": { "name": "default" },
            "spec": { "members": [{ "name": "a", "addresses": [address] }] },
        });
        let pool = kube_cel::apply_defaults(schema, &pool);
        kube_cel::Validator::new().validate(schema, &pool, None).is_ok()
    }

    #[test]
    fn both_reject_the_same_addresses_of_members() {
        for address in [
            "10.0.0.1",
            "fd00::1",
            "2001:db8::1",
            "0.0.0.0",
            "::",
            "169.254.0.1",
            "fe80::1",
            "224.0.0.1",
            "239.255.255.255",
            "ff02::1",
            "::ffff:10.0.0.1",
        ] {
            let mut document = document();
            document.members[0].addresses = vec![address.parse().unwrap()];
            assert_eq!(accepted_by_pool(address), parsed(document).is_ok(), "{address}");
        }
    }
}
