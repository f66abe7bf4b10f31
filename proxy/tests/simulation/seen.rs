//! What was seen of a fleet.

use std::{collections::BTreeMap, time::Duration};

use crate::schedule::Time;

/// Counts by time.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    width: Duration,
    counts: Vec<u32>,
}

impl Histogram {
    pub(crate) fn new(width: Duration, length: Duration) -> Self {
        let bins = usize::try_from(length.as_millis() / width.as_millis()).unwrap() + 1;
        Self {
            width,
            counts: vec![0; bins],
        }
    }

    pub(crate) fn count(&mut self, at: Time) {
        let bin = usize::try_from(at.as_micros() / self.width.as_micros()).unwrap();
        if let Some(count) = self.counts.get_mut(bin) {
            *count += 1;
        }
    }

    /// The most that was counted in any stretch of this length between two times.
    pub(crate) fn peak(&self, stretch: Duration, from: Time, until: Time) -> u32 {
        let bins = |time: Duration| usize::try_from(time.as_micros() / self.width.as_micros()).unwrap();
        let counts = self
            .counts
            .get(bins(from)..bins(until).min(self.counts.len()))
            .unwrap_or_default();
        let windows = counts.windows(bins(stretch).clamp(1, counts.len().max(1)));
        windows
            .map(|window| window.iter().sum())
            .max()
            .unwrap_or_default()
    }

    /// All that was counted between two times.
    pub(crate) fn sum(&self, from: Time, until: Time) -> u32 {
        self.peak(until - from, from, until)
    }
}

/// How a client's connection ended that was not closed by its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    /// The proxy cut it: its upstream was Down.
    Cut,
    /// The proxy closed it: its upstream was cut off from etcd.
    Moved,
    /// The kernel gave up on the upstream's host.
    GivenUp,
    /// The upstream's kernel reset it.
    Killed,
}

/// What was seen.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Questions put to each member.
    pub(crate) questions: Vec<Histogram>,
    /// Clients' handshakes with each member.
    pub(crate) handshakes: Vec<Histogram>,
    /// When which member was called Down by which node.
    pub(crate) downs: Vec<(Time, usize, usize)>,
    /// Ends of connections: when, on which node, to which member.
    pub(crate) ends: BTreeMap<End, Vec<(Time, usize, usize)>>,
    /// How often each client of each node was cut from the connection that it wants to keep.
    pub(crate) cuts: BTreeMap<(usize, usize), u32>,
    /// The most of those ever.
    pub(crate) most_cuts: u32,
    /// Connections that a fault has left when all of them should be gone: by member and its number.
    pub(crate) left: BTreeMap<(usize, usize), usize>,
    /// How many connections each member had after a restart of the fleet.
    pub(crate) spread: Vec<(Time, Vec<usize>)>,
    /// How long an opening took at most.
    pub(crate) slowest: Duration,
    /// Promises that were broken on the way.
    pub(crate) broken: Vec<String>,
}

impl Seen {
    pub(crate) fn nothing(members: usize, length: Time) -> Self {
        let bins = |width| vec![Histogram::new(Duration::from_millis(width), length); members];
        Self {
            questions: bins(1000),
            handshakes: bins(100),
            downs: Vec::new(),
            ends: BTreeMap::new(),
            cuts: BTreeMap::new(),
            most_cuts: 0,
            left: BTreeMap::new(),
            spread: Vec::new(),
            slowest: Duration::ZERO,
            broken: Vec::new(),
        }
    }

    pub(crate) fn ended(&self, end: End) -> &[(Time, usize, usize)] {
        self.ends.get(&end).map_or(&[], Vec::as_slice)
    }
}
