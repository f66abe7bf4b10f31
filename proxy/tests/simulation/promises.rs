//! What was promised of every fleet, whatever befalls it.

use std::{collections::BTreeSet, time::Duration};

use trivet_proxy::balance::{cuts, schedule};

use crate::{
    fleet::{clients, interval, probing},
    schedule::{Condition, Fault, SLOWEST, Schedule, Time},
    seen::Seen,
};

/// How long a question for life may take.
const LIFE_LIMIT: Duration = Duration::from_millis(1100);

/// A question for readiness is late after 500 ms, and one for life follows it.
const SILENT_AFTER: Duration = Duration::from_millis(1600);

/// Of numbers that are drawn: what a bound may be exceeded by.
const SLACK: Duration = Duration::from_millis(20);

/// Within what time every node calls a silent member Down that was well before.
pub(crate) fn noticed_within(nodes: usize) -> Duration {
    schedule::jittered(interval(nodes), 1.0) + SILENT_AFTER + SLACK
}

/// Within what time every node calls a blackholed member Down that was well before: the kernel ends the probe's idle
/// connection, and the next probe starts at once.
pub(crate) fn blackhole_noticed_within(nodes: usize) -> Duration {
    noticed_within(nodes).min(probing::KEEPALIVE_IDLE + probing::KEEPALIVE_LIMIT + SILENT_AFTER + SLACK)
}

/// Within what time no connection to a silent member is left while another is well.
pub(crate) fn gone_within(schedule: &Schedule, fault: &Fault) -> Duration {
    let cut = cuts::cut_delay(u32::try_from(schedule.nodes).unwrap(), 1.0);
    let cut_after = |noticed: Duration| noticed + witnessed_within(schedule, fault) + cut;
    match fault.condition {
        Condition::Blackholed if schedule.busy => cut_after(blackhole_noticed_within(schedule.nodes)),
        // The kernel ends an idle client's connection by itself.
        Condition::Blackholed => cut_after(blackhole_noticed_within(schedule.nodes))
            .min(clients::KEEPALIVE_IDLE + clients::KEEPALIVE_LIMIT + SLACK),
        Condition::Well | Condition::NotReady | Condition::EtcdCut | Condition::Killed | Condition::Hung => {
            cut_after(noticed_within(schedule.nodes))
        }
    }
}

/// Within what time another has answered after a member fell: the others are asked at once. If several were in trouble
/// lately, they may be asked no more, and it takes until the next probe of one that is well.
fn witnessed_within(schedule: &Schedule, fault: &Fault) -> Duration {
    let interval = interval(schedule.nodes);
    let from = fault.from.saturating_sub(calm(schedule.nodes));
    let until = fault.from + noticed_within(schedule.nodes) + SLOWEST;
    let mut others = schedule.faults().filter(|other| other.member != fault.member);
    if others.any(|other| other.from <= until && other.until >= from) {
        let next = schedule::jittered(interval, 1.0).saturating_sub(LIFE_LIMIT);
        next.max(SLOWEST)
    } else {
        SLOWEST
    }
}

/// A fleet has found its rhythm again so long after a fault or a restart.
fn calm(nodes: usize) -> Duration {
    2 * interval(nodes) + Duration::from_secs(10)
}

/// All promises that this schedule saw broken.
pub(crate) fn broken(schedule: &Schedule, seen: &Seen) -> Vec<String> {
    let mut broken = seen.broken.clone();
    for (member, faults) in schedule.faults.iter().enumerate() {
        for (index, fault) in faults.iter().enumerate() {
            if strikes_alone(schedule, member, fault) {
                broken.extend(unnoticed(schedule, seen, fault));
                broken.extend(left(seen, fault, index));
            }
        }
    }
    broken.extend(overloaded(schedule, seen));
    broken.extend(uneven(schedule, seen));
    broken
}

/// Whether a member falls silent for long that was well, while another is well: then the promised times hold.
fn strikes_alone(schedule: &Schedule, member: usize, fault: &Fault) -> bool {
    let calm = calm(schedule.nodes);
    let gone = gone_within(schedule, fault).max(noticed_within(schedule.nodes));
    let (from, until) = (fault.from.saturating_sub(calm), fault.from + gone);
    let quiet = |other: usize| {
        let overlaps =
            |known: &&Fault| known.from <= until && known.until >= from && known.from != fault.from;
        schedule.faults[other].iter().find(overlaps).is_none()
    };
    let well = |other: usize| {
        quiet(other)
            && !schedule.faults[other]
                .iter()
                .any(|known| known.from == fault.from)
    };
    fault.condition.is_silent()
        && fault.from >= calm + Duration::from_secs(5)
        && fault.until > until
        && until < schedule.length
        && !schedule
            .restarts
            .iter()
            .any(|restart| *restart + calm >= from && *restart <= until)
        && quiet(member)
        && (0..schedule.members).any(|other| other != member && well(other))
}

fn unnoticed(schedule: &Schedule, seen: &Seen, fault: &Fault) -> Option<String> {
    let until = fault.from + noticed_within(schedule.nodes);
    let noticed = seen
        .downs
        .iter()
        .filter(|(at, _, member)| *member == fault.member && (fault.from..=until).contains(at));
    let noticed: BTreeSet<_> = noticed.map(|(_, node, _)| *node).collect();
    let blind = (0..schedule.nodes).find(|node| fault.seen_by(*node) && !noticed.contains(node))?;
    Some(format!(
        "node {blind} does not call the member Down by {until:?}: {fault:?}"
    ))
}

fn left(seen: &Seen, fault: &Fault, index: usize) -> Option<String> {
    let left = *seen.left.get(&(fault.member, index))?;
    (left > 0).then(|| format!("{left} connections are left too long: {fault:?}"))
}

/// Over an interval or more no member is asked more often than the pace allows, but for the second questions to one
/// that is late, or those to one that is well on its behalf. The first minute of a fleet has its own rhythm.
fn overloaded(schedule: &Schedule, seen: &Seen) -> Option<String> {
    let window = Duration::from_secs(10).max(interval(schedule.nodes));
    let (from, until) = (2 * window, schedule.length);
    let rounds = window.as_secs_f64() / interval(schedule.nodes).as_secs_f64();
    let nodes = f64::from(u32::try_from(schedule.nodes).unwrap());
    // An extra probe in ten seconds, and the one that a lost connection asks for.
    let allowed = nodes * 2.0 * (rounds + 2.0);
    let peak = |member: usize| seen.questions[member].peak(window, from, until);
    let asked = (0..schedule.members).map(|member| (peak(member), member)).max()?;
    (f64::from(asked.0) > allowed).then(|| {
        format!(
            "member {} is asked {} times within {window:?}, {allowed:.0} allowed",
            asked.1, asked.0
        )
    })
}

/// After a restart of the whole fleet the connections are spread evenly over members that were well all the time.
fn uneven(schedule: &Schedule, seen: &Seen) -> Option<String> {
    // Below that, which members get the odd connection of each node is a matter of luck.
    const MANY: usize = 500;
    if schedule.nodes < MANY {
        return None;
    }
    let disturbed = |at: Time| {
        schedule
            .faults()
            .any(|fault| fault.from <= at && fault.until + Duration::from_secs(60) >= at)
    };
    let counts = seen.spread.iter().filter(|(at, _)| !disturbed(*at));
    let worst = counts
        .map(|(at, counts)| (max_over_mean(counts), at))
        .max_by(|left, right| left.0.total_cmp(&right.0));
    let (ratio, at) = worst?;
    (ratio > 1.15).then(|| format!("{at:?}: the busiest member has {ratio:.2} of the mean after a restart"))
}

/// How much more the busiest has than the average.
pub(crate) fn max_over_mean(counts: &[usize]) -> f64 {
    let number = |count: usize| f64::from(u32::try_from(count).unwrap());
    let most = counts.iter().copied().max().unwrap_or_default();
    let all: usize = counts.iter().sum();
    number(most) * number(counts.len()) / number(all.max(1))
}
