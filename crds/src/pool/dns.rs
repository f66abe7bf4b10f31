//! The names under which programs that are on no node find the pool's apiservers, and what is published of them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The names under which programs that do not use a node's proxy find the pool's apiservers. They tell where apiservers are;
/// the proxies are what fails over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PoolDns {
    /// A name within the cluster: a headless Service in Trivet's namespace.
    pub service: DnsService,
    /// A name in a DNS zone that external-dns manages: a DNSEndpoint in Trivet's namespace.
    pub external: DnsExternal,
}

/// A headless Service, and the EndpointSlices that the operator writes for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DnsService {
    /// Enabled: the operator keeps a headless Service and its EndpointSlices; an Active member is ready there while most nodes
    /// find it Up. While none is, all Active members are ready there, so that no answer is empty. Disabled: it removes them.
    pub policy: DnsPolicy,
    /// The Service's name. Unset: the pool's name and -apiservers.
    #[schemars(length(min = 1, max = 63))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// The records that external-dns keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DnsExternal {
    /// Enabled: the operator keeps a DNSEndpoint with the addresses of the Active members. An address leaves it after 10 s in
    /// which its member was not Up, and comes back after 30 s in which it was. While no address is left, all of the Active
    /// members are in it. It needs external-dns with --source=crd. Disabled: the operator removes the DNSEndpoint.
    pub policy: DnsPolicy,
    /// The DNS name of the records, in a zone that external-dns manages. Required with policy Enabled.
    #[schemars(length(min = 1, max = 253))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// The time to live of the records: for so long resolvers may give the old answer.
    #[schemars(range(min = 1, max = 86400))]
    pub ttl_seconds: u32,
}

/// Whether a name is published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DnsPolicy {
    #[default]
    #[allow(missing_docs, reason = "the field's documentation tells the policies apart")]
    Disabled,
    #[allow(missing_docs, reason = "the field's documentation tells the policies apart")]
    Enabled,
}

impl Default for DnsExternal {
    fn default() -> Self {
        Self {
            policy: DnsPolicy::Disabled,
            hostname: None,
            ttl_seconds: 30,
        }
    }
}

/// What is published of the pool's apiservers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DnsStatus {
    /// The name within the cluster, to which the cluster's domain is added: the Service, its namespace and svc.
    #[schemars(length(max = 253))]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service_name: String,
    /// The addresses that it resolves to.
    #[schemars(length(max = 256), inner(length(max = 45)))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub service_addresses: Vec<String>,
    /// The name of the records.
    #[schemars(length(max = 253))]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// The addresses that the DNSEndpoint has for it. The condition DNSPublished says whether external-dns has observed them.
    #[schemars(length(max = 256), inner(length(max = 45)))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<String>,
}
