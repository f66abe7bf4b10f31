//! The remover: a DaemonSet whose pods remove what the proxies of a retired pool leave on a node. Pure.
//!
//! It is made of the DaemonSet of the proxies, because no pool says any more how they should be. Its pods need no API server
//! once they run: they wait for the end of the last proxy of their node, and remove its files then. A kubelet that reaches the
//! API only through that proxy could start nothing afterwards.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec};
use k8s_openapi::api::core::v1::{
    Container, ExecAction, HostPathVolumeSource, PodSpec, PodTemplateSpec, Probe, ResourceRequirements,
    SecurityContext, Toleration, Volume,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::ObjectMeta;
use trivet_crds::pool::ProxyTemplate;
use trivet_crds::{
    COMPONENT_LABEL, POOL_LABEL, RETIREMENT, RETIREMENT_COMPONENT, RETIREMENT_LABEL, retirement_name,
};

use super::pod::{PROGRAM, confined, mount, pod_security};
use crate::retire::facts::Begun;

/// The directories of the proxies of all pools on a node, and where the remover sees them. It removes those of its pool, which
/// a mount of them would not allow.
const CACHES: (&str, &str, &str) = ("caches", "/var/lib/trivet", "/state/cache");
const RUNS: (&str, &str, &str) = ("runs", "/run/trivet", "/state/run");

/// Where kubelet's directory is mounted, and the name of its volume.
const MANIFESTS: (&str, &str) = ("manifests", "/manifests");

/// The commands of the proxy's program.
const REMOVE_STANDBY: &str = "remove-standby";
const REMOVE_STATE: &str = "remove-state";

/// Renders the remover. `None` if the proxies in place have no container, which no operator has written.
pub fn render(pool: &str, proxies: &DaemonSet, begun: &Begun) -> Option<DaemonSet> {
    let place = proxies.spec.as_ref()?.template.spec.as_ref()?;
    let proxy = place.containers.first()?;
    let mut of_object = labels(pool);
    of_object.insert(POOL_LABEL.to_owned(), pool.to_owned());
    let note = serde_json::to_string(begun).ok()?;
    Some(DaemonSet {
        metadata: ObjectMeta {
            name: Some(retirement_name(pool)),
            namespace: proxies.metadata.namespace.clone(),
            labels: Some(of_object),
            annotations: Some([(RETIREMENT.to_owned(), note)].into()),
            ..ObjectMeta::default()
        },
        spec: Some(DaemonSetSpec {
            selector: LabelSelector {
                match_labels: Some([(RETIREMENT_LABEL.to_owned(), pool.to_owned())].into()),
                ..LabelSelector::default()
            },
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(labels(pool)),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod(pool, place, proxy, begun.directory.as_deref())),
            },
            ..DaemonSetSpec::default()
        }),
        ..DaemonSet::default()
    })
}

/// The labels of its pods. They are no proxies, so they do not have the label by which those are counted.
fn labels(pool: &str) -> BTreeMap<String, String> {
    let labels = [
        ("app.kubernetes.io/name", "trivet-retirement"),
        ("app.kubernetes.io/instance", pool),
        ("app.kubernetes.io/managed-by", crate::MANAGER),
        (RETIREMENT_LABEL, pool),
        (COMPONENT_LABEL, RETIREMENT_COMPONENT),
    ];
    labels
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

fn pod(pool: &str, place: &PodSpec, proxy: &Container, directory: Option<&str>) -> PodSpec {
    let manifests = directory.map(|directory| host_path(MANIFESTS.0, directory, "Directory"));
    let state = [CACHES, RUNS].map(|(name, path, _)| host_path(name, path, "DirectoryOrCreate"));
    PodSpec {
        affinity: place.affinity.clone(),
        // The API server is none of its business, and a token would be one more to steal.
        automount_service_account_token: Some(false),
        dns_policy: Some("Default".to_owned()),
        enable_service_links: Some(false),
        // So that it starts without a CNI plug-in.
        host_network: Some(true),
        image_pull_secrets: place.image_pull_secrets.clone(),
        node_selector: place.node_selector.clone(),
        priority_class_name: place.priority_class_name.clone(),
        security_context: Some(pod_security(&ProxyTemplate::default())),
        service_account_name: place.service_account_name.clone(),
        // It removes, and does not wait for a successor.
        termination_grace_period_seconds: Some(1),
        // A proxy stays on a node that gets a taint later, and is retired there too.
        tolerations: Some(vec![Toleration {
            operator: Some("Exists".to_owned()),
            ..Toleration::default()
        }]),
        volumes: Some(state.into_iter().chain(manifests).collect()),
        init_containers: directory.map(|_| vec![removes_standby(pool, proxy)]),
        containers: vec![removes_state(pool, proxy)],
        ..PodSpec::default()
    }
}

fn host_path(name: &str, path: &str, type_: &str) -> Volume {
    Volume {
        name: name.to_owned(),
        host_path: Some(HostPathVolumeSource {
            path: path.to_owned(),
            type_: Some(type_.to_owned()),
        }),
        ..Volume::default()
    }
}

/// Removes the manifests, and ends when the standbys have ended.
fn removes_standby(pool: &str, proxy: &Container) -> Container {
    let (_, _, runs) = RUNS;
    let (volume, directory) = MANIFESTS;
    Container {
        args: Some(vec![
            REMOVE_STANDBY.to_owned(),
            format!("--directory={directory}"),
            format!("--pool={pool}"),
            format!("--handover-dir={runs}/{pool}"),
        ]),
        volume_mounts: Some(vec![mount(volume, directory), mount(RUNS.0, runs)]),
        ..container("standby", proxy)
    }
}

/// Waits for the end of the proxies, removes what they leave, and is ready when nothing is left.
fn removes_state(pool: &str, proxy: &Container) -> Container {
    let args = state_args(pool);
    let check = [PROGRAM.to_owned()].into_iter().chain(args.clone());
    Container {
        readiness_probe: Some(Probe {
            exec: Some(ExecAction {
                command: Some(check.chain(["--check".to_owned()]).collect()),
            }),
            period_seconds: Some(3),
            timeout_seconds: Some(5),
            ..Probe::default()
        }),
        args: Some(args),
        volume_mounts: Some([CACHES, RUNS].map(|(name, _, path)| mount(name, path)).into()),
        ..container("state", proxy)
    }
}

fn state_args(pool: &str) -> Vec<String> {
    let ((_, _, caches), (_, _, runs)) = (CACHES, RUNS);
    vec![
        REMOVE_STATE.to_owned(),
        format!("--pool={pool}"),
        format!("--cache-root={caches}"),
        format!("--run-root={runs}"),
    ]
}

fn container(name: &str, proxy: &Container) -> Container {
    let request = |name: &str, quantity: &str| (name.to_owned(), Quantity(quantity.to_owned()));
    Container {
        name: name.to_owned(),
        image: proxy.image.clone(),
        image_pull_policy: proxy.image_pull_policy.clone(),
        // Named, because the policy cannot know what an image starts by itself.
        command: Some(vec![PROGRAM.to_owned()]),
        resources: Some(ResourceRequirements {
            requests: Some([request("cpu", "5m"), request("memory", "16Mi")].into()),
            ..ResourceRequirements::default()
        }),
        security_context: Some(SecurityContext {
            // The directories belong to root. Without capabilities root can write there as their owner, and can do nothing else.
            run_as_user: Some(0),
            ..confined()
        }),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..Container::default()
    }
}

#[cfg(test)]
mod tests {
    use trivet_crds::pool::ApiserverPoolSpec;

    use super::*;
    use crate::render::tests::rendered;

    fn begun(directory: Option<&str>) -> Begun {
        Begun {
            since: 1_796_000_000,
            is_asked: false,
            directory: directory.map(str::to_owned),
        }
    }

    #[test]
    fn a_remover_renders_as_committed() {
        let proxies = rendered(&ApiserverPoolSpec::default()).daemon_set.unwrap();
        let remover = |directory| render("default", &proxies, &begun(directory)).unwrap();
        insta::assert_yaml_snapshot!("remover", remover(Some("/etc/kubernetes/manifests")));
        insta::assert_yaml_snapshot!("remover_without_standbys", remover(None));
    }

    #[test]
    fn a_remover_goes_where_the_proxies_are_with_their_image() {
        let mut spec = ApiserverPoolSpec::default();
        spec.proxy.image = Some("registry.example.com/proxy:1".to_owned());
        spec.proxy.node_selector = [("pool".to_owned(), "a".to_owned())].into();
        spec.proxy.tolerations = Some(Vec::new());
        let proxies = rendered(&spec).daemon_set.unwrap();
        let of = |set: &DaemonSet| set.spec.clone().unwrap().template.spec.unwrap();
        let (before, after) = (
            of(&proxies),
            of(&render("default", &proxies, &begun(None)).unwrap()),
        );
        assert_eq!(before.affinity, after.affinity);
        assert_eq!(before.node_selector, after.node_selector);
        assert_eq!(before.containers[0].image, after.containers[0].image);
        assert!(after.init_containers.is_none(), "no standby was written");
    }

    #[test]
    fn what_is_no_daemon_set_of_proxies_has_no_remover() {
        assert_eq!(render("default", &DaemonSet::default(), &begun(None)), None);
    }
}
