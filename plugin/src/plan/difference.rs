//! What a plan changes. Pure.

mod members;
mod settings;

use kube::ResourceExt;
use serde::Serialize;
use trivet_crds::pool::ApiserverPool;
use trivet_operator::observe::proxies::why_no_pods;
use trivet_operator::plan::bootstrap::Phase as Standbys;
use trivet_operator::plan::scope::{Placement, Scope};
use trivet_operator::plan::{Facts, Plan, Verdict, wave};
use trivet_operator::preview::Preview;

pub(super) use self::members::{Change, MemberChange};
use self::settings::SettingChange;

/// What an edit would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Difference {
    pub(super) pool: String,
    /// Whether the pool is there already.
    pub(super) exists: bool,
    /// Why nothing of the edit would be obeyed.
    pub(super) refused: Option<Refusal>,
    /// Whether proxies would get another document.
    pub(super) writes_document: bool,
    pub(super) members: Vec<MemberChange>,
    pub(super) settings: Vec<SettingChange>,
    pub(super) rollout: Option<Rollout>,
    pub(super) nodes_added: Vec<String>,
    pub(super) nodes_removed: Vec<String>,
    pub(super) standbys: Option<&'static str>,
    /// Members that the shrink guard keeps, and why.
    pub(super) kept: Vec<String>,
    /// What the operator would say of it besides.
    pub(super) notes: Vec<String>,
}

/// Why an edit is not obeyed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Refusal {
    pub(super) by: &'static str,
    pub(super) reason: String,
    pub(super) message: String,
}

/// Proxies that would be replaced, or started for the first time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Rollout {
    pub(super) nodes: usize,
    /// How it would begin.
    pub(super) begins: String,
}

impl Difference {
    /// An edit that is refused before there is a plan.
    pub(super) fn refused(pool: &str, refusal: Refusal) -> Self {
        Self {
            pool: pool.to_owned(),
            refused: Some(refusal),
            ..Self::default()
        }
    }

    /// What the plan for `pool` changes.
    pub(super) fn of(pool: &ApiserverPool, exists: bool, preview: &Preview) -> Self {
        let Preview { facts, plan } = preview;
        let (refused, notes, kept) = verdict(plan);
        let is_obeyed = matches!(plan.verdict, Verdict::Accepted { .. });
        let planned = plan.rollout.as_ref();
        let (nodes_added, nodes_removed, in_scope) = if is_obeyed {
            scope(pool, facts)
        } else {
            Default::default()
        };
        Self {
            pool: pool.name_any(),
            exists,
            refused,
            writes_document: planned.is_some_and(|rollout| !rollout.is_written),
            members: members::changes(facts, plan),
            settings: planned.map_or_else(Vec::new, |rollout| {
                settings::changes(facts.current.document.as_ref(), &rollout.document)
            }),
            rollout: rollout(pool, preview, in_scope).filter(|_| is_obeyed),
            nodes_added,
            nodes_removed,
            standbys: standbys(facts, plan),
            kept,
            notes,
        }
    }

    /// Whether nothing changes.
    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
            && self.settings.is_empty()
            && self.rollout.is_none()
            && self.nodes_added.is_empty()
            && self.nodes_removed.is_empty()
    }
}

fn verdict(plan: &Plan) -> (Option<Refusal>, Vec<String>, Vec<String>) {
    match &plan.verdict {
        Verdict::Accepted {
            notes,
            refused_removals,
        } => (None, notes.clone(), refused_removals.clone()),
        Verdict::Paused { notes } => (None, notes.clone(), Vec::new()),
        Verdict::Rejected { rejection, notes } => {
            let refusal = Refusal {
                by: "the operator",
                reason: rejection.reason().to_owned(),
                message: rejection.to_string(),
            };
            (Some(refusal), notes.clone(), Vec::new())
        }
    }
}

/// The nodes that get a proxy and that lose theirs, and how many have one afterwards.
fn scope(pool: &ApiserverPool, facts: &Facts) -> (Vec<String>, Vec<String>, usize) {
    let wanted = Scope::wanted(&pool.spec.proxy);
    let (mut added, mut removed, mut placed) = (Vec::new(), Vec::new(), 0);
    for node in facts.nodes.iter().filter(|node| why_no_pods(node).is_none()) {
        let is_placed = wanted.placement(node) == Placement::Placed;
        placed += usize::from(is_placed);
        match (facts.in_place.has(node), is_placed) {
            (false, true) => added.push(node.name_any()),
            (true, false) => removed.push(node.name_any()),
            (true, true) | (false, false) => {}
        }
    }
    (added, removed, placed)
}

fn rollout(pool: &ApiserverPool, preview: &Preview, nodes: usize) -> Option<Rollout> {
    let Preview { facts, plan } = preview;
    let Some(in_place) = &facts.waves.in_place else {
        let begins = "the first proxies start on all of them at once".to_owned();
        return Some(Rollout { nodes, begins });
    };
    if in_place.hash == facts.template {
        return None;
    }
    let rollout = &pool.spec.rollout;
    let begins = match &plan.waves {
        wave::Phase::Paused => "spec.rollout.policy is Paused, so it waits".to_owned(),
        wave::Phase::Ungated => format!("{} at a time, without a first node", rollout.max_parallel),
        wave::Phase::RollsBack(_) | wave::Phase::Halted { .. } => {
            "the template has failed before, and is not tried again".to_owned()
        }
        wave::Phase::Settled | wave::Phase::Starts | wave::Phase::First { .. } | wave::Phase::Rest { .. } => {
            let soak = facts.waves.soak.max(rollout.min_ready_seconds);
            format!(
                "one node first, for {soak}s, then {} at a time; connections go on",
                rollout.max_parallel
            )
        }
    };
    Some(Rollout { nodes, begins })
}

fn standbys(facts: &Facts, plan: &Plan) -> Option<&'static str> {
    let has_writer = facts.bootstrap.writer.is_some();
    match plan.bootstrap {
        Standbys::Off => None,
        Standbys::Forbidden => {
            Some("the installation forbids standbys: set the chart value nodeBootstrap.enabled")
        }
        Standbys::AwaitsProxies => {
            Some("every node gets a standby once every Ready node has an available proxy")
        }
        Standbys::AwaitsRollout | Standbys::Soaks => Some("the standbys follow the proxies' rollout"),
        Standbys::Writes if has_writer => None,
        Standbys::Writes => Some("every node gets a standby"),
        Standbys::AwaitsWay(_) => Some("the standbys are removed once every node has a ready proxy"),
        Standbys::Removes => Some("the standbys are removed"),
    }
}
