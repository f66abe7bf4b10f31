//! Control planes that a master's kubelet runs as static pods, with manifests as kubeadm writes them.
//!
//! The manifest directory alone says which components are static pods: kubelet runs `NAME.yaml` and ignores `.NAME.yaml`,
//! the manifest of one that was killed. The image is the sandbox's; the program is the machine's own, mounted at its path.

use std::fs;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::address::HostName;
use crate::component::Component;
use crate::host::Host;
use crate::{images, provision};

/// kubelet's `staticPodPath`, as its host sees it.
pub(crate) const MANIFESTS: &str = "/etc/kubernetes/manifests";

/// The components that kubeadm runs as static pods, in the order in which they start.
pub(crate) const CONTROL_PLANE: [Component; 4] = [
    Component::Etcd,
    Component::KubeApiserver,
    Component::KubeControllerManager,
    Component::KubeScheduler,
];

/// Whether a program of a host is a static pod, one that was killed included.
pub(crate) fn is_static(host: &Host, program: &str) -> bool {
    visible(host, program).exists() || hidden(host, program).exists()
}

/// Lets a kubelet run a component with this command line, instead of the one that it had.
pub(crate) fn show(host: &Host, component: Component, command_line: &[String]) -> Result<()> {
    let manifest = manifest(component, host.name(), command_line)?;
    let (hidden, visible) = (
        hidden(host, component.program()),
        visible(host, component.program()),
    );
    // JSON is YAML. kubelet must not see half of it: it ends a pod whose manifest it cannot read.
    provision::write(&hidden, &serde_json::to_string_pretty(&manifest)?)?;
    fs::rename(&hidden, &visible).with_context(|| format!("failed to write {}", visible.display()))
}

/// Hides a program's manifest from kubelet, which then ends the pod. Returns whether the program is a static pod.
pub(crate) fn hide(host: &Host, program: &str) -> Result<bool> {
    let (hidden, visible) = (hidden(host, program), visible(host, program));
    match fs::rename(&visible, &hidden) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(hidden.exists()),
        Err(error) => Err(error).with_context(|| format!("failed to rename {}", visible.display())),
    }
}

/// Removes a program's manifest: it is no static pod any more.
pub(crate) fn forget(host: &Host, program: &str) -> Result<()> {
    for path in [visible(host, program), hidden(host, program)] {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("failed to remove {}", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The log of the newest container of a static pod, which kubelet's directories name by namespace, pod and uid.
pub(crate) fn log(host: &Host, component: Component) -> Option<PathBuf> {
    let program = component.program();
    let pod = format!("kube-system_{program}-{}_", host.name());
    let pods = fs::read_dir(host.file("/var/log/pods")).ok()?.flatten();
    pods.filter(|entry| entry.file_name().to_string_lossy().starts_with(&pod))
        .filter_map(|entry| fs::read_dir(entry.path().join(program)).ok())
        .flat_map(Iterator::flatten)
        .filter_map(|log| Some((log.metadata().ok()?.modified().ok()?, log.path())))
        .max()
        .map(|(_, path)| path)
}

fn visible(host: &Host, program: &str) -> PathBuf {
    host.file(MANIFESTS).join(format!("{program}.yaml"))
}

fn hidden(host: &Host, program: &str) -> PathBuf {
    host.file(MANIFESTS).join(format!(".{program}.yaml"))
}

/// The pod of a component, as kubeadm 1.34 writes it but for the image, the mounts, and the grace period, which is that of
/// the testbed's own processes.
fn manifest(component: Component, host: HostName, command_line: &[String]) -> Result<Value> {
    let name = component.program();
    let traits = Traits::of(component, host)
        .with_context(|| format!("{component} belongs to no control plane: it is no static pod"))?;
    let programs = command_line
        .first()
        .and_then(|program| Path::new(program).parent());
    let programs = programs.context("a pod needs a command")?;
    let mounts = [
        ("programs", programs, true),
        ("etc", Path::new("/etc/kubernetes"), true),
    ];
    let mounts = mounts.into_iter().chain(traits.data);
    let (volumes, mounts): (Vec<_>, Vec<_>) = mounts
        .map(|(name, path, read_only)| {
            (
                json!({ "name": name, "hostPath": { "path": path, "type": "Directory" } }),
                json!({ "name": name, "mountPath": path, "readOnly": read_only }),
            )
        })
        .unzip();
    let mut container = json!({
        "name": name,
        "image": images::PAUSE,
        "imagePullPolicy": "IfNotPresent",
        "command": command_line,
        "resources": { "requests": traits.requests },
        "ports": [{ "name": "probe-port", "containerPort": traits.port, "protocol": "TCP" }],
        "livenessProbe": traits.probe(traits.liveness, (10, 10), 8),
        "startupProbe": traits.probe(traits.startup, (10, 10), 24),
        "volumeMounts": mounts,
    });
    if let (Some(path), Some(container)) = (traits.readiness, container.as_object_mut()) {
        container.insert("readinessProbe".to_owned(), traits.probe(path, (0, 1), 3));
    }
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "kube-system",
            "labels": { "component": name, "tier": "control-plane" },
        },
        "spec": {
            "hostNetwork": true,
            "priority": 2_000_001_000,
            "priorityClassName": "system-node-critical",
            "securityContext": { "seccompProfile": { "type": "RuntimeDefault" } },
            "terminationGracePeriodSeconds": component.termination_limit().as_secs(),
            "containers": [container],
            "volumes": volumes,
        },
    }))
}

/// In what the static pods of the components differ.
struct Traits {
    /// Where kubelet probes it.
    address: Ipv4Addr,
    port: u16,
    scheme: &'static str,
    liveness: &'static str,
    /// kubeadm does not probe the readiness of a controller-manager.
    readiness: Option<&'static str>,
    startup: &'static str,
    requests: Value,
    /// The directory that it writes to: the volume's name, the path, and that it is not read-only.
    data: Option<(&'static str, &'static Path, bool)>,
}

impl Traits {
    /// `None` for what is not of the control plane.
    fn of(component: Component, host: HostName) -> Option<Self> {
        let of_kubernetes = |port, cpu| Self {
            address: Ipv4Addr::LOCALHOST,
            port,
            scheme: "HTTPS",
            liveness: "/livez",
            readiness: Some("/readyz"),
            startup: "/livez",
            requests: json!({ "cpu": cpu }),
            data: None,
        };
        Some(match component {
            Component::Etcd => Self {
                scheme: "HTTP",
                startup: "/readyz",
                requests: json!({ "cpu": "100m", "memory": "100Mi" }),
                data: Some(("data", Path::new("/var/lib/etcd"), false)),
                ..of_kubernetes(2381, "")
            },
            Component::KubeApiserver => Self {
                address: host.ipv4(),
                // The audit log.
                data: Some(("logs", Path::new("/var/log"), false)),
                ..of_kubernetes(6443, "250m")
            },
            Component::KubeControllerManager => Self {
                liveness: "/healthz",
                readiness: None,
                startup: "/healthz",
                ..of_kubernetes(10257, "200m")
            },
            Component::KubeScheduler => of_kubernetes(10259, "100m"),
            Component::Containerd | Component::Kubelet | Component::KubeProxy => return None,
        })
    }

    /// A probe every `period` seconds after an initial `delay`.
    fn probe(&self, path: &str, (delay, period): (u32, u32), failures: u32) -> Value {
        json!({
            "httpGet": { "host": self.address, "path": path, "port": "probe-port", "scheme": self.scheme },
            "initialDelaySeconds": delay,
            "periodSeconds": period,
            "timeoutSeconds": 15,
            "failureThreshold": failures,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(component: Component) -> Value {
        let command_line = [format!("/programs/{component}"), "--flag=value".to_owned()];
        manifest(component, "cp3".parse().unwrap(), &command_line).unwrap()
    }

    #[test]
    fn a_static_pod_runs_the_same_command_line_as_the_process() {
        for component in CONTROL_PLANE {
            let pod = pod(component);
            let container = &pod["spec"]["containers"][0];
            assert_eq!(
                container["command"],
                json!([format!("/programs/{component}"), "--flag=value"])
            );
            let paths: Vec<_> = container["volumeMounts"]
                .as_array()
                .unwrap()
                .iter()
                .map(|mount| &mount["mountPath"])
                .collect();
            assert!(paths.contains(&&json!("/programs")), "{paths:?}");
        }
    }

    #[test]
    fn a_static_pod_refers_to_no_object_of_the_api() {
        // kubelet refuses those that do, from 1.34 on.
        for component in CONTROL_PLANE {
            let pod = pod(component).to_string();
            for kind in ["secret", "configMap", "serviceAccount", "persistentVolumeClaim"] {
                assert!(!pod.contains(kind), "{component}: {kind}");
            }
        }
    }

    #[test]
    fn an_apiserver_is_probed_where_kubeadm_probes_it() {
        let pod = pod(Component::KubeApiserver);
        let probe = &pod["spec"]["containers"][0]["readinessProbe"];
        assert_eq!(
            probe["httpGet"],
            json!({ "host": "10.213.0.13", "path": "/readyz", "port": "probe-port", "scheme": "HTTPS" })
        );
        assert_eq!(probe["periodSeconds"], 1);
    }

    #[test]
    fn only_the_control_plane_runs_as_static_pods() {
        let command_line = ["/programs/kubelet".to_owned()];
        assert!(manifest(Component::Kubelet, "cp3".parse().unwrap(), &command_line).is_err());
    }
}
