use serde_json::{Value, json};
use trivet_crds::wire::Document;

use super::{seed::Parts, *};

const NOW: u64 = 1_800_000_000;

fn authorities() -> String {
    let example = Document::parse(include_str!("../../../examples/pool.json")).unwrap();
    example.tls.ca_bundle
}

fn parts() -> Parts {
    Parts {
        pool: "default".parse().unwrap(),
        members: vec![
            "master-1=10.0.0.11".parse().unwrap(),
            "master-2=10.0.0.12:6443,[fd00::12]:6443".parse().unwrap(),
        ],
        listen: vec!["127.0.0.1:7443".parse().unwrap(), "[::1]:7443".parse().unwrap()],
        authorities: authorities(),
        tls_server_name: "kubernetes".to_owned(),
        nodes: 100,
    }
}

fn standby(platform: Platform) -> Standby {
    let checked = seed::from_parts(parts(), NOW).unwrap();
    Standby {
        pool: checked.pool,
        image: "registry.example/trivet-proxy:0.1.0".parse().unwrap(),
        namespace: "trivet-system".parse().unwrap(),
        seed: Some(checked.seed),
        author: Author::Command,
        zone: None,
        output: Output::default(),
        drain_timeout_seconds: checked.drain_timeout_seconds,
        confinement: Confinement::default(),
        platform,
    }
}

/// As the operator has it written on a node of its cluster.
fn of_the_cluster() -> Standby {
    Standby {
        seed: None,
        author: Author::Writer,
        zone: Some("eu-1a".parse().unwrap()),
        output: Output {
            metrics_address: Some("127.0.0.1:7444".parse().unwrap()),
            log_level: Some(Level::DEBUG),
            log_format: Some(LogFormat::Json),
        },
        drain_timeout_seconds: 5,
        ..standby(Platform::Kubelet)
    }
}

fn pod() -> Value {
    pod_of(&standby(Platform::Kubelet))
}

fn pod_of(standby: &Standby) -> Value {
    serde_saphyr::from_str(&render(standby).unwrap().text).unwrap()
}

fn seed_of(pod: &Value) -> &str {
    let env = pod["spec"]["containers"][0]["env"].as_array().unwrap();
    let seed = env.iter().find(|variable| variable["name"] == "TRIVET_SEED");
    seed.unwrap()["value"].as_str().unwrap()
}

#[test]
fn manifest() {
    insta::assert_snapshot!(render(&standby(Platform::Kubelet)).unwrap().text);
}

#[test]
fn manifest_for_talos() {
    insta::assert_snapshot!(render(&standby(Platform::Talos)).unwrap().text);
}

#[test]
fn manifest_of_a_node_of_a_cluster() {
    insta::assert_snapshot!(render(&of_the_cluster()).unwrap().text);
}

/// What kubelet refuses in a static pod (`HasAPIObjectReference`).
#[test]
fn nothing_in_the_manifest_refers_to_an_object_of_the_api() {
    const REFUSED: [&str; 13] = [
        "configMap",
        "configMapKeyRef",
        "configMapRef",
        "csi",
        "ephemeral",
        "imagePullSecrets",
        "persistentVolumeClaim",
        "projected",
        "resourceClaims",
        "secret",
        "secretKeyRef",
        "secretRef",
        "serviceAccountName",
    ];
    fn keys(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                for (key, field) in fields {
                    found.push(key.clone());
                    keys(field, found);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| keys(item, found)),
            _ => {}
        }
    }
    for pod in [pod(), pod_of(&of_the_cluster())] {
        let mut found = Vec::new();
        keys(&pod, &mut found);
        for key in found {
            assert!(!REFUSED.contains(&key.as_str()), "{key}");
            assert!(!key.to_lowercase().contains("serviceaccount"), "{key}");
        }
        for volume in pod["spec"]["volumes"].as_array().unwrap() {
            let kinds: Vec<_> = volume
                .as_object()
                .unwrap()
                .keys()
                .filter(|key| *key != "name")
                .collect();
            assert!(["hostPath", "emptyDir"].contains(&kinds[0].as_str()), "{kinds:?}");
        }
    }
}

#[test]
fn a_standby_is_confined_as_the_proxies_of_its_pool_are() {
    let security = |app_armor: &str, kind: Option<&str>, level: Option<&str>| {
        let confinement = Confinement {
            app_armor: app_armor.parse().unwrap(),
            se_linux_type: kind.map(|kind| kind.parse().unwrap()),
            se_linux_level: level.map(|level| level.parse().unwrap()),
        };
        let pod = pod_of(&Standby {
            confinement,
            ..of_the_cluster()
        });
        let context = &pod["spec"]["securityContext"];
        (
            context["appArmorProfile"].clone(),
            context["seLinuxOptions"].clone(),
        )
    };
    assert_eq!(
        security("RuntimeDefault", Some("container_t"), None),
        (json!({"type": "RuntimeDefault"}), json!({"type": "container_t"}))
    );
    assert_eq!(
        security("Localhost/trivet", None, Some("s0:c1,c2")),
        (
            json!({"type": "Localhost", "localhostProfile": "trivet"}),
            json!({"level": "s0:c1,c2"})
        )
    );
    assert_eq!(security("Unconfined", None, None).1, json!({}));
}

#[test]
fn the_seed_is_read_from_the_manifest_as_it_was_written() {
    let pod = pod();
    let document = Document::parse(seed_of(&pod)).unwrap();
    assert_eq!(document.revision, 1);
    assert_eq!(document.members.len(), 2);
    assert_eq!(document.tls.ca_bundle, authorities());
}

#[test]
fn a_seed_keeps_the_fields_of_later_releases_and_is_not_expanded_by_kubelet() {
    let later = r#"{"later": "$(NODE_NAME) $$"}"#;
    let with_later = Standby {
        seed: Some(Seed::new(later.to_owned())),
        ..standby(Platform::Kubelet)
    };
    let pod = pod_of(&with_later);
    assert!(!seed_of(&pod).contains('$'));
    let read: Value = serde_json::from_str(seed_of(&pod)).unwrap();
    assert_eq!(read["later"], "$(NODE_NAME) $$");
}

#[test]
fn another_content_has_another_name_and_the_same_content_the_same() {
    let name = |standby: &Standby| render(standby).unwrap().name;
    let one = standby(Platform::Kubelet);
    assert_eq!(name(&one), name(&one.clone()));
    let newer = Standby {
        image: "registry.example/trivet-proxy:0.2.0".parse().unwrap(),
        ..one.clone()
    };
    assert_ne!(name(&one), name(&newer));
    let other_seed = Standby {
        seed: Some(Seed::new("{}".to_owned())),
        ..one.clone()
    };
    assert_ne!(name(&one), name(&other_seed));
    let Manifest { name, .. } = render(&one).unwrap();
    assert_eq!(name.to_string(), format!("trivet-default-{}", name.template()));
    assert_eq!(ManifestName::of_file(&name.file()), Some(name));
}

#[test]
fn the_seed_of_the_writer_is_no_part_of_the_name() {
    let seeded = Standby {
        seed: standby(Platform::Kubelet).seed,
        ..of_the_cluster()
    };
    let (without, with) = (render(&of_the_cluster()).unwrap(), render(&seeded).unwrap());
    assert_eq!(without.name, with.name);
    assert_eq!(without_seed(&with.text), without.text.trim_end());
    let document = Document::parse(seed_of(&pod_of(&seeded))).unwrap();
    assert_eq!(document.members.len(), 2);
}

#[test]
fn a_manifest_stays_with_another_seed_and_is_mended_where_it_is_broken() {
    let directory = tempfile::tempdir().unwrap();
    let opened = directory::ManifestDirectory::open(directory.path()).unwrap();
    let seeded = |seed: Option<&str>| {
        let seed = seed.map(|seed| Seed::new(seed.to_owned()));
        render(&Standby {
            seed,
            ..of_the_cluster()
        })
        .unwrap()
    };
    let first = seeded(Some("{\n\n  \"a\": 1\n}"));
    let file = directory.path().join(first.name.file());
    let read = || std::fs::read_to_string(&file).unwrap();
    assert!(opened.write(&first).unwrap());
    for other in [None, Some("{}"), Some("{\n  \"b\": 2\n}")] {
        assert!(!opened.write(&seeded(other)).unwrap(), "{other:?}");
        assert_eq!(read(), first.text);
    }
    std::fs::write(
        &file,
        first.text.replace("hostNetwork: true", "hostNetwork: false"),
    )
    .unwrap();
    assert!(opened.write(&seeded(None)).unwrap());
    assert_eq!(read(), seeded(None).text);
}

#[test]
fn a_standby_is_named_by_its_manifest_and_knows_it() {
    let pod = pod();
    let Manifest { name, .. } = render(&standby(Platform::Kubelet)).unwrap();
    assert_eq!(pod["metadata"]["name"], name.to_string());
    let env = pod["spec"]["containers"][0]["env"].as_array().unwrap();
    assert!(env.contains(&json!({"name": "TRIVET_TEMPLATE", "value": name.template()})));
}

/// Kubelet's YAML is that of version 1.1, in which these are no strings unless they are quoted.
#[test]
fn a_name_that_looks_like_another_type_stays_a_string() {
    for name in ["on", "no", "y", "1e3", "0x1f", "1.5", "null", "12345678"] {
        let odd = Standby {
            pool: name.parse().unwrap(),
            ..standby(Platform::Kubelet)
        };
        let text = render(&odd).unwrap().text;
        assert!(
            text.contains(&format!("trivet.dev/standby-of: \"{name}\"\n")),
            "{text}"
        );
    }
}

#[test]
fn what_a_proxy_would_reject_is_told_with_its_rule() {
    let error = |change: fn(&mut Parts)| {
        let mut parts = parts();
        change(&mut parts);
        seed::from_parts(parts, NOW).unwrap_err().to_string()
    };
    for (words, change) in [
        (
            "--member 10.0.0.11:6443 must be the address of one member only",
            { |parts| parts.members.push("other=10.0.0.11".parse().unwrap()) } as fn(&mut Parts),
        ),
        ("members[2].name is \"master-1\"", |parts| {
            parts.members.push("master-1=10.0.0.13".parse().unwrap());
        }),
        ("--listen [::1]:7444 must have the port", |parts| {
            parts.listen[1].set_port(7444);
        }),
        ("listeners[0].addresses is 10.0.0.1: must be loopback", |parts| {
            parts.listen[0].set_ip("10.0.0.1".parse().unwrap());
        }),
        ("listeners[0].port is 443: must be 1024", |parts| {
            parts.listen = vec!["127.0.0.1:443".parse().unwrap()];
        }),
        ("tls.caBundle must hold", |parts| {
            parts.authorities = "no certificate".to_owned();
        }),
        ("must have at most 122880", |parts| {
            parts.authorities = parts.authorities.repeat(200);
        }),
    ] {
        let error = error(change);
        assert!(error.contains(words), "{error}");
    }
}
