//! When the proxies of a fleet write their reports: simulated on a clock of its own, over the code by which each decides.

use std::time::Duration;

use anyhow::Result;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::time::Instant;
use trivet_proxy::report::pacing::Pacing;

use super::rows::Row;

/// The writes of a fleet in any second, at most.
const WRITES: f64 = 50.0;

/// The pause between two looks of a proxy for a change.
const LOOK: Duration = Duration::from_secs(1);

/// The fleets of each kind: each draws other turns.
const FLEETS: u64 = 20;

/// When something happens to a fleet that was at rest before.
const AT: f64 = 900.0;

/// What happens to a fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// All proxies start at the same moment, as after a power cut.
    Start,
    /// All follow a new document, each within two seconds.
    Revision,
    /// A member falls silent: it is Down, loses its connections, is Up again and gets connections again. Each is a change.
    LostMember,
    /// No write succeeds for five minutes, while a member goes.
    Outage,
    /// A member comes and goes all the time: each look finds something else.
    Flapping,
    /// Nothing, for an hour.
    Rest,
}

/// What was seen of a fleet.
#[derive(Clone, Debug, Default)]
struct Seen {
    /// The writes, by time, in seconds.
    writes: Vec<f64>,
    /// When the last proxy had written what had happened to it, in seconds after that.
    all_after: f64,
}

impl Kind {
    const ALL: [Self; 6] = [
        Self::Start,
        Self::Revision,
        Self::LostMember,
        Self::Outage,
        Self::Flapping,
        Self::Rest,
    ];

    fn words(self) -> &'static str {
        match self {
            Self::Start => "all proxies start at once",
            Self::Revision => "a new revision",
            Self::LostMember => "a member that falls silent and comes back",
            Self::Outage => "five minutes without an apiserver",
            Self::Flapping => "a member that comes and goes all the time",
            Self::Rest => "an hour at rest",
        }
    }

    /// For how long it is looked at, in seconds.
    fn lasts(self) -> u32 {
        match self {
            Self::Start => 900,
            Self::Revision | Self::LostMember | Self::Outage | Self::Flapping => 1800,
            Self::Rest => 3600,
        }
    }

    /// When something changes for one proxy, in seconds; what it starts with is reported too.
    fn changes(self, random: &mut StdRng) -> Vec<f64> {
        let mut after = |low: f64, high: f64| AT + random.random_range(low..high);
        match self {
            Self::Start | Self::Rest => Vec::new(),
            Self::Revision => vec![after(0.0, 2.0)],
            // In a fleet of 5,000 it is found Down within 8 s, and cut within 10.
            Self::LostMember => vec![
                after(2.8, 8.0),
                after(8.0, 10.0),
                after(120.0, 150.0),
                after(150.0, 200.0),
            ],
            Self::Outage => vec![after(2.8, 8.0), after(290.0, 310.0)],
            Self::Flapping => (0..300).map(|second| AT + f64::from(second)).collect(),
        }
    }

    /// Whether a write succeeds.
    fn is_written(self, at: f64) -> bool {
        self != Self::Outage || !(AT..AT + 300.0).contains(&at)
    }
}

/// Runs one fleet.
fn run(kind: Kind, nodes: u32, number: u64) -> Seen {
    let mut random = StdRng::seed_from_u64(number);
    let mut seen = Seen::default();
    for _ in 0..nodes {
        // A power cut ends for all nodes at once, so that their looks fall on the same moments.
        let first = if kind == Kind::Start {
            0.0
        } else {
            random.random_range(0.0..1.0)
        };
        proxy(kind, told(nodes), first, &mut random, &mut seen);
    }
    seen.writes.sort_by(f64::total_cmp);
    seen
}

/// The count of nodes that the document tells: larger fleets in steps of 512.
fn told(nodes: u32) -> u32 {
    if nodes <= 512 {
        nodes.next_power_of_two()
    } else {
        nodes.next_multiple_of(512)
    }
}

/// One proxy, whose first look is at that time.
fn proxy(kind: Kind, nodes: u32, first: f64, random: &mut StdRng, seen: &mut Seen) {
    let began = Instant::now();
    let mut pacing = Pacing::new(began, random.random());
    let mut changes = kind.changes(random).into_iter().peekable();
    let (mut is_pending, mut last_change) = (true, first);
    for look in 0..kind.lasts() {
        let at = first + f64::from(look);
        let now = began + LOOK.mul_f64(at);
        while changes.next_if(|change| *change <= at).is_some() {
            (is_pending, last_change) = (true, at);
        }
        pacing.look(is_pending, now);
        if !pacing.is_due(now, nodes) {
            continue;
        }
        let is_written = kind.is_written(at);
        // A write that fails is one too.
        seen.writes.push(at);
        pacing.attempted(is_written, now, nodes);
        if is_written && std::mem::take(&mut is_pending) {
            seen.all_after = seen.all_after.max(at - last_change);
        }
    }
}

/// The most writes in any second, wherever it begins.
fn most_in_a_second(writes: &[f64]) -> usize {
    let mut most = 0;
    let mut first = 0;
    for (index, at) in writes.iter().enumerate() {
        while writes.get(first).is_some_and(|begin| at - begin >= 1.0) {
            first += 1;
        }
        most = most.max(index + 1 - first);
    }
    most
}

/// The figures of all kinds, each the worst of its fleets.
pub(crate) fn rows(nodes: usize) -> Result<Vec<Row>> {
    let nodes = u32::try_from(nodes)?;
    let mut rows = Vec::new();
    for kind in Kind::ALL {
        let fleets: Vec<_> = (0..FLEETS).map(|seed| run(kind, nodes, seed)).collect();
        let most = fleets.iter().map(|seen| most_in_a_second(&seen.writes)).max();
        let most = f64::from(u32::try_from(most.unwrap_or_default())?);
        let words = kind.words();
        rows.push(Row::new(format!("{words}: the most writes in a second"), most, "").at_most(WRITES));
        if kind == Kind::Rest {
            let writes = fleets.first().map_or(0, |seen| seen.writes.len());
            let a_second = f64::from(u32::try_from(writes)?) / f64::from(kind.lasts());
            rows.push(Row::new(
                format!("{words}: writes a second on average"),
                a_second,
                "",
            ));
        } else {
            let last = fleets.iter().map(|seen| seen.all_after).fold(0.0, f64::max);
            rows.push(Row::new(
                format!("{words}: until the last proxy has reported its change"),
                last,
                "s",
            ));
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size of the fleet that the promise is about.
    const NODES: u32 = 5000;

    /// The document tells 5,120 nodes: 20 writes a second on average, and a look more.
    const CYCLE: f64 = 5120.0 / 20.0 + 1.0;

    fn assert_kept(kind: Kind, nodes: u32) -> Seen {
        let seen = run(kind, nodes, 1);
        let most = most_in_a_second(&seen.writes);
        assert!(most <= 50, "{kind:?} of {nodes}: {most} writes in a second");
        seen
    }

    #[test]
    fn whatever_happens_to_5000_proxies_they_write_at_most_50_times_in_any_second() {
        for kind in Kind::ALL {
            let seen = assert_kept(kind, NODES);
            assert!(seen.writes.len() >= 5000, "{kind:?}: {}", seen.writes.len());
        }
    }

    #[test]
    fn a_change_of_5000_proxies_is_reported_within_256_seconds_and_not_much_sooner() {
        for kind in [Kind::Start, Kind::Revision] {
            let last = run(kind, NODES, 1).all_after;
            assert!((240.0..=CYCLE).contains(&last), "{kind:?}: {last}");
        }
        let back = run(Kind::Outage, NODES, 1).all_after;
        assert!(back <= CYCLE + 300.0, "{back}");
    }

    #[test]
    fn smaller_and_larger_fleets_keep_the_limit_too() {
        for nodes in [50, 64, 500, 1025] {
            for kind in [Kind::Start, Kind::Revision, Kind::Flapping] {
                assert_kept(kind, nodes);
            }
        }
        assert_kept(Kind::Start, 20_000);
    }

    #[test]
    fn the_most_in_a_second_is_counted_wherever_the_second_begins() {
        assert_eq!(most_in_a_second(&[0.0, 0.9, 1.0, 1.8, 1.85, 3.0]), 4);
        assert_eq!(most_in_a_second(&[]), 0);
    }
}
