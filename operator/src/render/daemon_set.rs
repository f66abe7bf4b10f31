//! The DaemonSet of the proxies.
//!
//! Its template depends on the pool's name and `spec.proxy` alone, never on members. An edit of the membership reaches the
//! proxies through the ConfigMap and restarts none of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec, DaemonSetUpdateStrategy, RollingUpdateDaemonSet};
use k8s_openapi::api::core::v1::{
    Container, EmptyDirVolumeSource, EnvVar, ExecAction, HostPathVolumeSource, PodSpec, PodTemplateSpec,
    Probe, SecurityContext, Volume,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use kube::api::ObjectMeta;
use sha2::{Digest, Sha256};
use trivet_crds::pool::{ApiserverPool, MetricsExposure, ProxyTemplate};
use trivet_crds::wire::Document;
use trivet_crds::{POOL_LABEL, TEMPLATE_LABEL, data_plane_name, wire};

use super::pod::{
    CONFIG_DIR, HANDOVER_DIR, PROGRAM, config_mount, config_volume, confined, field, handover_volume, image,
    log_format, log_level, metrics_socket, mount, pod_security, pull_secrets,
};
use super::{Settings, labels};
use crate::plan::Proxies;
use crate::plan::conflict::EVERY_ADDRESS;
use crate::plan::masters::ZONE_LABEL;
use crate::plan::scope::Scope;
use crate::plan::wave::Record;

/// Where the cache on the node's disk and the socket are mounted.
const CACHE_DIR: &str = "/var/lib/trivet";
const RUN_DIR: &str = "/run/trivet";
const SOCKET: &str = "/run/trivet/proxy.sock";

/// The annotation with what the operator notes about rollouts.
pub const ROLLOUT: &str = "trivet.dev/rollout";

/// The label that the DaemonSet controller puts on its pods.
const GENERATION_LABEL: &str = "pod-template-generation";

/// How long a proxy that ends goes on serving while no other takes over.
const LEAVE_SECONDS: u32 = 30;

/// The file to which kubelet writes the service account's token.
const TOKEN_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// How many hexadecimal digits of a template's hash are used.
const HASH_DIGITS: usize = 10;

/// The time that a proxy has after its drain to end by itself.
const DRAIN_MARGIN_SECONDS: u32 = 10;

/// The flag with the address and port of /metrics.
const METRICS_FLAG: &str = "--metrics-address";

/// The variable with the addresses of the node at which a proxy serves /metrics too. It is no flag, because an image of an
/// earlier release would refuse to start with it.
const METRICS_NODE_ADDRESSES: &str = "TRIVET_METRICS_NODE_ADDRESSES";

/// The annotation with the port of /metrics, by which a PodMonitor finds the pods that a Prometheus can scrape.
const METRICS_PORT: &str = "trivet.dev/metrics-port";

/// Where the proxies of a DaemonSet serve /metrics. The addresses of a node are told as the unspecified one.
pub fn metrics_addresses(daemon_set: &DaemonSet) -> Vec<SocketAddr> {
    let pod = daemon_set
        .spec
        .as_ref()
        .and_then(|spec| spec.template.spec.as_ref());
    let Some(container) = pod.and_then(|pod| pod.containers.first()) else {
        return Vec::new();
    };
    let mut args = container.args.iter().flatten();
    let flag = args.find(|arg| *arg == METRICS_FLAG).and_then(|_| args.next());
    let Some(address) = flag.and_then(|value| value.parse::<SocketAddr>().ok()) else {
        return Vec::new();
    };
    let mut variables = container.env.iter().flatten();
    let is_exposed = variables.any(|variable| variable.name == METRICS_NODE_ADDRESSES);
    let of_node = is_exposed.then(|| SocketAddr::new(EVERY_ADDRESS, address.port()));
    std::iter::once(address).chain(of_node).collect()
}

/// The template of the proxies' pods.
#[derive(Clone, Debug)]
pub struct Template {
    /// Ten hexadecimal digits of the hash of its content. It is another one for every change, and the old one again after a
    /// roll-back.
    pub hash: String,
    content: PodTemplateSpec,
}

impl Template {
    /// The template that the spec of `pool` asks for.
    pub fn wanted(pool: &ApiserverPool, settings: &Settings) -> Self {
        let drain_timeout_seconds = pool.spec.connection.drain_timeout_seconds;
        Self::new(
            &pool.name_any(),
            drain_timeout_seconds,
            &pool.spec.proxy,
            settings,
        )
    }

    fn new(pool: &str, drain_timeout_seconds: u32, proxy: &ProxyTemplate, settings: &Settings) -> Self {
        let spec = pod(pool, drain_timeout_seconds, proxy, settings);
        let hash = hash(&spec);
        let mut labels = labels(pool);
        labels.insert(TEMPLATE_LABEL.to_owned(), hash.clone());
        let port = || (METRICS_PORT.to_owned(), proxy.metrics.port.to_string());
        let metadata = ObjectMeta {
            annotations: is_exposed(proxy).then(|| [port()].into()),
            labels: Some(labels),
            ..ObjectMeta::default()
        };
        Self {
            hash,
            content: PodTemplateSpec {
                metadata: Some(metadata),
                spec: Some(spec),
            },
        }
    }
}

/// Whether a Prometheus outside of the node can scrape the proxies.
fn is_exposed(proxy: &ProxyTemplate) -> bool {
    match proxy.metrics.exposure {
        MetricsExposure::Node => true,
        MetricsExposure::Loopback => false,
    }
}

/// Its text is the same for the same pod, because the fields of a struct and the keys of its maps have an order.
fn hash(pod: &PodSpec) -> String {
    let text = serde_json::to_string(pod).unwrap_or_default();
    let digest = format!("{:x}", Sha256::digest(text));
    digest.chars().take(HASH_DIGITS).collect()
}

/// Renders the DaemonSet of the proxies that follow `document`.
pub fn render(document: &Document, proxies: &Proxies, settings: &Settings) -> Result<DaemonSet, wire::Error> {
    let Proxies {
        proxy,
        rollout,
        template,
        record,
    } = proxies;
    let pool = &document.pool;
    let drain_timeout_seconds = document.connection.drain_timeout_seconds;
    let wanted = || Template::new(pool, drain_timeout_seconds, proxy, settings).content;
    let template = template
        .as_ref()
        .map_or_else(wanted, |template| (**template).clone());
    Ok(DaemonSet {
        metadata: ObjectMeta {
            name: Some(data_plane_name(pool)),
            namespace: Some(settings.namespace.clone()),
            labels: Some(labels(pool)),
            annotations: annotations(record)?,
            ..ObjectMeta::default()
        },
        spec: Some(DaemonSetSpec {
            min_ready_seconds: i32::try_from(rollout.min_ready_seconds).ok(),
            selector: LabelSelector {
                match_labels: Some([(POOL_LABEL.to_owned(), pool.clone())].into()),
                ..LabelSelector::default()
            },
            template,
            update_strategy: Some(DaemonSetUpdateStrategy {
                type_: Some("RollingUpdate".to_owned()),
                // The new proxy is there before the old one ends. Otherwise a kubelet that reaches the API only through its
                // proxy could neither report the end of the old pod nor learn of the new one.
                rolling_update: Some(RollingUpdateDaemonSet {
                    max_unavailable: Some(IntOrString::Int(0)),
                    max_surge: Some(max_surge(&rollout.max_parallel)),
                }),
            }),
            ..DaemonSetSpec::default()
        }),
        ..DaemonSet::default()
    })
}

/// The notes about rollouts, if there are any.
fn annotations(record: &Record) -> Result<Option<BTreeMap<String, String>>, wire::Error> {
    if *record == Record::default() {
        return Ok(None);
    }
    let text = serde_json::to_string(record)?;
    Ok(Some([(ROLLOUT.to_owned(), text)].into()))
}

/// A number of nodes, or a percentage of them.
fn max_surge(max_parallel: &str) -> IntOrString {
    let number = max_parallel.parse().map(IntOrString::Int);
    number.unwrap_or_else(|_| IntOrString::String(max_parallel.to_owned()))
}

fn pod(pool: &str, drain_timeout_seconds: u32, proxy: &ProxyTemplate, settings: &Settings) -> PodSpec {
    let scope = Scope::wanted(proxy);
    let grace = drain_timeout_seconds
        .saturating_add(DRAIN_MARGIN_SECONDS)
        .saturating_add(LEAVE_SECONDS);
    PodSpec {
        affinity: Some(scope.affinity()),
        // Proxies reach members by address, so an outage of the cluster DNS must not matter.
        dns_policy: Some("Default".to_owned()),
        // A proxy has no use for Services as environment variables, and their number grows with the namespace.
        enable_service_links: Some(false),
        host_network: Some(true),
        image_pull_secrets: pull_secrets(proxy, settings),
        node_selector: Some(scope.node_selector),
        priority_class_name: Some(proxy.priority_class_name.clone()),
        security_context: Some(pod_security(proxy)),
        service_account_name: Some(settings.service_account.clone()),
        termination_grace_period_seconds: Some(i64::from(grace)),
        tolerations: Some(scope.tolerations),
        volumes: Some(volumes(pool)),
        containers: vec![container(pool, proxy, settings)],
        ..PodSpec::default()
    }
}

fn container(pool: &str, proxy: &ProxyTemplate, settings: &Settings) -> Container {
    Container {
        name: "proxy".to_owned(),
        image: Some(image(proxy, settings)),
        image_pull_policy: Some(settings.pull_policy.as_str().to_owned()),
        args: Some(args(pool, proxy, settings)),
        env: Some(env(pool, proxy)),
        // Declares no ports: on the host network they become host ports, and the scheduler would then refuse to place the
        // new proxy beside the old one.
        // Each of these probes starts a process in the container, so they are rare once the proxy has started. A startup
        // probe that fails too often restarts the container: "until ready" would restart every proxy in an outage.
        startup_probe: Some(Probe {
            period_seconds: Some(2),
            failure_threshold: Some(60),
            ..probe("startup")
        }),
        readiness_probe: Some(Probe {
            period_seconds: Some(10),
            // While a rollout is under way, the DaemonSet controller replaces a proxy that is not ready at once, on any number
            // of nodes. A machine that answers late for half a minute is no reason.
            failure_threshold: Some(6),
            ..probe("ready")
        }),
        liveness_probe: Some(Probe {
            period_seconds: Some(20),
            failure_threshold: Some(3),
            // A proxy that hangs ends nothing in an orderly way. Kubelet makes two seconds of it.
            termination_grace_period_seconds: Some(1),
            ..probe("live")
        }),
        resources: Some(proxy.resources.clone()),
        security_context: Some(SecurityContext {
            // Root without capabilities owns the cache directory on the node and can do nothing else.
            run_as_user: Some(0),
            ..confined()
        }),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        volume_mounts: Some(vec![
            config_mount(),
            mount("cache", CACHE_DIR),
            mount("run", RUN_DIR),
            mount("handover", HANDOVER_DIR),
        ]),
        ..Container::default()
    }
}

fn env(pool: &str, proxy: &ProxyTemplate) -> Vec<EnvVar> {
    let mut env = vec![
        field("NODE_NAME", "spec.nodeName".to_owned()),
        // Kubernetes copies the label from the node when it binds the pod, by default from 1.35 on (KEP-4742), so a proxy
        // needs no right to read nodes. Without the label the variable is empty. This is no flag, because an image of an
        // earlier release, which spec.proxy.image may name, would refuse to start with it.
        field("NODE_ZONE", format!("metadata.labels['{ZONE_LABEL}']")),
        value("TRIVET_HANDOVER_DIR", HANDOVER_DIR),
        value("TRIVET_CLASS", "DaemonSet"),
        value("TRIVET_POOL", pool),
        field("TRIVET_TEMPLATE", format!("metadata.labels['{TEMPLATE_LABEL}']")),
        field(
            "TRIVET_TEMPLATE_GENERATION",
            format!("metadata.labels['{GENERATION_LABEL}']"),
        ),
    ];
    if is_exposed(proxy) {
        env.push(field(METRICS_NODE_ADDRESSES, "status.hostIPs".to_owned()));
    }
    env
}

/// An environment variable.
fn value(name: &str, value: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: Some(value.to_owned()),
        ..EnvVar::default()
    }
}

fn args(pool: &str, proxy: &ProxyTemplate, settings: &Settings) -> Vec<String> {
    let name = data_plane_name(pool);
    let flags = [
        ("--config", format!("{CONFIG_DIR}/{}", wire::KEY)),
        ("--cache-dir", CACHE_DIR.to_owned()),
        ("--socket", SOCKET.to_owned()),
        ("--watch", format!("{}/{name}", settings.namespace)),
        ("--token-file", TOKEN_FILE.to_owned()),
        ("--node-name", "$(NODE_NAME)".to_owned()),
        (METRICS_FLAG, metrics_socket(proxy)),
        ("--log-level", log_level(proxy.log_level).to_owned()),
        ("--log-format", log_format(proxy.log_format).to_owned()),
    ];
    let flags = flags
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value]);
    std::iter::once("run".to_owned()).chain(flags).collect()
}

/// A probe by our own program. On the host's network another process might answer an HTTP probe.
fn probe(what: &str) -> Probe {
    let command = [PROGRAM, "probe", what, "--socket", SOCKET];
    Probe {
        exec: Some(ExecAction {
            command: Some(command.map(str::to_owned).to_vec()),
        }),
        timeout_seconds: Some(5),
        ..Probe::default()
    }
}

fn volumes(pool: &str) -> Vec<Volume> {
    let volume = |name: &str| Volume {
        name: name.to_owned(),
        ..Volume::default()
    };
    vec![
        config_volume(pool),
        Volume {
            host_path: Some(HostPathVolumeSource {
                path: format!("{CACHE_DIR}/{pool}"),
                type_: Some("DirectoryOrCreate".to_owned()),
            }),
            ..volume("cache")
        },
        Volume {
            // In memory: a disk that is full or hangs must not keep a proxy from starting or from answering its probes.
            empty_dir: Some(EmptyDirVolumeSource {
                medium: Some("Memory".to_owned()),
                size_limit: Some(Quantity("1Mi".to_owned())),
            }),
            ..volume("run")
        },
        handover_volume(pool),
    ]
}
