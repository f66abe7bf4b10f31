//! What the proxy counts. Names and labels marked stable in docs/operations.md do not change within a major release.

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::{balance::health::State, document::Source, ending::Ending, net::socket::Fault};

/// A metric of one member.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct MemberLabel {
    member: String,
}

/// A metric of one member's state.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StateLabels {
    member: String,
    state: &'static str,
}

/// A metric of one member's failures.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct FaultLabels {
    member: String,
    reason: &'static str,
}

/// A metric by reason.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    reason: &'static str,
}

/// A metric of one listener address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ListenerLabel {
    listener: String,
}

/// A metric of one way by which documents come.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SourceLabels {
    source: &'static str,
    reason: &'static str,
}

/// All metrics of a proxy.
#[derive(Debug, Default)]
pub struct Metrics {
    document_revision: Gauge,
    documents_refused: Family<SourceLabels, Counter>,
    listener_bound: Family<ListenerLabel, Gauge>,
    upstream_state: Family<StateLabels, Gauge>,
    upstream_connections: Family<MemberLabel, Gauge>,
    connections: Family<MemberLabel, Counter>,
    connections_ended: Family<ReasonLabel, Counter>,
    dial_failures: Family<FaultLabels, Counter>,
    accept_failures: Counter,
    hedges: Family<MemberLabel, Counter>,
    hedges_refused: Counter,
    probes: Family<FaultLabels, Counter>,
    bytes_sent: Counter,
    bytes_received: Counter,
    certificates_refused: Family<MemberLabel, Gauge>,
}

impl Metrics {
    /// A registry that encodes them, all under `trivet_proxy_`.
    pub fn registry(&self) -> Registry {
        let mut root = Registry::with_prefix("trivet_proxy");
        self.register_documents(&mut root);
        self.register_upstreams(&mut root);
        self.register_connections(&mut root);
        root
    }

    fn register_documents(&self, root: &mut Registry) {
        root.register(
            "document_revision",
            "Revision of the wire document in force",
            self.document_revision.clone(),
        );
        root.register(
            "documents_refused",
            "Wire documents not followed, by source and reason; the one in force stayed",
            self.documents_refused.clone(),
        );
        root.register(
            "listener_bound",
            "1 where the proxy listens, 0 where it should but cannot",
            self.listener_bound.clone(),
        );
    }

    fn register_upstreams(&self, root: &mut Registry) {
        root.register(
            "upstream_state",
            "1 for the state that the member is in",
            self.upstream_state.clone(),
        );
        root.register(
            "upstream_connections",
            "Connections to the member, attempts included",
            self.upstream_connections.clone(),
        );
        root.register(
            "probes",
            "Answers to probes by member and outcome",
            self.probes.clone(),
        );
        root.register(
            "certificate_refused",
            "1 while the member's certificate does not verify (authority, name or dates)",
            self.certificates_refused.clone(),
        );
    }

    fn register_connections(&self, root: &mut Registry) {
        root.register(
            "connections",
            "Client connections given to the member",
            self.connections.clone(),
        );
        root.register(
            "connections_ended",
            "Client connections that ended, by reason",
            self.connections_ended.clone(),
        );
        root.register(
            "dial_failures",
            "Dials that failed, by member and reason",
            self.dial_failures.clone(),
        );
        root.register(
            "hedges",
            "First flights sent to another member because this one left them unanswered",
            self.hedges.clone(),
        );
        root.register(
            "hedges_refused",
            "First flights that would have been sent to another member but for the budget",
            self.hedges_refused.clone(),
        );
        root.register(
            "accept_failures",
            "Times that accepting paused for want of files",
            self.accept_failures.clone(),
        );
        root.register(
            "sent_bytes",
            "Bytes from clients to members",
            self.bytes_sent.clone(),
        );
        root.register(
            "received_bytes",
            "Bytes from members to clients",
            self.bytes_received.clone(),
        );
    }

    /// A document is in force.
    pub fn document_applied(&self, revision: u64) {
        self.document_revision
            .set(i64::try_from(revision).unwrap_or(i64::MAX));
    }

    /// A document was not followed.
    pub fn document_refused(&self, source: Source, reason: &'static str) {
        self.documents_refused
            .get_or_create(&SourceLabels {
                source: source.word(),
                reason,
            })
            .inc();
    }

    /// The proxy listens on an address, or should but cannot.
    pub fn listener(&self, address: &str, bound: bool) {
        self.listener_bound
            .get_or_create(&ListenerLabel {
                listener: address.to_owned(),
            })
            .set(i64::from(bound));
    }

    /// The proxy no longer wants to listen on an address.
    pub fn listener_gone(&self, address: &str) {
        self.listener_bound.remove(&ListenerLabel {
            listener: address.to_owned(),
        });
    }

    /// A member is in this state.
    pub fn state(&self, member: &str, current: State) {
        for state in State::ALL {
            let labels = StateLabels {
                member: member.to_owned(),
                state: state.word(),
            };
            self.upstream_state
                .get_or_create(&labels)
                .set(i64::from(state == current));
        }
    }

    /// A member is no longer known.
    pub fn member_gone(&self, member: &str) {
        for state in State::ALL {
            self.upstream_state.remove(&StateLabels {
                member: member.to_owned(),
                state: state.word(),
            });
        }
        let label = MemberLabel {
            member: member.to_owned(),
        };
        self.upstream_connections.remove(&label);
        self.certificates_refused.remove(&label);
    }

    /// Connections and attempts that a member has; shared, so that holders count without a look-up.
    pub fn connections_of(&self, member: &str) -> Gauge {
        self.upstream_connections
            .get_or_create(&MemberLabel {
                member: member.to_owned(),
            })
            .clone()
    }

    /// A client's connection was given to a member.
    pub fn connected(&self, member: &str) {
        self.connections
            .get_or_create(&MemberLabel {
                member: member.to_owned(),
            })
            .inc();
    }

    /// A client's connection ended.
    pub fn ended(&self, ending: Ending) {
        self.connections_ended
            .get_or_create(&ReasonLabel {
                reason: ending.word(),
            })
            .inc();
    }

    /// Bytes were relayed, to members and from them.
    pub fn relayed(&self, sent: u64, received: u64) {
        self.bytes_sent.inc_by(sent);
        self.bytes_received.inc_by(received);
    }

    /// A dial failed.
    pub fn dial_failed(&self, member: &str, fault: Fault) {
        self.dial_failures
            .get_or_create(&FaultLabels {
                member: member.to_owned(),
                reason: fault.word(),
            })
            .inc();
    }

    /// A first flight was sent elsewhere because this member left it unanswered.
    pub fn hedged(&self, member: &str) {
        self.hedges
            .get_or_create(&MemberLabel {
                member: member.to_owned(),
            })
            .inc();
    }

    /// A hedge was due but the budget was spent.
    pub fn hedge_refused(&self) {
        self.hedges_refused.inc();
    }

    /// Accepting paused.
    pub fn accept_failed(&self) {
        self.accept_failures.inc();
    }

    /// A question to a member found its end.
    pub fn probed(&self, member: &str, reason: &'static str) {
        self.probes
            .get_or_create(&FaultLabels {
                member: member.to_owned(),
                reason,
            })
            .inc();
    }

    /// A member's certificate verifies, or does not.
    pub fn certificate(&self, member: &str, verified: bool) {
        let label = MemberLabel {
            member: member.to_owned(),
        };
        self.certificates_refused
            .get_or_create(&label)
            .set(i64::from(!verified));
    }
}

/// The metrics in Prometheus' text format.
pub fn encode(registry: &Registry) -> String {
    let mut text = String::new();
    if let Err(error) = text::encode(&mut text, registry) {
        tracing::warn!(%error, "failed to encode the metrics");
    }
    text
}
