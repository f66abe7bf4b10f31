//! What befalls the members, all of it known before the simulation starts: who asks learns when an answer will come.

use std::{ops::Range, time::Duration};

use crate::random::Random;

/// Time since the simulation began.
pub(crate) type Time = Duration;

/// How a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// Answers.
    Well,
    /// Answers that it is not ready, and serves.
    NotReady,
    /// Cut off from etcd: late with its readiness, alive, and serves what needs no etcd.
    EtcdCut,
    /// Its process is gone: its kernel refuses.
    Killed,
    /// Its process is stopped: its kernel accepts and acknowledges, and nothing answers.
    Hung,
    /// No packet comes back.
    Blackholed,
}

impl Condition {
    pub(crate) const FAULTS: [Self; 5] = [
        Self::NotReady,
        Self::EtcdCut,
        Self::Killed,
        Self::Hung,
        Self::Blackholed,
    ];

    /// Whether nothing at all answers.
    pub(crate) fn is_silent(self) -> bool {
        match self {
            Self::Hung | Self::Blackholed => true,
            Self::Well | Self::NotReady | Self::EtcdCut | Self::Killed => false,
        }
    }

    /// Whether a TLS handshake succeeds.
    pub(crate) fn serves(self) -> bool {
        match self {
            Self::Well | Self::NotReady | Self::EtcdCut => true,
            Self::Killed | Self::Hung | Self::Blackholed => false,
        }
    }
}

/// A fault of one member.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) member: usize,
    pub(crate) condition: Condition,
    pub(crate) from: Time,
    pub(crate) until: Time,
    /// Only every so manieth node sees it (a one-way partition); 1 is all.
    pub(crate) every: usize,
}

impl Fault {
    /// Whether this node sees it.
    pub(crate) fn seen_by(&self, node: usize) -> bool {
        node.is_multiple_of(self.every)
    }
}

/// A fleet and what befalls it.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    pub(crate) seed: u64,
    pub(crate) nodes: usize,
    pub(crate) members: usize,
    pub(crate) length: Time,
    /// Those of each member, in order of time and apart from each other, except that partitions lie over others.
    pub(crate) faults: Vec<Vec<Fault>>,
    /// When all proxies restart at once.
    pub(crate) restarts: Vec<Time>,
    /// How many clients a node has.
    pub(crate) clients: Range<u64>,
    /// Whether connections carry requests all the time, or lie idle.
    pub(crate) busy: bool,
}

/// What a question asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// `/readyz?verbose`
    Readiness,
    /// `/livez?exclude=etcd`
    Life,
}

/// How a question ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Ready,
    NotReady,
    EtcdFailed,
    Refused,
}

/// What an apiserver that is well takes to answer.
const FASTEST: Duration = Duration::from_millis(3);
pub(crate) const SLOWEST: Duration = Duration::from_millis(60);

/// As measured on an apiserver whose etcd is cut off.
const READINESS_WITHOUT_ETCD: Duration = Duration::from_secs(4);

impl Schedule {
    /// A quiet fleet.
    pub(crate) fn quiet(nodes: usize, members: usize, length: Time) -> Self {
        Self {
            seed: 1,
            nodes,
            members,
            length,
            faults: vec![Vec::new(); members],
            restarts: Vec::new(),
            clients: 10..31,
            busy: false,
        }
    }

    pub(crate) fn with(mut self, condition: Condition, member: usize, from: Time, until: Time) -> Self {
        self.add(Fault {
            member,
            condition,
            from,
            until,
            every: 1,
        });
        self
    }

    /// All faults, a member's together.
    pub(crate) fn faults(&self) -> impl Iterator<Item = &Fault> {
        self.faults.iter().flatten()
    }

    fn add(&mut self, fault: Fault) {
        self.faults[fault.member].push(fault);
    }

    /// Anything: fleets of all sizes, and faults of all kinds, alone and together.
    pub(crate) fn of(seed: u64) -> Self {
        let mut random = Random::of(seed);
        // As many fleets of 5 as of 50, 500 or 5,000.
        let nodes = (1000_f64.powf(random.chance()) * 5.0).round();
        let length = Duration::from_secs(if nodes > 500.0 { 60 } else { 180 });
        let members = if random.once_in(2) {
            3
        } else {
            random.between(1, 10)
        };
        let members = usize::try_from(members).unwrap();
        let mut schedule = Self {
            seed,
            busy: random.once_in(2),
            ..Self::quiet(format!("{nodes}").parse().unwrap(), members, length)
        };
        for member in 0..schedule.members {
            schedule.befall(member, &mut random);
        }
        if random.once_in(3) {
            schedule.befall_all(&mut random);
        }
        if random.once_in(4) {
            schedule.restarts.push(random.time(length / 4, length / 2));
        }
        schedule
    }

    /// Faults of one member, one after another.
    fn befall(&mut self, member: usize, random: &mut Random) {
        const SECOND: Duration = Duration::from_secs(1);
        let mut from = random.time(SECOND, 2 * self.length);
        let flapping = random.once_in(8);
        while from < self.length {
            let lasting = if flapping {
                3 * SECOND
            } else {
                random.time(SECOND / 10, 40 * SECOND)
            };
            let kind = random.between(0, 5);
            self.add(Fault {
                member,
                condition: if flapping {
                    Condition::Hung
                } else {
                    Condition::FAULTS[usize::try_from(kind).unwrap()]
                },
                from,
                until: from + lasting,
                every: 1,
            });
            from += lasting
                + if flapping {
                    2 * SECOND
                } else {
                    random.time(SECOND / 10, 60 * SECOND)
                };
        }
        if random.once_in(6) {
            let from = random.time(SECOND, self.length);
            self.add(Fault {
                member,
                condition: Condition::Blackholed,
                from,
                until: from + random.time(SECOND, 30 * SECOND),
                every: 3,
            });
        }
    }

    /// The same fault of all members in the same instant, in the last third.
    fn befall_all(&mut self, random: &mut Random) {
        let kind = usize::try_from(random.between(0, 5)).unwrap();
        let from = self.length * 2 / 3;
        let until = from + random.time(Duration::from_secs(1), Duration::from_secs(15));
        for faults in &mut self.faults {
            faults.retain(|fault| fault.until < from);
        }
        for member in 0..self.members {
            self.add(Fault {
                member,
                condition: Condition::FAULTS[kind],
                from,
                until,
                every: 1,
            });
        }
    }

    /// How this node finds this member.
    pub(crate) fn condition(&self, node: usize, member: usize, at: Time) -> Condition {
        let found = self
            .of_member(node, member)
            .filter(|fault| fault.from <= at && at < fault.until);
        found.last().map_or(Condition::Well, |fault| fault.condition)
    }

    /// Until when that stays so; none if for ever.
    pub(crate) fn until(&self, node: usize, member: usize, at: Time) -> Option<Time> {
        self.of_member(node, member)
            .flat_map(|fault| [fault.from, fault.until])
            .filter(|change| *change > at)
            .min()
    }

    /// When a question of this node that is put at `asked` is answered, and how; none if never. `luck` in 0..1 says how
    /// fast.
    pub(crate) fn answer(
        &self,
        (node, member): (usize, usize),
        question: Question,
        asked: Time,
        luck: f64,
    ) -> Option<(Time, Answer)> {
        let latency = FASTEST + (SLOWEST - FASTEST).mul_f64(luck);
        let mut since = asked;
        loop {
            let condition = self.condition(node, member, since);
            let until = self.until(node, member, since);
            let (takes, answer) = match (condition, question) {
                (Condition::Well, _) | (Condition::EtcdCut | Condition::NotReady, Question::Life) => {
                    (latency, Some(Answer::Ready))
                }
                (Condition::NotReady, Question::Readiness) => (latency, Some(Answer::NotReady)),
                (Condition::EtcdCut, Question::Readiness) => {
                    (READINESS_WITHOUT_ETCD, Some(Answer::EtcdFailed))
                }
                (Condition::Killed, _) => (Duration::ZERO, Some(Answer::Refused)),
                (Condition::Hung | Condition::Blackholed, _) => (Duration::ZERO, None),
            };
            let at = since + takes;
            match (answer, until) {
                (Some(answer), Some(until)) if at < until => return Some((at, answer)),
                (Some(answer), None) => return Some((at, answer)),
                (None, None) => return None,
                // The kernel sends again ever more rarely: after a time of silence the next packet is as far away.
                (_, Some(until)) if condition == Condition::Blackholed => {
                    since = until + (until - since).mul_f64(luck);
                }
                (_, Some(until)) => since = until,
            }
        }
    }

    fn of_member(&self, node: usize, member: usize) -> impl Iterator<Item = &Fault> {
        self.faults[member]
            .iter()
            .filter(move |fault| fault.seen_by(node))
    }
}
