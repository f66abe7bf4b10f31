//! The rendered objects, compared with the golden files beside this one.

use k8s_openapi::api::core::v1::{AppArmorProfile, SELinuxOptions};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use trivet_crds::pool::{
    ApiserverPool, ApiserverPoolSpec, Discovery, DiscoveryPolicy, MetricsExposure, NodeScope,
};

use super::*;
use crate::observe::in_force::current;
use crate::plan::bootstrap::{Target, Task};
use crate::plan::endpoints::further::Further;
use crate::plan::members::Member;
use crate::plan::scope::Scope;
use crate::plan::tests::facts;
use crate::plan::{Facts, Marks, Proxies, Rollout, document};
use crate::render::daemon_set::Template;
use trivet_crds::TEMPLATE_LABEL;
use trivet_crds::pool::{MemberSource, PoolMemberState};

fn settings() -> Settings {
    Settings {
        namespace: "trivet-system".to_owned(),
        image: "trivet.dev/trivet-proxy:0.1.0".to_owned(),
        pull_policy: PullPolicy::IfNotPresent,
        pull_secrets: Vec::new(),
        service_account: "trivet-proxy".to_owned(),
        has_node_bootstrap: true,
        standby_soak: Duration::from_secs(300),
        rollout_soak_seconds: 30,
        retire_after_seconds: 600,
    }
}

fn member(name: &str, address: &str) -> Member {
    Member {
        name: name.to_owned(),
        addresses: vec![address.parse().unwrap()],
        port: 6443,
        state: PoolMemberState::Active,
        zone: String::new(),
        source: MemberSource::Node,
        node_name: name.to_owned(),
        note: String::new(),
    }
}

fn rollout(spec: &ApiserverPoolSpec, members: &[Member]) -> Rollout {
    let listeners = document::listeners(spec).unwrap();
    let pool = ApiserverPool::new("default", spec.clone());
    let facts = Facts {
        template: Template::wanted(&pool, &settings()).hash,
        ..facts()
    };
    let next = document::Next {
        lasting: None,
        revision: 1,
        rollout: wire::RolloutTarget {
            template: facts.template.clone(),
            ..wire::RolloutTarget::default()
        },
        further: Further::default(),
    };
    Rollout {
        document: document::build(&pool, listeners, members, &facts, next).unwrap(),
        later: wire::Later::default(),
        marks: Marks::default(),
        is_written: false,
        version: None,
        writer: None,
        proxies: Some(Proxies::wanted(spec)),
    }
}

pub(super) fn rendered(spec: &ApiserverPoolSpec) -> Desired {
    render(&rollout(spec, &[member("cp1", "10.0.0.11")]), &settings()).unwrap()
}

#[test]
fn an_empty_spec_renders_as_committed() {
    let desired = rendered(&ApiserverPoolSpec::default());
    insta::assert_yaml_snapshot!("config_map", desired.config_map.unwrap());
    insta::assert_yaml_snapshot!("daemon_set", desired.daemon_set.unwrap());
}

#[test]
fn a_spec_with_everything_renders_as_committed() {
    let mut spec = ApiserverPoolSpec::default();
    spec.proxy.node_scope = NodeScope::WorkersOnly;
    spec.proxy.image = Some("registry.example.com/proxy:1".to_owned());
    spec.proxy.node_selector = [("pool".to_owned(), "a".to_owned())].into();
    spec.proxy.tolerations = Some(Vec::new());
    spec.proxy.metrics.address = "::".to_owned();
    spec.proxy.app_armor_profile = AppArmorProfile {
        type_: "Localhost".to_owned(),
        localhost_profile: Some("trivet".to_owned()),
    };
    spec.proxy.se_linux_options = SELinuxOptions {
        type_: Some("trivet_t".to_owned()),
        ..SELinuxOptions::default()
    };
    spec.rollout.max_parallel = "3".to_owned();
    spec.rollout.min_ready_seconds = 60;
    let settings = Settings {
        pull_secrets: vec!["pull".to_owned()],
        pull_policy: PullPolicy::Always,
        ..settings()
    };
    let desired = render(&rollout(&spec, &[member("cp1", "10.0.0.11")]), &settings).unwrap();
    insta::assert_yaml_snapshot!("daemon_set_with_everything", desired.daemon_set.unwrap());
}

#[test]
fn metrics_at_the_nodes_addresses_are_told_by_a_variable_and_an_annotation() {
    let mut spec = ApiserverPoolSpec::default();
    spec.proxy.metrics.exposure = MetricsExposure::Node;
    let desired = rendered(&spec);
    insta::assert_yaml_snapshot!("daemon_set_with_metrics_of_the_node", desired.daemon_set.unwrap());
}

#[test]
fn an_edit_of_the_members_does_not_touch_the_pods() {
    let spec = ApiserverPoolSpec::default();
    let one = render(&rollout(&spec, &[member("cp1", "10.0.0.11")]), &settings()).unwrap();
    let two = render(
        &rollout(&spec, &[member("cp1", "10.0.0.11"), member("cp2", "10.0.0.12")]),
        &settings(),
    )
    .unwrap();
    assert_eq!(one.daemon_set, two.daemon_set);
    assert_ne!(one.config_map, two.config_map);
}

/// The hash that the pods of this DaemonSet are labelled with.
fn template_of(desired: &Desired) -> String {
    let spec = desired.daemon_set.as_ref().unwrap().spec.as_ref().unwrap();
    let metadata = spec.template.metadata.as_ref().unwrap();
    metadata.labels.as_ref().unwrap()[TEMPLATE_LABEL].clone()
}

#[test]
fn the_document_names_the_template_of_the_pods() {
    let spec = ApiserverPoolSpec::default();
    let named = rollout(&spec, &[member("cp1", "10.0.0.11")])
        .document
        .rollout
        .template;
    assert_eq!(named.len(), 10);
    assert_eq!(template_of(&rendered(&spec)), named);
}

#[test]
fn every_edit_of_the_pods_is_another_template_and_a_roll_back_the_earlier_one() {
    let original = ApiserverPoolSpec::default();
    let mut edited = original.clone();
    edited.proxy.image = Some("registry.example.com/proxy:2".to_owned());
    let mut drained_longer = original.clone();
    drained_longer.connection.drain_timeout_seconds += 1;
    let hashes: std::collections::BTreeSet<_> = [&original, &edited, &drained_longer, &original]
        .map(|spec| template_of(&rendered(spec)))
        .into();
    assert_eq!(hashes.len(), 3);
}

#[test]
fn a_document_in_force_is_not_written_again() {
    let rollout = Rollout {
        is_written: true,
        ..rollout(&ApiserverPoolSpec::default(), &[member("cp1", "10.0.0.11")])
    };
    assert!(render(&rollout, &settings()).unwrap().config_map.is_none());
}

#[test]
fn a_rollout_without_proxies_leaves_the_daemon_set_as_it_is() {
    let rollout = Rollout {
        proxies: None,
        ..rollout(&ApiserverPoolSpec::default(), &[member("cp1", "10.0.0.11")])
    };
    let desired = render(&rollout, &settings()).unwrap();
    assert!(desired.config_map.is_some() && desired.daemon_set.is_none());
}

#[test]
fn marks_are_read_back_as_they_were_written() {
    let marks = Marks {
        explicit: ["a".to_owned(), "b".to_owned()].into(),
        named: [("a".to_owned(), vec!["a.example.com".to_owned()])].into(),
        used_permission: "uid/3".to_owned(),
        discovery: Some(Discovery {
            policy: DiscoveryPolicy::EndpointSlices,
            node_selector: [("masters".to_owned(), String::new())].into(),
            ..Discovery::default()
        }),
        unread: [("trivet.dev/of-a-later-release".to_owned(), "x".to_owned())].into(),
    };
    let rollout = Rollout {
        marks: marks.clone(),
        ..rollout(&ApiserverPoolSpec::default(), &[member("cp1", "10.0.0.11")])
    };
    let map = render(&rollout, &settings()).unwrap().config_map.unwrap();
    let pool = ApiserverPool::new("default", ApiserverPoolSpec::default());
    assert_eq!(current(&pool, Some(&map)).marks, marks);
}

#[test]
fn nothing_that_nodes_depend_on_has_an_owner_or_a_finalizer() {
    let Desired {
        config_map,
        daemon_set,
        writer,
    } = rendered_for(&ApiserverPoolSpec::default(), Task::Write);
    for metadata in [
        config_map.unwrap().metadata,
        daemon_set.unwrap().metadata,
        writer.unwrap().metadata,
    ] {
        assert!(metadata.owner_references.is_none());
        assert!(metadata.finalizers.is_none());
    }
}

#[test]
fn no_port_is_declared() {
    let spec = rendered(&ApiserverPoolSpec::default())
        .daemon_set
        .unwrap()
        .spec
        .unwrap()
        .template
        .spec
        .unwrap();
    assert!(spec.containers.iter().all(|container| container.ports.is_none()));
}

#[test]
fn a_rollout_replaces_ready_proxies_first_and_does_not_wait_for_a_lost_node() {
    // With room for a second proxy beside the old one, the DaemonSet controller makes new pods on all nodes up to
    // maxSurge at once, and a pod that never gets ready holds up only its own share.
    let strategy = rendered(&ApiserverPoolSpec::default())
        .daemon_set
        .unwrap()
        .spec
        .unwrap()
        .update_strategy
        .unwrap();
    assert_eq!(strategy.type_.as_deref(), Some("RollingUpdate"));
    let rolling = strategy.rolling_update.unwrap();
    assert_eq!(rolling.max_unavailable, Some(IntOrString::Int(0)));
    assert_eq!(rolling.max_surge, Some(IntOrString::String("10%".to_owned())));
}

/// The objects of this spec, with the writer at this task.
fn rendered_for(spec: &ApiserverPoolSpec, task: Task) -> Desired {
    let rollout = Rollout {
        writer: Some(Target {
            task,
            directory: "/etc/kubernetes/manifests".to_owned(),
        }),
        ..rollout(spec, &[member("cp1", "10.0.0.11")])
    };
    render(&rollout, &settings()).unwrap()
}

fn writer(spec: &ApiserverPoolSpec, task: Task) -> DaemonSet {
    rendered_for(spec, task).writer.unwrap()
}

const TASKS: [Task; 3] = [Task::Write, Task::Remove, Task::Rest];

#[test]
fn the_writer_renders_as_committed() {
    let spec = ApiserverPoolSpec::default();
    for (name, task) in ["writer", "writer_removes", "writer_rests"]
        .into_iter()
        .zip(TASKS)
    {
        insta::assert_yaml_snapshot!(name, writer(&spec, task));
    }
}

#[test]
fn a_pool_that_wants_no_static_pods_has_no_writer() {
    assert!(rendered(&ApiserverPoolSpec::default()).writer.is_none());
}

#[test]
fn the_writer_in_place_is_read_back() {
    let spec = ApiserverPoolSpec::default();
    for task in TASKS {
        let desired = rendered_for(&spec, task);
        let hash = template_of(&desired);
        let (target, template) = bootstrap::in_place(&desired.writer.unwrap()).unwrap();
        assert_eq!((target.task, template), (task, hash));
        assert_eq!(target.directory, "/etc/kubernetes/manifests");
    }
    let proxies = rendered(&spec).daemon_set.unwrap();
    assert_eq!(bootstrap::in_place(&proxies), None);
}

#[test]
fn a_writer_of_a_later_release_counts_as_one_that_has_written() {
    let mut later = writer(&ApiserverPoolSpec::default(), Task::Remove);
    let pod = later.spec.as_mut().unwrap().template.spec.as_mut().unwrap();
    pod.init_containers.as_mut().unwrap()[0].args = Some(vec!["other-manifest".to_owned()]);
    let (target, _) = bootstrap::in_place(&later).unwrap();
    assert_eq!(target.task, Task::Write);
    assert_eq!(target.directory, "/etc/kubernetes/manifests");
}

#[test]
fn a_standby_is_confined_as_the_proxies_are_and_the_writer_is_not() {
    let profile = |type_: &str, name: Option<&str>| AppArmorProfile {
        type_: type_.to_owned(),
        localhost_profile: name.map(str::to_owned),
    };
    let options = |type_: &str, level: &str| SELinuxOptions {
        type_: Some(type_.to_owned()),
        level: Some(level.to_owned()),
        ..SELinuxOptions::default()
    };
    let default = ApiserverPoolSpec::default();
    let cases: [(_, _, &[&str]); 4] = [
        (profile("Unconfined", None), options("spc_t", "s0"), &[]),
        (
            profile("RuntimeDefault", None),
            options("spc_t", "s0"),
            &["--app-armor-profile=RuntimeDefault"],
        ),
        (
            profile("Localhost", Some("trivet")),
            options("trivet_t", "s0"),
            &["--app-armor-profile=Localhost/trivet", "--se-linux-type=trivet_t"],
        ),
        (
            profile("Unconfined", None),
            options("spc_t", "s0:c1"),
            &["--se-linux-level=s0:c1"],
        ),
    ];
    for (app_armor_profile, se_linux_options, wanted) in cases {
        let mut spec = default.clone();
        spec.proxy.app_armor_profile = app_armor_profile;
        spec.proxy.se_linux_options = se_linux_options;
        let pod = |spec: &ApiserverPoolSpec| writer(spec, Task::Write).spec.unwrap().template.spec.unwrap();
        let args = |spec: &ApiserverPoolSpec| pod(spec).init_containers.unwrap()[0].args.clone().unwrap();
        let usual = args(&default);
        let more: Vec<_> = args(&spec)
            .into_iter()
            .filter(|arg| !usual.contains(arg))
            .collect();
        assert_eq!(more, wanted);
        assert_eq!(pod(&spec).security_context, pod(&default).security_context);
    }
}

#[test]
fn the_writer_is_where_the_proxies_are_and_has_their_image() {
    let mut spec = ApiserverPoolSpec::default();
    spec.proxy.node_scope = NodeScope::WorkersOnly;
    spec.proxy.image = Some("registry.example.com/proxy:1".to_owned());
    spec.proxy.tolerations = Some(Vec::new());
    spec.proxy.node_selector = [("pool".to_owned(), "a".to_owned())].into();
    let proxies = rendered(&spec).daemon_set.unwrap();
    for task in [Task::Write, Task::Remove] {
        let writer = writer(&spec, task);
        assert_eq!(Scope::in_force(&writer), Scope::in_force(&proxies));
        let pod = writer.spec.unwrap().template.spec.unwrap();
        let containers = pod.containers.iter().chain(pod.init_containers.iter().flatten());
        for container in containers {
            assert_eq!(container.image.as_deref(), Some("registry.example.com/proxy:1"));
        }
    }
}

#[test]
fn no_pod_of_the_writer_counts_as_a_proxy() {
    let spec = ApiserverPoolSpec::default();
    let proxies = rendered(&spec).daemon_set.unwrap().spec.unwrap();
    let selected = proxies.selector.match_labels.unwrap();
    for task in TASKS {
        let template = writer(&spec, task).spec.unwrap().template;
        let labels = template.metadata.unwrap().labels.unwrap();
        assert!(!labels.contains_key(POOL_LABEL), "{labels:?}");
        assert!(!selected.iter().all(|(key, value)| labels.get(key) == Some(value)));
    }
}

#[test]
fn a_template_that_changes_nothing_for_the_writer_restarts_no_pod_of_it() {
    let original = ApiserverPoolSpec::default();
    let mut edited = original.clone();
    edited.proxy.resources.requests = None;
    let (before, after) = (writer(&original, Task::Write), writer(&edited, Task::Write));
    assert_ne!(before.metadata.labels, after.metadata.labels);
    assert_eq!(before.spec, after.spec);
}

#[test]
fn a_template_in_place_and_the_notes_about_it_are_rendered_as_they_are() {
    use crate::plan::wave::Record;
    let spec = ApiserverPoolSpec::default();
    let mut content = rendered(&spec).daemon_set.unwrap().spec.unwrap().template;
    content.spec.as_mut().unwrap().containers[0].image = Some("earlier:1".to_owned());
    let mut rollout = rollout(&spec, &[member("cp1", "10.0.0.11")]);
    let proxies = rollout.proxies.as_mut().unwrap();
    proxies.template = Some(std::sync::Arc::new(content.clone()));
    proxies.record = Record {
        good: "a".to_owned(),
        ..Record::default()
    };
    let set = render(&rollout, &settings()).unwrap().daemon_set.unwrap();
    assert_eq!(set.spec.unwrap().template, content);
    let annotations = set.metadata.annotations.unwrap();
    assert_eq!(annotations[daemon_set::ROLLOUT], r#"{"good":"a"}"#);
}

/// The pool of the documentation that has a value for every field.
const EVERY_FIELD: &str = include_str!("../../../examples/pool-every-field.yaml");

#[test]
fn every_object_of_a_pool_with_every_field_renders_as_committed() {
    let pool: ApiserverPool = serde_saphyr::from_str(EVERY_FIELD).unwrap();
    let mut spec = pool.spec;
    let off = PoolMemberState::Disabled;
    let entry = |name: &str, state| trivet_crds::pool::PoolMember {
        name: name.to_owned(),
        state,
        ..spec.members[0].clone()
    };
    let entries = [entry("master-8", off), entry("master-9", off)];
    spec.members.extend(entries);
    let of = |name: &str, ips: &[&str], state| Member {
        addresses: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
        zone: "zone-a".to_owned(),
        state,
        ..member(name, "10.0.0.1")
    };
    let members = [
        of("cp1", &["10.0.0.11", "fd00::11"], PoolMemberState::Active),
        of("cp2", &["10.0.0.12"], PoolMemberState::Draining),
        Member {
            node_name: String::new(),
            port: 6444,
            source: MemberSource::Spec,
            ..of("master-4", &["10.0.0.14", "fd00::14"], PoolMemberState::Active)
        },
        of("master-9", &["10.0.0.19"], off),
    ];
    let rollout = Rollout {
        version: Some("7".to_owned()),
        marks: Marks {
            explicit: ["master-4".to_owned(), "master-9".to_owned()].into(),
            named: [("master-4".to_owned(), vec!["api.example.com".to_owned()])].into(),
            used_permission: "uid/3".to_owned(),
            discovery: Some(spec.discovery.clone()),
            ..Marks::default()
        },
        writer: Some(Target {
            task: Task::Write,
            directory: "/etc/kubelet.d".to_owned(),
        }),
        ..rollout(&spec, &members)
    };
    let Desired {
        config_map,
        daemon_set,
        writer,
    } = render(&rollout, &settings()).unwrap();
    let proxies = daemon_set.unwrap();
    let begun = crate::retire::facts::Begun {
        since: 1_796_000_000,
        is_asked: true,
        directory: Some("/etc/kubelet.d".to_owned()),
    };
    let remover = remover::render("default", &proxies, &begun).unwrap();
    insta::assert_yaml_snapshot!("config_map_of_every_field", config_map.unwrap());
    insta::assert_yaml_snapshot!("daemon_set_of_every_field", proxies);
    insta::assert_yaml_snapshot!("writer_of_every_field", writer.unwrap());
    insta::assert_yaml_snapshot!("remover_of_every_field", remover);
}
