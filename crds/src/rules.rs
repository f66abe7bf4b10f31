//! All rules of the schemas that types cannot express, in one table for each API.
//!
//! Each message names the field and the remedy, because it is all that a user of `kubectl apply` sees.

/// A CEL rule (KEP-2876) and its place in the schema.
pub(crate) struct Rule {
    /// JSON pointer of the schema node, from the schema's root; `*` is an array's item.
    pub(crate) at: &'static str,
    /// True for a valid value. `oldSelf` makes it a rule about changes.
    pub(crate) cel: &'static str,
    /// The field and the remedy.
    pub(crate) message: &'static str,
}

pub(crate) const RULES: &[Rule] = &[
    Rule {
        at: "",
        cel: "self.metadata.name.size() <= 40",
        message: "metadata.name: at most 40 characters, because the pool's objects are named after it; choose a shorter name",
    },
    Rule {
        at: "",
        cel: "!self.metadata.name.endsWith('-bootstrap')",
        message: "metadata.name: must not end in -bootstrap, because the DaemonSet that writes the manifests of a pool's standbys is named so; choose another name",
    },
    Rule {
        at: "/spec",
        cel: "self.discovery.policy != 'None' || (has(self.members) && self.members.exists(m, (!has(m.state) || m.state == 'Active') && has(m.addresses)))",
        message: "spec.members: with discovery.policy None at least one member must be Active and have an address; add one, or set discovery.policy to Nodes",
    },
    Rule {
        at: "/spec/members",
        cel: "self.all(m, !has(m.addresses) || self.all(n, m.name == n.name || !has(n.addresses) || (has(m.port) ? m.port : 6443) != (has(n.port) ? n.port : 6443) || !m.addresses.exists(a, a in n.addresses)))",
        message: "spec.members: two members have the same address and port; list each apiserver once, with all of its addresses",
    },
    Rule {
        at: "/spec/members/*/addresses",
        cel: "self.all(a, isIP(a) ? !(ip(a).isUnspecified() || ip(a).isLoopback() || ip(a).isLinkLocalUnicast() || ip(a).isLinkLocalMulticast()) && !a.matches('^(22[4-9]|23[0-9])[.]|^[fF][fF]') : a.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$') && !a.matches('^[0-9.]+$') && a != 'localhost')",
        message: "spec.members[].addresses: each must be an IP address (not loopback, unspecified, link-local or multicast) or a lower-case DNS name under which the nodes reach the apiserver, without scheme and port; the port goes into port",
    },
    Rule {
        at: "/spec/discovery",
        cel: "self.policy == 'Nodes' || !has(self.nodeSelector) || self.nodeSelector.size() == 0",
        message: "spec.discovery.nodeSelector: only with policy Nodes; remove it, or set policy to Nodes",
    },
    Rule {
        at: "/spec/listeners",
        cel: "self.exists(l, l.name == 'apiserver') && self.all(l, (l.name == 'apiserver') == (!has(l.kind) || l.kind == 'Apiserver'))",
        message: "spec.listeners: exactly one entry is of kind Apiserver, and its name is apiserver; keep it, and give every other entry a name of its own with kind TLS or HTTPS",
    },
    Rule {
        at: "/spec/listeners",
        cel: "self.all(l, self.all(m, l.name == m.name || (has(l.port) ? l.port : 7443) != (has(m.port) ? m.port : 7443)))",
        message: "spec.listeners: two entries have the same port; give each a port of its own (without port it is 7443)",
    },
    Rule {
        at: "/spec/listeners/*/name",
        cel: "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
        message: "spec.listeners[].name: lower-case letters, digits and hyphens, such as konnectivity; choose such a name",
    },
    Rule {
        at: "/spec/listeners/*",
        cel: "(!has(self.kind) || self.kind == 'Apiserver') ? !has(self.memberPort) : (has(self.port) && has(self.memberPort))",
        message: "spec.listeners[].memberPort: an entry of kind TLS or HTTPS needs port and memberPort, and the entry apiserver has no memberPort, because its members have ports; set both, or remove memberPort",
    },
    Rule {
        at: "/spec/listeners/*",
        cel: "!has(self.balancing) || self.balancing == 'LeastConnections' || (has(self.kind) && self.kind != 'Apiserver')",
        message: "spec.listeners[].balancing: Spread only with kind TLS or HTTPS, because clients of the apiservers need no particular one; remove it",
    },
    Rule {
        at: "/spec/listeners/*",
        cel: "!has(self.healthCheck) || (has(self.kind) && self.kind == 'HTTPS')",
        message: "spec.listeners[].healthCheck: only with kind HTTPS, because the other kinds ask no path; remove it, or set kind to HTTPS",
    },
    Rule {
        at: "/spec/listeners/*",
        cel: "(has(self.port) ? self.port : 7443) == (has(oldSelf.port) ? oldSelf.port : 7443) && [has(self.addresses) ? self.addresses : ['127.0.0.1', '::1']].all(new, [has(oldSelf.addresses) ? oldSelf.addresses : ['127.0.0.1', '::1']].all(old, new.all(a, a in old) && old.all(a, a in new)))",
        message: "spec.listeners: addresses and port are immutable, because kubelets are configured with them; create a second pool with the new ones, move the kubelets there, then delete this pool, or, for an entry beside apiserver, add one with another name, move its clients there, then remove the old one",
    },
    Rule {
        at: "/spec/listeners/*/addresses",
        cel: "self.all(a, isIP(a) && ip(a).isLoopback())",
        message: "spec.listeners[].addresses: only loopback addresses such as 127.0.0.1 and ::1, so that no other host can use the proxy",
    },
    Rule {
        at: "/spec/healthCheck/tlsServerName",
        cel: "isIP(self) || (self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$') && !self.matches('^[0-9.]+$'))",
        message: "spec.healthCheck.tlsServerName: must be a lower-case DNS name or an IP address that the certificates of all apiservers have, without scheme and port",
    },
    Rule {
        at: "/spec/healthCheck",
        cel: "self.timeoutMilliseconds <= self.periodMilliseconds",
        message: "spec.healthCheck.timeoutMilliseconds: at most periodMilliseconds; lower it, or raise the period",
    },
    Rule {
        at: "/spec/proxy/metrics/address",
        cel: "isIP(self)",
        message: "spec.proxy.metrics.address: must be an IP address, such as 127.0.0.1, or 0.0.0.0 for all of the node's",
    },
    Rule {
        at: "/spec/proxy/metrics",
        cel: "self.exposure != 'Node' || (isIP(self.address) && ip(self.address).isLoopback())",
        message: "spec.proxy.metrics.address: with exposure Node it must be a loopback address, because the metrics are served at the node's own addresses with authentication; set it to 127.0.0.1, or set exposure to Loopback",
    },
    Rule {
        at: "/spec/proxy/nodeSelector",
        cel: "!('kubernetes.io/os' in self) || self['kubernetes.io/os'] == 'linux'",
        message: "spec.proxy.nodeSelector: proxies run on Linux nodes only; remove kubernetes.io/os",
    },
    Rule {
        at: "/spec/proxy/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/*",
        cel: "(has(self.matchExpressions) && self.matchExpressions.size() > 0) || (has(self.matchFields) && self.matchFields.size() > 0)",
        message: "spec.proxy.affinity: a term without matchExpressions and matchFields matches no node; remove it, or give it a requirement",
    },
    Rule {
        at: "/spec/proxy/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/*/matchExpressions/*",
        cel: "self.operator in ['Exists', 'DoesNotExist'] ? (!has(self.values) || self.values.size() == 0) : self.operator in ['Gt', 'Lt'] ? (has(self.values) && self.values.size() == 1 && self.values[0].matches('^-?[0-9]+$')) : (has(self.values) && self.values.size() > 0)",
        message: "spec.proxy.affinity: In and NotIn need values, Gt and Lt one whole number, Exists and DoesNotExist none; correct values of the requirement",
    },
    Rule {
        at: "/spec/proxy/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/*/matchFields/*",
        cel: "self.key == 'metadata.name' && self.operator in ['In', 'NotIn'] && has(self.values) && self.values.size() == 1",
        message: "spec.proxy.affinity: matchFields compares metadata.name, by In or NotIn with one value; for labels use matchExpressions",
    },
    Rule {
        at: "/spec/nodeBootstrap/manifestPath",
        cel: "self.matches('^(/[A-Za-z0-9][-._A-Za-z0-9]*){2,8}$')",
        message: "spec.nodeBootstrap.manifestPath: must be an absolute path without a slash at its end, such as /etc/kubernetes/manifests, in which each part begins with a letter or a digit; take the staticPodPath of the nodes' kubelets",
    },
    Rule {
        at: "",
        cel: "!has(self.spec) || !has(self.spec.dns) || !has(self.spec.dns.service) || !has(self.spec.dns.service.policy) || self.spec.dns.service.policy != 'Enabled' || has(self.spec.dns.service.name) || self.metadata.name.matches('^[a-z][-a-z0-9]*$')",
        message: "spec.dns.service.name: required for a pool whose own name has a dot or begins with a digit, because a Service cannot be named after it; set a name",
    },
    Rule {
        at: "/spec/dns/service/name",
        cel: "self.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        message: "spec.dns.service.name: must be the name of a Service: lower-case letters, digits and -, beginning with a letter and ending with a letter or a digit",
    },
    Rule {
        at: "/spec/dns/external",
        cel: "self.policy != 'Enabled' || has(self.hostname)",
        message: "spec.dns.external.hostname: required with policy Enabled; set the DNS name of the records, in a zone that external-dns manages",
    },
    Rule {
        at: "/spec/dns/external/hostname",
        cel: "self.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?([.][a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)+$') && !self.matches('^[0-9.]+$')",
        message: "spec.dns.external.hostname: must be a lower-case DNS name with its zone, such as api.example.com, without a dot at its end",
    },
];

/// How server-side apply merges a list, and what makes its entries unique.
pub(crate) enum List {
    /// One entry for each value of this field.
    Map(&'static str),
    /// Each value once.
    Set,
}

/// The lists that have an identity, by the JSON pointer of their schema node.
pub(crate) const LISTS: &[(&str, List)] = &[
    ("/spec/members", List::Map("name")),
    ("/spec/members/*/addresses", List::Set),
    ("/spec/listeners", List::Map("name")),
    ("/spec/listeners/*/addresses", List::Set),
    ("/status/conditions", List::Map("type")),
    ("/status/members", List::Map("name")),
];

pub(crate) const REPORT_RULES: &[Rule] = &[
    // Without it the proxy of one node could take the name of another node's report.
    Rule {
        at: "",
        cel: "self.poolName.size() + self.nodeName.size() >= 253 ? self.metadata.name.startsWith(self.poolName + '.') : self.metadata.name == self.poolName + '.' + self.nodeName",
        message: "metadata.name: must be poolName and nodeName with a dot between them; only the proxies write reports",
    },
    Rule {
        at: "/poolName",
        cel: "self == oldSelf",
        message: "poolName: immutable; delete this report, and its proxy writes it anew",
    },
    Rule {
        at: "/nodeName",
        cel: "self == oldSelf",
        message: "nodeName: immutable; delete this report, and its proxy writes it anew",
    },
];

pub(crate) const REPORT_LISTS: &[(&str, List)] = &[
    ("/listeners", List::Map("address")),
    ("/members", List::Map("name")),
    ("/warnings", List::Map("reason")),
];
