//! What the status of each pool says, as gauges: a Prometheus alerts on the same facts as `kubectl get asp` shows.
//!
//! The gauges are made when they are read, from the last status, so that no series of an earlier reason or member stays.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use trivet_crds::pool::{ApiserverPoolStatus, MemberHealth, PoolMemberState};

/// The gauges of all pools.
#[derive(Debug, Default)]
pub(super) struct Pools(Mutex<BTreeMap<String, Facts>>);

/// What is known of one pool.
#[derive(Clone, Debug, Default)]
struct Facts {
    status: ApiserverPoolStatus,
    nodes_without_standby: Option<usize>,
    last_pass_failed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConditionLabels {
    pool: String,
    r#type: String,
    status: String,
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    pool: String,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HealthLabels {
    pool: String,
    health: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutputLabels {
    pool: String,
    output: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolLabel {
    pool: String,
}

impl Pools {
    /// A pass has made this status.
    pub(super) fn status(&self, pool: &str, status: &ApiserverPoolStatus) {
        self.change(pool, |facts| facts.status = status.clone());
    }

    /// So many nodes have no standby; none if the pool places no standbys.
    pub(super) fn standbys(&self, pool: &str, without: Option<usize>) {
        self.change(pool, |facts| facts.nodes_without_standby = without);
    }

    /// The last pass has failed, or not.
    pub(super) fn passed(&self, pool: &str, has_failed: bool) {
        self.change(pool, |facts| facts.last_pass_failed = has_failed);
    }

    /// The pool no longer exists.
    pub(super) fn forget(&self, pool: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(pool);
    }

    fn change(&self, pool: &str, change: impl FnOnce(&mut Facts)) {
        let mut pools = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(pools.entry(pool.to_owned()).or_default());
    }

    fn all(&self) -> BTreeMap<String, Facts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Collector for Pools {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let conditions = Family::<ConditionLabels, Gauge>::default();
        let proxies = Family::<StateLabels, Gauge>::default();
        let members = Family::<HealthLabels, Gauge>::default();
        let without = Family::<PoolLabel, Gauge>::default();
        let failed = Family::<PoolLabel, Gauge>::default();
        let published = Family::<OutputLabels, Gauge>::default();
        for (pool, facts) in self.all() {
            let label = PoolLabel { pool: pool.clone() };
            failed
                .get_or_create(&label)
                .set(i64::from(facts.last_pass_failed));
            if let Some(nodes) = facts.nodes_without_standby {
                set(&without, &label, nodes);
            }
            for condition in &facts.status.conditions {
                conditions.get_or_create(&labels(&pool, condition)).set(1);
            }
            for (state, count) in by_state(&facts.status) {
                let pool = pool.clone();
                proxies.get_or_create(&StateLabels { pool, state }).set(count);
            }
            for (health, count) in by_health(&facts.status) {
                let pool = pool.clone();
                set(&members, &HealthLabels { pool, health }, count);
            }
            for (output, count) in by_output(&facts.status) {
                let pool = pool.clone();
                set(&published, &OutputLabels { pool, output }, count);
            }
        }
        let gauges: [(&str, &str, &dyn EncodeMetric); 6] = [
            (
                "pool_condition",
                "1 for the status and reason of each condition of a pool",
                &conditions,
            ),
            (
                "pool_proxies",
                "Nodes that should have a proxy, and those with a ready one",
                &proxies,
            ),
            (
                "pool_members",
                "Active members by health as seen from the operator",
                &members,
            ),
            (
                "nodes_without_standby",
                "Nodes without a standby that could take over, where the pool places standbys",
                &without,
            ),
            (
                "last_pass_failed",
                "1 while the last pass over the pool has failed",
                &failed,
            ),
            (
                "dns_addresses",
                "Addresses that the names of a pool in DNS have, by spec.dns",
                &published,
            ),
        ];
        for (name, help, gauge) in gauges {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            gauge.encode(metric)?;
        }
        Ok(())
    }
}

fn set<Labels>(family: &Family<Labels, Gauge>, labels: &Labels, count: usize)
where
    Labels: Clone + std::hash::Hash + Eq,
{
    family
        .get_or_create(labels)
        .set(i64::try_from(count).unwrap_or(i64::MAX));
}

fn labels(pool: &str, condition: &Condition) -> ConditionLabels {
    ConditionLabels {
        pool: pool.to_owned(),
        r#type: condition.type_.clone(),
        status: condition.status.clone(),
        reason: condition.reason.clone(),
    }
}

fn by_state(status: &ApiserverPoolStatus) -> Vec<(&'static str, i64)> {
    let proxies = status.proxies.iter();
    proxies
        .flat_map(|proxies| {
            [
                ("Desired", proxies.desired.into()),
                ("Ready", proxies.ready.into()),
            ]
        })
        .collect()
}

fn by_health(status: &ApiserverPoolStatus) -> [(&'static str, usize); 4] {
    let active = |health| {
        let mut members: Vec<_> = status.members.iter().collect();
        members.retain(|member| member.state == PoolMemberState::Active && member.health == health);
        members.len()
    };
    [
        ("Up", active(MemberHealth::Up)),
        ("Unready", active(MemberHealth::Unready)),
        ("Down", active(MemberHealth::Down)),
        ("Unknown", active(MemberHealth::Unknown)),
    ]
}

/// The addresses of the names that the pool has.
fn by_output(status: &ApiserverPoolStatus) -> Vec<(&'static str, usize)> {
    let Some(dns) = &status.dns else {
        return Vec::new();
    };
    let outputs = [
        ("Service", &dns.service_name, &dns.service_addresses),
        ("External", &dns.hostname, &dns.targets),
    ];
    let there = outputs.into_iter().filter(|(_, name, _)| !name.is_empty());
    there
        .map(|(output, _, addresses)| (output, addresses.len()))
        .collect()
}
