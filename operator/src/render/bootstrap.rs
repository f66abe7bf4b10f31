//! The writer: a DaemonSet whose pods write the manifest of a node's standby, or remove it.
//!
//! Its arguments are values of flags and never YAML. The chart's admission policy checks that no other program, image or
//! argument comes near kubelet's directory, so a thief of the operator's token cannot place another pod there.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec, DaemonSetUpdateStrategy, RollingUpdateDaemonSet};
use k8s_openapi::api::core::v1::{
    Container, HostPathVolumeSource, PodSpec, PodTemplateSpec, ResourceRequirements, SecurityContext, Volume,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use kube::api::ObjectMeta;
use trivet_crds::pool::{NodeBootstrap, ProxyTemplate};
use trivet_crds::{
    BOOTSTRAP_COMPONENT, BOOTSTRAP_LABEL, COMPONENT_LABEL, POOL_LABEL, TEMPLATE_LABEL, bootstrap_name,
};

use super::Settings;
use super::pod::{
    HANDOVER_DIR, PROGRAM, config_mount, config_volume, confined, field, handover_volume, image, log_format,
    log_level, metrics_socket, mount, pod_security, pull_secrets,
};
use crate::plan::bootstrap::{Target, Task};
use crate::plan::masters::ZONE_LABEL;
use crate::plan::scope::Scope;
use crate::plan::{Proxies, Rollout};

/// Where kubelet's directory is mounted, and the name of its volume.
const MANIFESTS_DIR: &str = "/manifests";
const MANIFESTS: &str = "manifests";

/// The commands of the proxy's program.
const WRITE: &str = "write-manifest";
const REMOVE: &str = "remove-manifest";

/// A label that no node has: a writer that selects by it has no pods.
const NO_NODE: &str = "trivet.dev/no-node";

/// The user of the container that only waits.
const NOBODY: i64 = 65532;

/// Renders the writer of a pool's manifests.
pub fn render(rollout: &Rollout, proxies: &Proxies, target: &Target, settings: &Settings) -> DaemonSet {
    let document = &rollout.document;
    let pool = &document.pool;
    let name = bootstrap_name(pool);
    let mut labels = labels(pool);
    labels.insert(POOL_LABEL.to_owned(), pool.clone());
    // On the object alone: a template of the proxies that changes nothing here restarts no pod of the writer.
    labels.insert(TEMPLATE_LABEL.to_owned(), document.rollout.template.clone());
    let selected = [BOOTSTRAP_LABEL, COMPONENT_LABEL];
    let selector = self::labels(pool)
        .into_iter()
        .filter(|(key, _)| selected.contains(&key.as_str()));
    DaemonSet {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(settings.namespace.clone()),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        spec: Some(DaemonSetSpec {
            selector: LabelSelector {
                match_labels: Some(selector.collect()),
                ..LabelSelector::default()
            },
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(self::labels(pool)),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod(rollout, &proxies.proxy, target, settings)),
            },
            update_strategy: Some(DaemonSetUpdateStrategy {
                type_: Some("RollingUpdate".to_owned()),
                // No surge: two writers of one node would write into one directory.
                rolling_update: Some(RollingUpdateDaemonSet {
                    max_unavailable: Some(IntOrString::String("10%".to_owned())),
                    max_surge: Some(IntOrString::Int(0)),
                }),
            }),
            ..DaemonSetSpec::default()
        }),
        ..DaemonSet::default()
    }
}

/// The target of a writer in place, and the hash of the proxies' template that it was rendered with. `None` if the operator
/// has not rendered it. What a later release has rendered counts as a writer that writes.
pub fn in_place(writer: &DaemonSet) -> Option<(Target, String)> {
    let pod = writer.spec.as_ref()?.template.spec.as_ref()?;
    let container = pod.init_containers.as_ref().and_then(|all| all.first());
    let args = container.and_then(|container| container.args.as_ref());
    let command = args.and_then(|args| args.first()).map(String::as_str);
    let rests = pod
        .node_selector
        .as_ref()
        .is_some_and(|selector| selector.contains_key(NO_NODE));
    let is_writer = writer.labels().get(COMPONENT_LABEL).map(String::as_str) == Some(BOOTSTRAP_COMPONENT);
    let task = match command {
        Some(REMOVE) if rests => Task::Rest,
        Some(REMOVE) => Task::Remove,
        Some(WRITE) => Task::Write,
        // One of a later release may have written manifests.
        _ if is_writer => Task::Write,
        _ => return None,
    };
    let mut volumes = pod.volumes.iter().flatten();
    let manifests = volumes.find(|volume| volume.name == MANIFESTS);
    let directory = manifests
        .and_then(|volume| volume.host_path.as_ref())
        .map_or_else(
            || NodeBootstrap::default().manifest_path,
            |path| path.path.clone(),
        );
    let template = writer.labels().get(TEMPLATE_LABEL).cloned().unwrap_or_default();
    Some((Target { task, directory }, template))
}

/// The labels of the writer's pods. They are no proxies, so they do not have the label by which those are counted.
fn labels(pool: &str) -> BTreeMap<String, String> {
    let labels = [
        ("app.kubernetes.io/name", "trivet-bootstrap"),
        ("app.kubernetes.io/instance", pool),
        ("app.kubernetes.io/managed-by", crate::MANAGER),
        (BOOTSTRAP_LABEL, pool),
        (COMPONENT_LABEL, BOOTSTRAP_COMPONENT),
    ];
    labels
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

fn pod(rollout: &Rollout, proxy: &ProxyTemplate, target: &Target, settings: &Settings) -> PodSpec {
    let pool = &rollout.document.pool;
    let scope = Scope::wanted(proxy);
    let mut node_selector = scope.node_selector.clone();
    let mut volumes = vec![
        Volume {
            name: MANIFESTS.to_owned(),
            host_path: Some(HostPathVolumeSource {
                path: target.directory.clone(),
                // Where kubelet reads no such directory, a new one would only hide that.
                type_: Some("Directory".to_owned()),
            }),
            ..Volume::default()
        },
        handover_volume(pool),
    ];
    if target.task == Task::Write {
        volumes.push(config_volume(pool));
    }
    if target.task == Task::Rest {
        node_selector.insert(NO_NODE.to_owned(), "true".to_owned());
    }
    PodSpec {
        affinity: Some(scope.affinity()),
        // The API server is none of its business, and a token would be one more to steal.
        automount_service_account_token: Some(false),
        dns_policy: Some("Default".to_owned()),
        enable_service_links: Some(false),
        // So that it starts without a CNI plug-in.
        host_network: Some(true),
        image_pull_secrets: pull_secrets(proxy, settings),
        node_selector: Some(node_selector),
        priority_class_name: Some(proxy.priority_class_name.clone()),
        // Kubelet's directory and the proxies' sockets are not among what a profile for the proxies allows.
        security_context: Some(pod_security(&ProxyTemplate::default())),
        service_account_name: Some(settings.service_account.clone()),
        tolerations: Some(scope.tolerations),
        volumes: Some(volumes),
        init_containers: Some(vec![writing(rollout, proxy, target, settings)]),
        containers: vec![holding(proxy, settings)],
        ..PodSpec::default()
    }
}

/// Changes the directory, once for each start of the pod.
fn writing(rollout: &Rollout, proxy: &ProxyTemplate, target: &Target, settings: &Settings) -> Container {
    let pool = &rollout.document.pool;
    // Both commands ask the process that serves the node: whether the new standby is warm, or whether the node needs none.
    let place = [
        ("directory", MANIFESTS_DIR.to_owned()),
        ("pool", pool.clone()),
        ("handover-dir", HANDOVER_DIR.to_owned()),
    ];
    let mut mounts = vec![mount(MANIFESTS, MANIFESTS_DIR), mount("handover", HANDOVER_DIR)];
    let (command, flags, env) = match target.task {
        Task::Write => {
            let drain = rollout.document.connection.drain_timeout_seconds;
            let standby = [
                ("image", image(proxy, settings)),
                ("namespace", settings.namespace.clone()),
                ("metrics-address", metrics_socket(proxy)),
                ("log-level", log_level(proxy.log_level).to_owned()),
                ("log-format", log_format(proxy.log_format).to_owned()),
                ("drain-timeout-seconds", drain.to_string()),
            ];
            let flags = place
                .into_iter()
                .chain(standby)
                .chain(confinement(proxy))
                .collect::<Vec<_>>();
            // The seed of the standby. The program looks for it by itself: one of an earlier release knows no flag for it.
            mounts.push(config_mount());
            let zone = field("NODE_ZONE", format!("metadata.labels['{ZONE_LABEL}']"));
            (WRITE, flags, Some(vec![zone]))
        }
        Task::Remove | Task::Rest => (REMOVE, place.to_vec(), None),
    };
    let flags = flags.into_iter().map(|(flag, value)| format!("--{flag}={value}"));
    Container {
        args: Some(std::iter::once(command.to_owned()).chain(flags).collect()),
        env,
        security_context: Some(SecurityContext {
            // Kubelet's directory belongs to root. Without capabilities root can write there as its owner, and can do nothing
            // else.
            run_as_user: Some(0),
            ..confined()
        }),
        volume_mounts: Some(mounts),
        ..container("write", proxy, settings)
    }
}

/// The flags for a standby that is confined as the proxies are. Those confined differently cannot hand over to each other. An
/// image of an earlier release does not know these flags, so what is the default is not named.
fn confinement(proxy: &ProxyTemplate) -> Vec<(&'static str, String)> {
    let default = ProxyTemplate::default();
    let (own, profile) = (&proxy.se_linux_options, &proxy.app_armor_profile);
    let name = match &profile.localhost_profile {
        Some(name) => format!("{}/{name}", profile.type_),
        None => profile.type_.clone(),
    };
    let flag = |flag, value: Option<String>, is_default: bool| {
        value.filter(|_| !is_default).map(|value| (flag, value))
    };
    [
        flag(
            "app-armor-profile",
            Some(name),
            *profile == default.app_armor_profile,
        ),
        flag(
            "se-linux-type",
            own.type_.clone(),
            own.type_ == default.se_linux_options.type_,
        ),
        flag(
            "se-linux-level",
            own.level.clone(),
            own.level == default.se_linux_options.level,
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Keeps the pod Ready, so that the DaemonSet's rollout goes on, and mounts nothing.
fn holding(proxy: &ProxyTemplate, settings: &Settings) -> Container {
    Container {
        args: Some(vec!["hold".to_owned()]),
        security_context: Some(SecurityContext {
            run_as_user: Some(NOBODY),
            run_as_group: Some(NOBODY),
            run_as_non_root: Some(true),
            ..confined()
        }),
        ..container("hold", proxy, settings)
    }
}

fn container(name: &str, proxy: &ProxyTemplate, settings: &Settings) -> Container {
    let request = |name: &str, quantity: &str| (name.to_owned(), Quantity(quantity.to_owned()));
    Container {
        name: name.to_owned(),
        image: Some(image(proxy, settings)),
        image_pull_policy: Some(settings.pull_policy.as_str().to_owned()),
        // Named, because the policy cannot know what an image starts by itself.
        command: Some(vec![PROGRAM.to_owned()]),
        resources: Some(ResourceRequirements {
            requests: Some([request("cpu", "5m"), request("memory", "16Mi")].into()),
            ..ResourceRequirements::default()
        }),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..Container::default()
    }
}
