//! The names of the pool in DNS, as the operator's loop keeps them after each pass, and what holds of them.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use kube::ResourceExt;
use tokio::time::Instant;
use trivet_crds::pool::{ApiserverPool, DnsPolicy, PoolMemberState};
use trivet_operator::dns::damping::Damping;
use trivet_operator::dns::decision::{Live, Object, Place, decide};
use trivet_operator::dns::published::{Published, Unobserved};
use trivet_operator::dns::wish;
use trivet_operator::plan::{Facts, Plan, Verdict};

use crate::policy::Policy;

const PLACE: Place<'static> = Place {
    pool: "default",
    namespace: "trivet-system",
};

/// The objects of a cluster with external-dns, and what the operator remembers.
pub(crate) struct Names {
    policies: [Policy; 3],
    live: Live,
    damping: Damping,
    unobserved: Unobserved,
    /// What the status says.
    pub(crate) published: Option<Published>,
}

impl Names {
    pub(crate) fn new() -> Self {
        Self {
            policies: ["services", "endpointslices", "dnsendpoints"].map(Policy::of_names),
            live: Live {
                records: Some(Vec::new()),
                ..Live::default()
            },
            damping: Damping::default(),
            unobserved: None,
            published: None,
        }
    }

    /// Another operator goes on.
    pub(crate) fn restart(&mut self) {
        self.damping = Damping::default();
        self.unobserved = None;
        self.published = None;
    }

    /// A look after a pass, and what holds after it. Whether it has written.
    pub(crate) fn look(&mut self, pool: &ApiserverPool, plan: &Plan, facts: &Facts, now: Instant) -> bool {
        let before = self.names();
        let health = (&facts.healths, facts.healths_in_force().sightings());
        let facts = wish::Facts::new(&pool.spec.dns, "default", plan, health);
        let decision = decide(PLACE, &facts, &self.live, &mut self.damping, now);
        for (object, _) in &decision.apply {
            self.admitted(object);
            self.live.note(object.clone());
        }
        for object in &decision.delete {
            self.live.forget(object);
        }
        let is_told = !decision.wish.is_empty() || !self.live.is_empty();
        let place = (&self.live, &decision.wish);
        let published = Published::new(place, PLACE.namespace, None, &mut self.unobserved, now);
        self.published = is_told.then_some(published);
        self.hold(pool, plan, &before);
        !decision.apply.is_empty() || !decision.delete.is_empty()
    }

    /// The chart's policy takes what the operator writes.
    fn admitted(&self, object: &Object) {
        let [services, slices, records] = &self.policies;
        let refusals = match object {
            Object::Service(object) => services.refusals(object),
            Object::Slice(object) => slices.refusals(object),
            Object::Records(object) => records.refusals(object),
        };
        assert!(refusals.is_empty(), "{refusals:?}: {object:?}");
    }

    /// The Services and the records that there are.
    fn names(&self) -> BTreeSet<String> {
        let services = self.live.services.iter().map(ResourceExt::name_any);
        let records = self.live.records.iter().flatten().map(ResourceExt::name_any);
        services.chain(records).collect()
    }

    fn hold(&self, pool: &ApiserverPool, plan: &Plan, before: &BTreeSet<String>) {
        let of_state = |is_wanted: fn(PoolMemberState) -> bool| {
            let members = plan.members.iter().filter(move |member| is_wanted(member.state));
            members
                .flat_map(|member| member.addresses.clone())
                .collect::<BTreeSet<IpAddr>>()
        };
        let used = of_state(|state| state != PoolMemberState::Disabled);
        let active = of_state(|state| state == PoolMemberState::Active);
        for service in &self.live.services {
            let ready = self.live.ready(&service.name_any());
            truthful(&ready.iter().map(SocketAddr::ip).collect(), &used, &active);
        }
        if self.live.records.iter().flatten().next().is_some() {
            truthful(&self.live.targets(), &used, &active);
        }
        let now = self.names();
        if !matches!(plan.verdict, Verdict::Accepted { .. }) {
            assert_eq!(
                now, *before,
                "a spec that is not obeyed changes which names there are"
            );
        } else if !used.is_empty() {
            let dns = &pool.spec.dns;
            let wanted = [dns.service.policy, dns.external.policy];
            let wanted = wanted.iter().filter(|policy| **policy == DnsPolicy::Enabled);
            assert_eq!(now.len(), wanted.count(), "{now:?} by {dns:?}");
        }
    }
}

/// No answer is empty, and none has an address of a disabled or removed member, or of one that drains beside Active ones.
fn truthful(published: &BTreeSet<IpAddr>, used: &BTreeSet<IpAddr>, active: &BTreeSet<IpAddr>) {
    assert!(!published.is_empty());
    let allowed = if active.is_empty() { used } else { active };
    // Without a member in force nothing is known, and what was published stays.
    assert!(
        used.is_empty() || published.is_subset(allowed),
        "{published:?} of {allowed:?}"
    );
}
