//! Metrics of members: health, connections, and latencies. Those of an extra listener's servers are families of their own,
//! because who sums or compares the apiservers' must not find other servers among them.

use std::{fmt, sync::Arc, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabel, EncodeLabelSet, LabelSetEncoder},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use super::{Durations, Metrics, durations};
use crate::{
    balance::health::{Outcome, State},
    net::socket::Fault,
};

/// The label of an extra listener; the apiservers have none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct OfListener(Option<Arc<str>>);

impl EncodeLabelSet for OfListener {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        match &self.0 {
            Some(name) => EncodeLabel::encode(&("listener", name.as_ref()), encoder.encode_label()),
            None => Ok(()),
        }
    }
}

/// A metric of one member.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MemberLabel {
    #[prometheus(flatten)]
    listener: OfListener,
    member: String,
}

/// One histogram per member.
type OfMembers = Family<MemberLabel, Histogram, fn() -> Histogram>;

/// A metric of one member's state.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    #[prometheus(flatten)]
    listener: OfListener,
    member: String,
    state: &'static str,
}

/// A metric of a member's changes of state.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ToLabels {
    #[prometheus(flatten)]
    listener: OfListener,
    member: String,
    to: &'static str,
}

/// A metric of one member by reason.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FaultLabels {
    #[prometheus(flatten)]
    listener: OfListener,
    member: String,
    reason: &'static str,
}

#[derive(Clone, Debug)]
pub(super) struct MemberMetrics {
    listener: OfListener,
    state: Family<StateLabels, Gauge>,
    active: Family<MemberLabel, Gauge>,
    transitions: Family<ToLabels, Counter>,
    connections: Family<MemberLabel, Gauge>,
    opened: Family<MemberLabel, Counter>,
    dial: OfMembers,
    dial_failures: Family<FaultLabels, Counter>,
    first_byte: OfMembers,
    hedges: Family<MemberLabel, Counter>,
    hedges_won: Family<MemberLabel, Counter>,
    hedges_lost: Family<MemberLabel, Counter>,
    probes: Family<FaultLabels, Counter>,
    probe: OfMembers,
    certificates_refused: Family<MemberLabel, Gauge>,
    certificate_ends: Family<MemberLabel, Gauge>,
}

/// The series of one member, looked up once, so that counting a connection needs no look-up and no allocation.
#[derive(Clone, Debug)]
pub struct Series {
    /// The member's name.
    pub member: String,
    /// Its connections, attempts included.
    pub connections: Gauge,
    /// Client connections that it serves or served.
    pub opened: Counter,
    /// Durations of successful dials.
    pub dial: Durations,
    /// From sending a first flight to its first byte, if it won the client.
    pub first_byte: Durations,
    /// Hedges because it was overdue: first flights that were also sent to another member.
    pub hedges: Counter,
    /// Hedges that it won, because another member was overdue.
    pub hedges_won: Counter,
    /// Hedges that another member won, because it was overdue.
    pub hedges_lost: Counter,
}

impl Default for MemberMetrics {
    fn default() -> Self {
        Self {
            listener: OfListener::default(),
            state: Family::default(),
            active: Family::default(),
            transitions: Family::default(),
            connections: Family::default(),
            opened: Family::default(),
            dial: of_answers(),
            dial_failures: Family::default(),
            first_byte: of_answers(),
            hedges: Family::default(),
            hedges_won: Family::default(),
            hedges_lost: Family::default(),
            probes: Family::default(),
            probe: of_probes(),
            certificates_refused: Family::default(),
            certificate_ends: Family::default(),
        }
    }
}

impl MemberMetrics {
    pub(super) fn register(&self, root: &mut Registry) {
        self.register_health(root);
        self.register_connections(root);
        self.register_hedges(root);
    }

    /// The families of extra listeners. The others that members have are not shown for them.
    pub(super) fn register_of_extra_listeners(&self, root: &mut Registry) {
        root.register(
            "listener_upstream_state",
            "1 for the state of the member's server that clients of the extra listener reach",
            self.state.clone(),
        );
        root.register(
            "listener_upstream_transitions",
            "Changes of that server's state, by new state",
            self.transitions.clone(),
        );
        root.register(
            "listener_upstream_connections",
            "Connections to that server, attempts included",
            self.connections.clone(),
        );
        root.register(
            "listener_connections",
            "Client connections of the extra listener that the member's server serves or served",
            self.opened.clone(),
        );
        root.register(
            "listener_dial_failures",
            "Dials to that server that failed, by reason",
            self.dial_failures.clone(),
        );
        root.register(
            "listener_probes",
            "Probes of that server, by outcome",
            self.probes.clone(),
        );
    }

    /// The same families, for the servers of this listener.
    pub(super) fn of_listener(&self, name: &str) -> Self {
        Self {
            listener: OfListener(Some(name.into())),
            ..self.clone()
        }
    }

    /// The extra listener whose servers these are about.
    pub(super) fn listener_name(&self) -> Option<&str> {
        self.listener.0.as_deref()
    }

    fn label(&self, member: &str) -> MemberLabel {
        MemberLabel {
            listener: self.listener.clone(),
            member: member.to_owned(),
        }
    }

    fn state_labels(&self, member: &str, state: State) -> StateLabels {
        StateLabels {
            listener: self.listener.clone(),
            member: member.to_owned(),
            state: state.as_str(),
        }
    }

    fn to_labels(&self, member: &str, to: State) -> ToLabels {
        ToLabels {
            listener: self.listener.clone(),
            member: member.to_owned(),
            to: to.as_str(),
        }
    }

    fn fault_labels(&self, member: &str, reason: &'static str) -> FaultLabels {
        FaultLabels {
            listener: self.listener.clone(),
            member: member.to_owned(),
            reason,
        }
    }

    fn register_health(&self, root: &mut Registry) {
        root.register(
            "upstream_state",
            "1 for the state of the member",
            self.state.clone(),
        );
        root.register(
            "upstream_active",
            "1 if the document in force has the member as Active, 0 if it drains or is kept for the last resort",
            self.active.clone(),
        );
        root.register(
            "upstream_transitions",
            "Changes of the member's state, by new state",
            self.transitions.clone(),
        );
        root.register("probes", "Probes by member and outcome", self.probes.clone());
        root.register(
            "probe_duration_seconds",
            "From a readiness probe to its answer, if one came",
            self.probe.clone(),
        );
        root.register(
            "certificate_refused",
            "1 while the member's certificate does not verify (authority, name or dates)",
            self.certificates_refused.clone(),
        );
        root.register(
            "certificate_expiry_timestamp_seconds",
            "When the member's certificate ends, the earliest of its addresses, Unix time",
            self.certificate_ends.clone(),
        );
    }

    fn register_connections(&self, root: &mut Registry) {
        root.register(
            "upstream_connections",
            "Connections to the member, attempts included",
            self.connections.clone(),
        );
        root.register(
            "connections",
            "Client connections that the member serves or served",
            self.opened.clone(),
        );
        root.register(
            "dial_duration_seconds",
            "Duration of successful dials",
            self.dial.clone(),
        );
        root.register(
            "dial_failures",
            "Dials that failed, by member and reason",
            self.dial_failures.clone(),
        );
        root.register(
            "first_byte_duration_seconds",
            "From sending a ClientHello to the first byte of the answer, by the member that serves the client",
            self.first_byte.clone(),
        );
    }

    fn register_hedges(&self, root: &mut Registry) {
        root.register(
            "hedges",
            "Hedges because this member was overdue: first flights that were also sent to another member",
            self.hedges.clone(),
        );
        root.register(
            "hedges_won",
            "Hedges that this member won: it serves the client, because another member was overdue",
            self.hedges_won.clone(),
        );
        root.register(
            "hedges_lost",
            "Hedges that another member won because this one was overdue",
            self.hedges_lost.clone(),
        );
    }
}

impl Metrics {
    /// The series of a member; new ones start at zero.
    pub fn member(&self, member: &str) -> Series {
        let members = &self.members;
        let label = members.label(member);
        let durations = |of: &OfMembers| Durations(of.get_or_create_owned(&label));
        durations(&members.probe);
        for to in State::ALL {
            members
                .transitions
                .get_or_create_owned(&members.to_labels(member, to));
        }
        Series {
            member: member.to_owned(),
            connections: members.connections.get_or_create_owned(&label),
            opened: members.opened.get_or_create_owned(&label),
            dial: durations(&members.dial),
            first_byte: durations(&members.first_byte),
            hedges: members.hedges.get_or_create_owned(&label),
            hedges_won: members.hedges_won.get_or_create_owned(&label),
            hedges_lost: members.hedges_lost.get_or_create_owned(&label),
        }
    }

    /// A member is no longer known: removes all of its series.
    pub fn member_gone(&self, member: &str) {
        let members = &self.members;
        for state in State::ALL {
            members.state.remove(&members.state_labels(member, state));
            members.transitions.remove(&members.to_labels(member, state));
        }
        for fault in Fault::ALL {
            members
                .dial_failures
                .remove(&members.fault_labels(member, fault.as_str()));
        }
        for outcome in Outcome::ALL {
            members
                .probes
                .remove(&members.fault_labels(member, outcome.as_str()));
        }
        let label = members.label(member);
        members.connections.remove(&label);
        members.certificates_refused.remove(&label);
        members.certificate_ends.remove(&label);
        members.active.remove(&label);
        for counter in [
            &members.opened,
            &members.hedges,
            &members.hedges_won,
            &members.hedges_lost,
        ] {
            counter.remove(&label);
        }
        for durations in [&members.dial, &members.first_byte, &members.probe] {
            durations.remove(&label);
        }
    }

    /// A member is in this state now.
    pub fn state(&self, member: &str, current: State) {
        for state in State::ALL {
            self.members
                .state
                .get_or_create(&self.members.state_labels(member, state))
                .set(i64::from(state == current));
        }
    }

    /// The document in force has a member as Active, or not.
    pub fn active(&self, member: &str, is_active: bool) {
        self.members
            .active
            .get_or_create(&self.members.label(member))
            .set(i64::from(is_active));
    }

    /// A member changed to another state.
    pub fn turned(&self, member: &str, to: State) {
        self.members
            .transitions
            .get_or_create(&self.members.to_labels(member, to))
            .inc();
    }

    /// A dial failed.
    pub fn dial_failed(&self, member: &str, fault: Fault) {
        self.members
            .dial_failures
            .get_or_create(&self.members.fault_labels(member, fault.as_str()))
            .inc();
    }

    /// A probe of a member ended with this outcome.
    pub fn probed(&self, member: &str, outcome: Outcome) {
        self.members
            .probes
            .get_or_create(&self.members.fault_labels(member, outcome.as_str()))
            .inc();
    }

    /// A readiness probe was answered after this time.
    pub fn probe_took(&self, member: &str, elapsed: Duration) {
        Durations(
            self.members
                .probe
                .get_or_create_owned(&self.members.label(member)),
        )
        .observe(elapsed);
    }

    /// A member's certificate verifies, or does not, and ends then, in Unix seconds; none where that cannot be read.
    pub fn certificate(&self, member: &str, verified: bool, end: Option<u64>) {
        let label = self.members.label(member);
        self.members
            .certificates_refused
            .get_or_create(&label)
            .set(i64::from(!verified));
        match end {
            Some(end) => {
                let end = i64::try_from(end).unwrap_or(i64::MAX);
                self.members.certificate_ends.get_or_create(&label).set(end);
            }
            None => drop(self.members.certificate_ends.remove(&label)),
        }
    }
}

fn of_answers() -> OfMembers {
    Family::new_with_constructor(|| Histogram::new(durations::ANSWER))
}

fn of_probes() -> OfMembers {
    Family::new_with_constructor(|| Histogram::new(durations::PROBE))
}
