//! What the pods of the proxies and of the writer share.

use std::net::SocketAddr;

use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, EnvVar, EnvVarSource, HostPathVolumeSource, LocalObjectReference,
    ObjectFieldSelector, PodSecurityContext, SeccompProfile, SecurityContext, Volume, VolumeMount,
};
use trivet_crds::data_plane_name;
use trivet_crds::pool::{LogFormat, LogLevel, ProxyTemplate};

use super::Settings;

/// The program in the proxies' image.
pub(super) const PROGRAM: &str = "/trivet-proxy";

/// Where the directory is mounted in which the proxies of a node meet. The socket of the probes is each pod's own.
pub(super) const HANDOVER_DIR: &str = "/run/trivet-handover";

/// Where the ConfigMap with the pool's document is mounted.
pub(super) const CONFIG_DIR: &str = "/etc/trivet";

/// The Secrets with which a node pulls the image.
pub(super) fn pull_secrets(proxy: &ProxyTemplate, settings: &Settings) -> Option<Vec<LocalObjectReference>> {
    let of_operator = || -> Vec<_> {
        settings
            .pull_secrets
            .iter()
            .map(|name| LocalObjectReference { name: name.clone() })
            .collect()
    };
    let secrets = proxy.image_pull_secrets.clone().unwrap_or_else(of_operator);
    (!secrets.is_empty()).then_some(secrets)
}

/// What confines the pods.
pub(super) fn pod_security(proxy: &ProxyTemplate) -> PodSecurityContext {
    PodSecurityContext {
        app_armor_profile: Some(proxy.app_armor_profile.clone()),
        se_linux_options: Some(proxy.se_linux_options.clone()),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            ..SeccompProfile::default()
        }),
        ..PodSecurityContext::default()
    }
}

/// What confines every container.
pub(super) fn confined() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            ..Capabilities::default()
        }),
        read_only_root_filesystem: Some(true),
        ..SecurityContext::default()
    }
}

/// The image of the proxies.
pub(super) fn image(proxy: &ProxyTemplate, settings: &Settings) -> String {
    proxy.image.clone().unwrap_or_else(|| settings.image.clone())
}

/// An environment variable with the value of this field of the pod.
pub(super) fn field(name: &str, field_path: String) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: Some("v1".to_owned()),
                field_path,
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}

/// Where each proxy serves /metrics.
pub(super) fn metrics_socket(proxy: &ProxyTemplate) -> String {
    match proxy.metrics.address.parse() {
        Ok(address) => SocketAddr::new(address, proxy.metrics.port).to_string(),
        Err(_) => format!("{}:{}", proxy.metrics.address, proxy.metrics.port),
    }
}

/// The volume of [`HANDOVER_DIR`].
pub(super) fn handover_volume(pool: &str) -> Volume {
    Volume {
        name: "handover".to_owned(),
        host_path: Some(HostPathVolumeSource {
            path: format!("/run/trivet/{pool}"),
            type_: Some("DirectoryOrCreate".to_owned()),
        }),
        ..Volume::default()
    }
}

/// The volume of [`CONFIG_DIR`].
pub(super) fn config_volume(pool: &str) -> Volume {
    Volume {
        name: "config".to_owned(),
        config_map: Some(ConfigMapVolumeSource {
            name: data_plane_name(pool),
            // A pod must start without it: a proxy reads the cache then.
            optional: Some(true),
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    }
}

/// That volume in a container.
pub(super) fn config_mount() -> VolumeMount {
    VolumeMount {
        read_only: Some(true),
        ..mount("config", CONFIG_DIR)
    }
}

/// A volume at this path of a container.
pub(super) fn mount(name: &str, path: &str) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        ..VolumeMount::default()
    }
}

/// The value of --log-level.
pub(super) fn log_level(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    }
}

/// The value of --log-format.
pub(super) fn log_format(format: LogFormat) -> &'static str {
    match format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    }
}
