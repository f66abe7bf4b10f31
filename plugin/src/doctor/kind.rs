//! Every finding there is: how grave it is, what it means, and the remedy. docs/plugin.md has the same table.

use serde::Serialize;

/// How grave a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Severity {
    /// Something does not work.
    Error,
    /// Something will not work when the next thing fails, or cannot be judged.
    Warning,
    /// Worth knowing; nothing is wrong.
    Note,
}

impl Severity {
    /// The word that is printed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// Makes the kinds from their table: severity, what it means, the remedy. A function cannot: it would repeat every name.
macro_rules! kinds {
    ($($kind:ident: $severity:ident, $means:literal, $remedy:literal;)+) => {
        /// What kind of finding it is. Its name is stable within a major release.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
        pub enum Kind {
            $(#[doc = $means] $kind,)+
        }

        impl Kind {
            /// Every kind, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$kind),+];

            /// Its name.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$kind => stringify!($kind),)+
                }
            }

            /// How grave it is.
            pub fn severity(self) -> Severity {
                match self {
                    $(Self::$kind => Severity::$severity,)+
                }
            }

            /// What it means.
            pub fn means(self) -> &'static str {
                match self {
                    $(Self::$kind => $means,)+
                }
            }

            /// What to do.
            pub fn remedy(self) -> &'static str {
                match self {
                    $(Self::$kind => $remedy,)+
                }
            }
        }
    };
}

kinds! {
    CannotRead: Warning,
        "the plugin cannot read something that it looks at, so it cannot judge it",
        "bind the roles trivet-plugin to yourself, as docs/plugin.md shows";
    KubernetesTooOld: Error,
        "the API server is older than the oldest release that Trivet supports, 1.33",
        "upgrade the cluster";
    CrdMissing: Error,
        "a CustomResourceDefinition of Trivet is not installed",
        "kubectl apply -f crds/ of this release";
    CrdOlder: Warning,
        "a CustomResourceDefinition lacks fields of this release, so the API server drops them",
        "kubectl apply -f crds/ of this release, before the chart is upgraded";
    StoredVersion: Warning,
        "objects are stored in a version of the API that the CustomResourceDefinition no longer serves",
        "write each object once (kubectl get -o yaml, kubectl replace -f), then remove the version from its \
         status.storedVersions";
    PodSecurity: Error,
        "the namespace enforces a Pod Security level that forbids the host network and the host path of the \
         proxies",
        "kubectl label --overwrite namespace NAMESPACE pod-security.kubernetes.io/enforce=privileged";
    OperatorAbsent: Error,
        "no operator runs: proxies go on with what they have, and no edit is followed",
        "kubectl describe the Deployment trivet-operator and its pod; install the chart if it is not there";
    OperatorRights: Error,
        "the operator lacks a right that the chart gives it",
        "helm upgrade with the chart of this release, which puts its roles and bindings back";
    ProxyRights: Warning,
        "the proxies lack a right that the chart gives them: they serve, but follow edits a minute late or \
         write no reports",
        "helm upgrade with the chart of this release, which puts its roles and bindings back";
    PolicyMissing: Warning,
        "an admission policy of the chart is absent or does not deny, so that what it fences is open",
        "helm upgrade with the chart of this release and admissionPolicies.enabled; see docs/operations.md";
    KubeProxyBypasses: Warning,
        "kube-proxy's ConfigMap names another server than a listener of Trivet, so kube-proxy stays with \
         one apiserver when that dies",
        "write the listener (server: https://127.0.0.1:7443) and tls-server-name: kubernetes into the \
         ConfigMap kube-system/kube-proxy, and restart kube-proxy";
    LeftOver: Note,
        "a DaemonSet runs for a pool that is deleted: its proxies go on, and nobody updates them",
        "create a pool of this name, which adopts them, or see Leaving in docs/operations.md";
    NoPool: Warning,
        "there is no ApiserverPool, so no node has a proxy",
        "kubectl apply -f examples/pool-default.yaml";
    NotAccepted: Error,
        "the operator does not obey the spec; the last good one stays in force",
        "what the message says; look at kubectl trivet plan before the next edit";
    PortConflict: Error,
        "a port of the pool is taken by another pool or by an apiserver",
        "give one of them another port; that of a listener never changes, so the pool must be a new one";
    NotFollowed: Error,
        "the operator has not seen the newest spec for more than a minute",
        "see OperatorAbsent and OperatorRights, then the operator's log";
    ProxiesUnavailable: Error,
        "not every Ready node has an available proxy",
        "what the message says, in the words of the API server or kubelet";
    Stands: Warning,
        "proxies or standbys are not on their way to what the spec wants",
        "what the message says; docs/operations.md explains each reason";
    CertificateNames: Note,
        "the apiservers' certificates do not cover what clients of the listener ask for",
        "write tls-server-name: kubernetes into kubeconfigs that use the listener, or add its address to \
         the certificates (certSANs)";
    CertificateUnknown: Note,
        "nobody has told what the apiservers' certificates cover",
        "nothing, if every kubeconfig that uses the listener has tls-server-name: kubernetes";
    CertificateInvalid: Error,
        "an apiserver's certificate is out of its dates, or not of the cluster's authority, so clients refuse \
         that member",
        "what the message says; docs/runbooks.md, TrivetCertificateExpires and TrivetCertificateRefused";
    CertificateExpires: Warning,
        "an apiserver's certificate ends within 30 days",
        "kubeadm certs renew all on its master, then restart its apiserver";
    OneMember: Warning,
        "the pool has one active member: when it dies there is no other",
        "add masters, or list them in spec.members";
    PulledAtEveryStart: Warning,
        "the proxies' image is pulled at every start, so a node that cannot reach the registry gets no \
         proxy",
        "set proxy.image.pullPolicy of the chart to IfNotPresent";
    ImageMoves: Warning,
        "an image has no tag, or the tag latest: nodes may run different releases under one name, and one \
         that starts anew may get another",
        "name a release or a digest: operator.image and proxy.image of the chart, or spec.proxy.image";
    ReleasesDiffer: Note,
        "proxies run another release than the operator: spec.proxy.image names it, or a rollout is under way",
        "nothing, if docs/versions.md has both; otherwise remove spec.proxy.image";
    MemberDown: Error,
        "no node that reports reaches this member",
        "look at its apiserver; if it is gone for good: kubectl trivet retire MEMBER";
    MemberUnreached: Warning,
        "some nodes do not reach this member, and others do",
        "look at the network between them: routes, firewalls, MTU";
    DrainUnfinished: Note,
        "a member drains or is disabled and still has connections",
        "wait: they are closed within connection.drainTimeoutSeconds; kubectl trivet drain MEMBER waits for \
         it";
    NotReporting: Warning,
        "a Ready node has no fresh report, so nothing is known of its proxy",
        "kubectl -n NAMESPACE get pods -o wide, then the log of its proxy; see ProxyRights";
    PortTaken: Error,
        "a proxy cannot listen on its address",
        "stop the program that the message names, or give the pool another port";
    ProxyWarns: Warning,
        "a proxy warns of something that lasts",
        "what the message says; docs/operations.md explains each reason";
    RevisionBehind: Warning,
        "a node follows an older document than the pool's, two minutes after that was written",
        "the log of its proxy: it cannot read the ConfigMap, or refuses the document";
    ClockSkew: Warning,
        "the clock of a node differs from the API server's by more than a minute, so certificates may look \
         expired or not yet valid",
        "synchronise its clock (chrony, systemd-timesyncd)";
    ProxyUnused: Note,
        "a proxy has no client: neither the kubelet nor another agent of this node uses it",
        "point the kubeconfigs of this node's agents at the listener, as README.md shows";
    NoStandby: Warning,
        "clients of a node use its proxy and nothing takes over when that ends. If its kubelet is one of \
         them, the node does not come back from a reboot by itself",
        "spec.nodeBootstrap.policy: StaticPod, see docs/operations.md";
    StandbyStale: Warning,
        "a standby runs that does not know the newest document",
        "the log of the standby's pod on that node";
    StandbyNotWanted: Note,
        "a node has a standby though the pool asks for none: it was placed by hand, or is left over",
        "nothing if it is yours; otherwise remove trivet-POOL-*.yaml from kubelet's directory of static \
         pods";
    StaticPodPath: Error,
        "a kubelet reads static pods from another directory than spec.nodeBootstrap.manifestPath, so its \
         standby never starts",
        "set manifestPath to the kubelet's staticPodPath, or the other way round";
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of the table of docs/plugin.md.
    fn table() -> String {
        let rows = Kind::ALL.iter().map(|kind| {
            format!(
                "| `{}` | {} | {} | {} |\n",
                kind.as_str(),
                kind.severity().as_str(),
                kind.means(),
                kind.remedy()
            )
        });
        rows.collect()
    }

    #[test]
    fn the_documentation_has_every_finding_as_the_code_has_it() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/plugin.md");
        let page = std::fs::read_to_string(path).unwrap();
        let (_, rest) = page
            .split_once("| finding | severity | means | remedy |\n|---|---|---|---|\n")
            .unwrap();
        let rows = rest.split_inclusive('\n');
        let documented: String = rows.take_while(|line| line.starts_with('|')).collect();
        assert!(
            documented == table(),
            "write this into docs/plugin.md:\n{}",
            table()
        );
    }
}
