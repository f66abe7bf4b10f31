//! The static pod. Its fields are those of the DaemonSet's pods where nothing speaks against it, and plain ones: a field
//! that a later kubelet refuses would end the standby at an upgrade.

use serde_json::{Value, json};

use super::{Output, Platform, Standby};

/// The program in the image.
const PROGRAM: &str = "/trivet-proxy";

/// Where the cache, the directory in which the node's proxies meet, and the socket of the probes are mounted.
const CACHE_DIR: &str = "/var/lib/trivet";
const HANDOVER_DIR: &str = "/run/trivet-handover";
const RUN_DIR: &str = "/run/trivet";
const SOCKET: &str = "/run/trivet/proxy.sock";

/// The variable with the seed.
pub(super) const SEED: &str = "TRIVET_SEED";

/// The label with the pool's name. It is not the one by which the operator counts the proxies.
const STANDBY_LABEL: &str = "trivet.dev/standby-of";

/// The number of the priority class `system-node-critical`. Without an API only the number counts: at a graceful shutdown
/// of the node, pods without one end first. With it, the API server accepts the mirror pod only if both agree.
const PRIORITY: u32 = 2_000_001_000;

/// How long the proxy looks for a process that takes its listeners before it drains.
const LEAVE_SECONDS: u32 = 30;

/// The time that a proxy has after its drain to end by itself.
const DRAIN_MARGIN_SECONDS: u32 = 10;

/// The pod with this name and template. The keys are in alphabetical order, so that the text is the same whichever map
/// serde_json uses.
pub(super) fn render(standby: &Standby, name: &str, template: &str) -> Value {
    let pool = standby.pool.as_str();
    let drain = standby.drain_timeout_seconds;
    let grace = drain.saturating_add(LEAVE_SECONDS + DRAIN_MARGIN_SECONDS);
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "labels": {
                "app.kubernetes.io/instance": pool,
                "app.kubernetes.io/name": "trivet-standby",
                STANDBY_LABEL: pool,
            },
            "name": name,
            "namespace": standby.namespace.as_str(),
        },
        "spec": {
            "containers": [container(standby, template)],
            // Proxies reach members by address.
            "dnsPolicy": "Default",
            "enableServiceLinks": false,
            "hostNetwork": true,
            "priority": PRIORITY,
            "priorityClassName": "system-node-critical",
            "securityContext": {
                "appArmorProfile": standby.confinement.app_armor_profile(),
                "seLinuxOptions": standby.confinement.se_linux_options(),
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "terminationGracePeriodSeconds": grace,
            "tolerations": [{"operator": "Exists"}],
            "volumes": [
                host_path("cache", &format!("/var/lib/trivet/{pool}"), standby.platform),
                host_path("handover", &format!("/run/trivet/{pool}"), standby.platform),
                // In memory, so that a full disk of the node does not take the answers to the probes away.
                {"emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}, "name": "run"},
            ],
        },
    })
}

/// The patch that adds the pod to a machine's configuration.
pub(super) fn in_machine_configuration(pod: Value) -> Value {
    json!({"machine": {"pods": [pod]}})
}

fn container(standby: &Standby, template: &str) -> Value {
    json!({
        "args": arguments(standby),
        "env": environment(standby, template),
        "image": standby.image.as_str(),
        "imagePullPolicy": "IfNotPresent",
        "livenessProbe": {
            "exec": {"command": probe("live")},
            "failureThreshold": 3,
            "periodSeconds": 20,
            // A proxy that hangs does not drain: another process of the node takes over when this one is gone. Kubelet
            // makes two seconds of it.
            "terminationGracePeriodSeconds": 1,
            "timeoutSeconds": 5,
        },
        "name": "proxy",
        "readinessProbe": {
            "exec": {"command": probe("ready")},
            "failureThreshold": 6,
            "periodSeconds": 10,
            "timeoutSeconds": 5,
        },
        // Small, because kubelet tries a static pod that does not fit only once.
        "resources": {"requests": {"cpu": "5m", "memory": "16Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": true,
            // Root without capabilities owns its directories on the node and can do nothing else.
            "runAsUser": 0,
        },
        "startupProbe": {
            "exec": {"command": probe("startup")},
            "failureThreshold": 60,
            "periodSeconds": 2,
            "timeoutSeconds": 5,
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"mountPath": CACHE_DIR, "name": "cache"},
            {"mountPath": HANDOVER_DIR, "name": "handover"},
            {"mountPath": RUN_DIR, "name": "run"},
        ],
    })
}

fn arguments(standby: &Standby) -> Vec<String> {
    let Output {
        metrics_address,
        log_level,
        log_format,
    } = &standby.output;
    let flags = [
        ("--cache-dir", Some(CACHE_DIR.to_owned())),
        ("--socket", Some(SOCKET.to_owned())),
        (
            "--metrics-address",
            metrics_address.map(|address| address.to_string()),
        ),
        (
            "--log-level",
            log_level.map(|level| level.as_str().to_lowercase()),
        ),
        (
            "--log-format",
            log_format.map(|format| format.as_str().to_owned()),
        ),
    ];
    let given = flags
        .into_iter()
        .filter_map(|(flag, value)| Some([flag.to_owned(), value?]));
    std::iter::once("run".to_owned()).chain(given.flatten()).collect()
}

fn environment(standby: &Standby, template: &str) -> Vec<Value> {
    let variable = |name: &str, value: &str| json!({"name": name, "value": value});
    let zone = standby
        .zone
        .as_ref()
        .map(|zone| variable("NODE_ZONE", zone.as_str()));
    let seed = standby.seed.as_ref();
    let seed = seed.map(|seed| variable(SEED, &literal(seed.text())));
    [
        Some(json!({"name": "NODE_NAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "spec.nodeName"}}})),
        zone,
        Some(variable("TRIVET_CLASS", "Static")),
        Some(variable("TRIVET_HANDOVER_DIR", HANDOVER_DIR)),
        Some(variable("TRIVET_POOL", standby.pool.as_str())),
        seed,
        Some(variable("TRIVET_TEMPLATE", template)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn probe(what: &str) -> [&str; 5] {
    [PROGRAM, "probe", what, "--socket", SOCKET]
}

/// Talos' kubelet runs in a container and would look for the directory, or make it, in there. Without a type the runtime
/// makes it on the host.
fn host_path(name: &str, path: &str, platform: Platform) -> Value {
    match platform {
        Platform::Kubelet => {
            json!({"hostPath": {"path": path, "type": "DirectoryOrCreate"}, "name": name})
        }
        Platform::Talos => json!({"hostPath": {"path": path}, "name": name}),
    }
}

/// The same JSON without `$`, because kubelet expands `$(NAME)` and `$$` in the values of variables. In JSON the sign can
/// only be inside a string.
fn literal(json: &str) -> String {
    json.trim().replace('$', "\\u0024")
}
