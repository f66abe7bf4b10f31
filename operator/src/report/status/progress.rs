//! The condition Progressing: whether what the spec wants of the nodes is there, or on its way.
//!
//! As with a Deployment, True means also that all is done. False means that it stands, and what somebody can do about it.

use k8s_openapi::api::apps::v1::DaemonSet;

use super::Seen;
use super::proxies;
use super::undated::{Holds, Undated};
use crate::apply::{BOOTSTRAP_FORBIDDEN, Kind};
use crate::plan::Verdict;
use crate::plan::bootstrap::Phase;
use crate::plan::permission::RETRY_ROLLOUT;
use crate::plan::wave::{self, Halt, ROLLOUT_HALTED};
use crate::reports::words::{NAMES_LIMIT, listed};

/// The reason where the owner has paused the management of the pool.
pub(super) const PAUSED: &str = "Paused";

pub(super) fn progressing(seen: &Seen<'_>) -> Undated {
    let standing = match &seen.plan.verdict {
        Verdict::Accepted { .. } => None,
        Verdict::Paused { .. } => Some((PAUSED, "spec.management is Paused")),
        Verdict::Rejected { rejection, .. } => {
            Some((rejection.reason(), "the spec is not obeyed, see Accepted"))
        }
    };
    if let Some((reason, why)) = standing {
        let stays = "proxies and standbys stay as they are".to_owned();
        let what = seen.plan.waves.halt().map_or(stays, |halt| {
            format!("{}, and the last good template comes back", failed(halt))
        });
        return Undated::no(reason, format!("{why}; {what}"));
    }
    if let Some(refused) = seen.refused {
        let stays = match refused.kind {
            Kind::ConfigMap | Kind::DaemonSet => "",
            Kind::Writer => "; the standbys stay as they are",
        };
        return Undated::no(refused.reason, format!("{}{stays}", refused.words));
    }
    let available = proxies::available(seen);
    if let Some(told) = waves(seen, &available.message) {
        return told;
    }
    match &seen.plan.bootstrap {
        Phase::Forbidden => Undated::no(
            BOOTSTRAP_FORBIDDEN,
            "spec.nodeBootstrap: this installation lets nobody place or remove static pods, and the standbys stay as they \
             are; set the chart value nodeBootstrap.enabled to true"
                .to_owned(),
        ),
        Phase::AwaitsWay(nodes) => Undated::no("AwaitingProxies", awaits_way(nodes)),
        Phase::Off | Phase::AwaitsProxies | Phase::AwaitsRollout | Phase::Soaks | Phase::Writes | Phase::Removes
            if available.holds != Holds::True =>
        {
            goes_on("RollingOut", available.message)
        }
        Phase::Off => goes_on("Complete", "every node has what the spec wants".to_owned()),
        Phase::AwaitsProxies | Phase::AwaitsRollout => goes_on(
            "RollingOut",
            "the standbys follow once every ready node has an available proxy of the newest template".to_owned(),
        ),
        Phase::Soaks => goes_on(
            "Soaking",
            "the standbys get the newest template once the proxies have been available with it for long enough".to_owned(),
        ),
        Phase::Writes => writer(seen, "WritingManifests", "have the manifest of their standby"),
        Phase::Removes => writer(seen, "RemovingManifests", "are without the manifest of a standby"),
    }
}

/// How far the waves of a new template are, while they decide what happens. `available` counts the proxies.
fn waves(seen: &Seen<'_>, available: &str) -> Option<Undated> {
    let aside = proxies::names(seen.uncounted);
    match &seen.plan.waves {
        wave::Phase::Settled | wave::Phase::Ungated => None,
        wave::Phase::Starts => Some(goes_on(
            "RollingOut",
            format!(
                "wave 1: the new template waits for a ready node with a running pod of it{aside}{}",
                failures(seen)
            ),
        )),
        wave::Phase::First { node, awaits } => Some(goes_on(
            "RollingOut",
            format!("wave 1: node {node} alone has the new template; the others wait for {awaits}{aside}"),
        )),
        wave::Phase::Rest { done, awaited, stuck } => {
            let all = done.saturating_add(awaited.len()).saturating_add(stuck.len());
            let which = |what, nodes: &[String]| match nodes {
                [] => String::new(),
                nodes => format!("{what}{}", listed(nodes.iter().cloned())),
            };
            let (awaited, stuck) = (
                which(", waits for ", awaited),
                which("; these cannot start it and are not waited for: ", stuck),
            );
            let message = format!(
                "wave 2: {done} of {all} nodes serve with the new template{awaited}{stuck}; {available}"
            );
            Some(goes_on("RollingOut", message))
        }
        wave::Phase::Paused => Some(Undated::no(
            "RolloutPaused",
            format!("the new template waits: set spec.rollout.policy to Automatic{aside}"),
        )),
        wave::Phase::RollsBack(halt) => {
            let message = format!("{}; the last good template comes back: {available}", failed(halt));
            Some(Undated::no(ROLLOUT_HALTED, message))
        }
        wave::Phase::Halted { halt, is_rolled_back } => {
            let back = if *is_rolled_back {
                "the last good template is back"
            } else {
                "the last good template cannot be read, so each node keeps the proxy that it has"
            };
            let message = format!(
                "{}; {back}, and this one is not tried again: edit spec.proxy; or, where the cause was another, set the \
                 annotation {RETRY_ROLLOUT} of the pool to {} to try it once more (remove it first if it stands)",
                failed(halt),
                seen.generation.unwrap_or_default()
            );
            Some(Undated::no(ROLLOUT_HALTED, message))
        }
    }
}

/// The end of a message: why pods do not start.
fn failures(seen: &Seen<'_>) -> String {
    match seen.failures {
        [] => String::new(),
        failures => format!("; {}", failures.join("; ")),
    }
}

/// That a template has failed, where and why.
pub(in crate::report) fn failed(halt: &Halt) -> String {
    let Halt {
        template,
        node,
        cause,
    } = halt;
    match node.as_str() {
        "" => format!("the template {template} has failed: {cause}"),
        node => format!("the template {template} has failed on node {node}: {cause}"),
    }
}

fn goes_on(reason: &'static str, message: String) -> Undated {
    Undated {
        holds: Holds::True,
        reason,
        message,
    }
}

/// How far the writer is, and why it fails.
fn writer(seen: &Seen<'_>, reason: &'static str, done: &str) -> Undated {
    let (ready, desired) = seen.writer.map(counted).unwrap_or_default();
    let message = format!("{ready} of {desired} nodes {done}");
    if !seen.writer_failures.is_empty() {
        return Undated::no(
            "WriterFailing",
            format!("{message}: {}", seen.writer_failures.join("; ")),
        );
    }
    let is_complete = desired > 0 && ready >= desired;
    goes_on(if is_complete { "Complete" } else { reason }, message)
}

/// How many nodes have run the newest writer, at least, and of how many.
fn counted(writer: &DaemonSet) -> (i32, i32) {
    let Some(status) = &writer.status else {
        return (0, 0);
    };
    let is_seen = status.observed_generation >= writer.metadata.generation;
    let updated = status.updated_number_scheduled.unwrap_or_default();
    let ready = if is_seen {
        updated.min(status.number_ready)
    } else {
        0
    };
    (ready, status.desired_number_scheduled)
}

fn awaits_way(nodes: &[String]) -> String {
    let named: Vec<_> = nodes.iter().take(NAMES_LIMIT).map(String::as_str).collect();
    let which = match nodes.len() {
        0 => "the rollout of the proxies is complete".to_owned(),
        1..=NAMES_LIMIT => format!(
            "these nodes have a ready proxy of the DaemonSet: {}",
            named.join(", ")
        ),
        more => format!(
            "{more} nodes have a ready proxy of the DaemonSet: {} and {} more",
            named.join(", "),
            more.saturating_sub(NAMES_LIMIT)
        ),
    };
    format!(
        "the standbys stay until {which}, because a standby may be the only way of its node to the API; delete the Node \
         objects of nodes that do not come back"
    )
}
