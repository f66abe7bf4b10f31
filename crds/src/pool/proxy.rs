//! The proxies' pods: where they run, with what, and what they show.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    AppArmorProfile, LocalObjectReference, ResourceRequirements, SELinuxOptions, Toleration,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ProxyAffinity;

/// The proxies' pods. They always run on the host network of Linux nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyTemplate {
    /// Which nodes get a proxy.
    pub node_scope: NodeScope,
    /// The proxy's image. Unset: the one that belongs to the operator's release.
    #[schemars(length(min = 1, max = 512))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Secrets in Trivet's namespace with which the nodes pull the image. Unset: the operator's own.
    #[schemars(length(max = 8))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_pull_secrets: Option<Vec<LocalObjectReference>>,
    /// Resources of each proxy. No limits by default: a proxy that is throttled or killed takes its node along.
    pub resources: ResourceRequirements,
    /// Only nodes with these labels get a proxy.
    #[schemars(extend("maxProperties" = 16))]
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Which of these nodes get a proxy, where labels alone do not say it.
    pub affinity: ProxyAffinity,
    /// Unset: every taint is tolerated, because a node without a proxy is cut off.
    #[schemars(length(max = 32))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tolerations: Option<Vec<Toleration>>,
    /// The pods' priority class.
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: String,
    /// The pods' AppArmor profile. The default profile of some container runtimes denies the unix sockets by which the proxies
    /// of a node hand over.
    pub app_armor_profile: AppArmorProfile,
    /// The pods' SELinux options. Pods that have categories of their own cannot hand over to each other.
    pub se_linux_options: SELinuxOptions,
    /// The least level that is logged.
    pub log_level: LogLevel,
    /// text for people, json for programs.
    pub log_format: LogFormat,
    /// Where each proxy serves /metrics.
    pub metrics: ProxyMetrics,
}

/// Which nodes get a proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NodeScope {
    #[default]
    #[allow(missing_docs, reason = "the words say it")]
    AllNodes,
    #[allow(missing_docs, reason = "the words say it")]
    WorkersOnly,
}

/// How much the proxies log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the usual levels")]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

/// How the proxies log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the field's documentation tells them apart")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// Where each proxy serves /metrics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyMetrics {
    /// Loopback: only at the address below, without TLS and without authentication. Node: besides at every address of the
    /// node, over TLS, for callers whose token the API server lets GET /metrics. It needs the chart value
    /// monitoring.nodeExposure.enabled.
    pub exposure: MetricsExposure,
    /// An address of the node. 0.0.0.0 or :: lets a Prometheus outside the node scrape it without authentication, and
    /// everyone else too: prefer exposure Node.
    #[schemars(length(min = 2, max = 45))]
    pub address: String,
    /// The port, one for each pool.
    #[schemars(range(min = 1024, max = 65535))]
    pub port: u16,
}

/// Who reads the metrics of the proxies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MetricsExposure {
    #[default]
    #[allow(missing_docs, reason = "the field's documentation tells them apart")]
    Loopback,
    #[allow(missing_docs, reason = "the field's documentation tells them apart")]
    Node,
}

impl Default for ProxyTemplate {
    fn default() -> Self {
        let request = |name: &str, quantity: &str| (name.to_owned(), Quantity(quantity.to_owned()));
        Self {
            node_scope: NodeScope::AllNodes,
            image: None,
            image_pull_secrets: None,
            resources: ResourceRequirements {
                requests: Some([request("cpu", "20m"), request("memory", "32Mi")].into()),
                ..ResourceRequirements::default()
            },
            node_selector: BTreeMap::new(),
            affinity: ProxyAffinity::default(),
            tolerations: None,
            priority_class_name: "system-node-critical".to_owned(),
            app_armor_profile: AppArmorProfile {
                type_: "Unconfined".to_owned(),
                ..AppArmorProfile::default()
            },
            se_linux_options: SELinuxOptions {
                type_: Some("spc_t".to_owned()),
                level: Some("s0".to_owned()),
                ..SELinuxOptions::default()
            },
            log_level: LogLevel::Info,
            log_format: LogFormat::Text,
            metrics: ProxyMetrics::default(),
        }
    }
}

impl Default for ProxyMetrics {
    fn default() -> Self {
        Self {
            exposure: MetricsExposure::Loopback,
            address: "127.0.0.1".to_owned(),
            port: 7444,
        }
    }
}
