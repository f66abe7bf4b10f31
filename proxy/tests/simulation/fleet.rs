//! A fleet of proxies: the balancers that every node runs, with all that is around them modelled.

pub(crate) mod clients;
mod opening;
pub(crate) mod probing;

use std::{collections::VecDeque, net::SocketAddr, time::Duration};

use tokio::time::Instant;
use trivet_proxy::balance::{
    Balance, Decision, Disabled, PathId, PathKey, Target, cuts, drain,
    health::{Policy, State},
    schedule, stranded,
};

use crate::{
    prober::{PERIOD, Round},
    queue::{Event, Queue, What},
    random::Random,
    schedule::{Condition, Schedule, Time},
    seen::{End, Seen},
};

/// As in `upstream/act.rs`: cuts that are due so soon are done at once.
const AT_ONCE: Duration = Duration::from_millis(5);

/// So long after a restart all clients are back.
const SETTLED: Duration = Duration::from_secs(5);

/// A client whose connection was ended is back so soon.
const BACK_WITHIN: Duration = Duration::from_millis(20);

/// A fleet, at some time of its schedule.
pub(crate) struct Fleet<'a> {
    schedule: &'a Schedule,
    random: Random,
    /// What the balancers take for the time 0.
    epoch: Instant,
    now: Time,
    queue: Queue,
    nodes: Vec<Node>,
    seen: Seen,
}

/// A node's proxy and its clients.
struct Node {
    balance: Balance,
    /// The upstreams of the members.
    ids: Vec<PathId>,
    upstreams: Vec<Upstream>,
    clients: Vec<Client>,
    /// How often its proxy has restarted.
    life: u32,
}

/// What runs for an upstream.
#[derive(Clone, Debug, Default)]
struct Upstream {
    /// The number of the prober's next step; what was planned for another number was called off.
    turn: u32,
    started: Time,
    rounds: u64,
    round: Option<(Round, usize)>,
    woken: bool,
    cutting: bool,
    /// The number of the move in force, odd while there is one, and when it is to be over.
    moves: u32,
    moved_by: Time,
    /// Connections that are open, not those that are being opened.
    open: usize,
}

/// A client, which always wants one connection.
#[derive(Clone, Debug)]
struct Client {
    /// Grows with every change; what was planned before it was called off.
    serial: u32,
    state: Connection,
}

#[derive(Clone, Debug)]
enum Connection {
    None,
    Opening(Box<Attempt>),
    Open(usize),
}

/// A connection that is being opened, as `open/walk.rs` and `open/race.rs` do it.
#[derive(Clone, Debug)]
struct Attempt {
    started: Time,
    left: VecDeque<usize>,
    /// Who accepted and leaves the client's first flight unanswered.
    asked: Vec<usize>,
    /// When the last of them was asked.
    asked_at: Time,
    /// Who lets a dial wait, and whether that was said.
    dialled: Vec<(usize, bool)>,
    stagger: Duration,
    hedge_delay: Option<Duration>,
    /// Whether the next wait ends with a hedge.
    hedges: bool,
}

/// Runs a schedule to its end.
pub(crate) fn run(schedule: &Schedule) -> Seen {
    let mut fleet = Fleet::new(schedule);
    fleet.plan();
    while let Some((at, event)) = fleet.queue.next() {
        if at > schedule.length {
            break;
        }
        fleet.now = at;
        fleet.happens(event);
    }
    fleet.seen
}

/// The interval that this fleet's proxies probe at.
pub(crate) fn interval(nodes: usize) -> Duration {
    schedule::probe_interval(u32::try_from(nodes).unwrap(), PERIOD)
}

impl<'a> Fleet<'a> {
    fn new(schedule: &'a Schedule) -> Self {
        let mut random = Random::of(schedule.seed);
        let epoch = Instant::now();
        let nodes = (0..schedule.nodes).map(|node| Node {
            balance: Balance::new(&name("node", node)),
            ids: Vec::new(),
            upstreams: Vec::new(),
            clients: vec![
                Client {
                    serial: 0,
                    state: Connection::None,
                };
                usize::try_from(random.between(schedule.clients.start, schedule.clients.end))
                    .unwrap()
            ],
            life: 0,
        });
        Self {
            schedule,
            nodes: nodes.collect(),
            epoch,
            now: Time::ZERO,
            queue: Queue::default(),
            seen: Seen::nothing(schedule.members, schedule.length),
            random,
        }
    }

    fn plan(&mut self) {
        for (member, faults) in self.schedule.faults.iter().enumerate() {
            for (index, fault) in faults.iter().enumerate() {
                self.queue.put(fault.from, Event::Fault { member, index });
                let gone = crate::promises::gone_within(self.schedule, fault);
                self.queue
                    .put(fault.from + gone, Event::Aftermath { member, index });
            }
        }
        for restart in &self.schedule.restarts {
            self.queue.put(*restart, Event::Restart);
            self.queue.put(*restart + SETTLED, Event::Census);
        }
        for node in 0..self.nodes.len() {
            // Nobody starts a whole fleet in one instant, but within a probe's interval or two it may be done.
            let started = self.random.time(Time::ZERO, Duration::from_secs(1));
            self.start_proxy(node, started);
        }
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Node { node, life, what } if self.nodes[node].life == life => self.happens_on(node, what),
            // Of a proxy that is no more.
            Event::Node { .. } => {}
            Event::Fault { member, index } => self.befall(member, index),
            Event::Aftermath { member, index } => self.look_back(member, index),
            Event::Restart => self.restart(),
            Event::Census => self.take_census(),
        }
    }

    fn happens_on(&mut self, node: usize, what: What) {
        match what {
            What::Probe { member, turn } => self.probe(node, member, turn),
            What::Look { member } => self.look(node, member),
            What::Cut { member } => self.cut(node, member),
            What::Move { member, turn } => self.close_next(node, member, turn),
            What::Open { client, serial } => self.open(node, client, serial),
            What::Wait { client, serial } => self.wait_over(node, client, serial),
            What::GiveUp { client, serial } => self.give_up(node, client, serial),
            What::Renew { client, serial } => self.renew(node, client, serial),
        }
    }

    fn put(&mut self, node: usize, at: Time, what: What) {
        let life = self.nodes[node].life;
        self.queue.put(at, Event::Node { node, life, what });
    }

    fn instant(&self, at: Time) -> Instant {
        self.epoch + at
    }

    fn start_proxy(&mut self, node: usize, at: Time) {
        let proven: Vec<_> = self.nodes[node]
            .balance
            .view()
            .iter()
            .map(|view| view.proven)
            .collect();
        let targets = (0..self.schedule.members).map(|member| Target {
            proven: proven.get(member).copied().unwrap_or_default(),
            ..target(member)
        });
        let mut balance = Balance::new(&name("node", node));
        let policy = Policy {
            failure_threshold: 2,
            success_threshold: 2,
            probe_interval: interval(self.schedule.nodes),
        };
        let configured = trivet_proxy::balance::Event::Configured {
            targets: targets.collect(),
            disabled: Disabled::default(),
            policy,
        };
        let decisions = balance.observe(configured, self.instant(at));
        let ids = decisions.into_iter().filter_map(|decision| match decision {
            Decision::Watch(id, _) => Some(id),
            _ => None,
        });
        let proxy = &mut self.nodes[node];
        proxy.ids = ids.collect();
        proxy.balance = balance;
        proxy.life += 1;
        proxy.upstreams = vec![Upstream::default(); self.schedule.members];
        for member in 0..self.schedule.members {
            self.put(node, at, What::Probe { member, turn: 0 });
        }
        for client in 0..self.nodes[node].clients.len() {
            let slot = &mut self.nodes[node].clients[client];
            slot.serial += 1;
            slot.state = Connection::None;
            let serial = slot.serial;
            let opens = at
                + self
                    .random
                    .time(Duration::from_millis(200), Duration::from_secs(1));
            self.put(node, opens, What::Open { client, serial });
        }
    }

    fn restart(&mut self) {
        for node in 0..self.nodes.len() {
            let started = self.now + self.random.time(Time::ZERO, Duration::from_secs(1));
            self.start_proxy(node, started);
        }
    }

    /// Tells a node's balancer, and does what it decides.
    fn tell(&mut self, node: usize, event: trivet_proxy::balance::Event) {
        let now = self.instant(self.now);
        let decisions = self.nodes[node].balance.observe(event, now);
        for decision in decisions {
            self.carry_out(node, decision);
        }
    }

    fn carry_out(&mut self, node: usize, decision: Decision) {
        match decision {
            Decision::Probe(id) => self.wake(node, self.member(node, id)),
            Decision::Tell { id, path, .. } => {
                if path.to.0 == State::Down {
                    self.seen.downs.push((self.now, node, self.member(node, id)));
                }
            }
            Decision::Cut(id) => self.decide_cut(node, self.member(node, id)),
            Decision::Move(id) => self.begin_move(node, self.member(node, id)),
            Decision::Restore(id) => {
                let member = self.member(node, id);
                let upstream = &mut self.nodes[node].upstreams[member];
                upstream.moves += upstream.moves % 2;
            }
            // The members of a schedule are all there from the start to the end.
            Decision::Watch(..) | Decision::Drain(_) | Decision::Forget(..) => {
                self.seen
                    .broken
                    .push(format!("{decision:?} though no document changed"));
            }
            Decision::Remember(..) => {}
        }
    }

    fn member(&self, node: usize, id: PathId) -> usize {
        self.nodes[node]
            .ids
            .iter()
            .position(|known| *known == id)
            .unwrap()
    }

    fn condition(&self, node: usize, member: usize) -> Condition {
        self.schedule.condition(node, member, self.now)
    }

    fn decide_cut(&mut self, node: usize, member: usize) {
        self.must_be_silent(node, member);
        let upstream = &mut self.nodes[node].upstreams[member];
        if std::mem::replace(&mut upstream.cutting, true) {
            return;
        }
        let nodes = u32::try_from(self.schedule.nodes).unwrap();
        let delay = cuts::cut_delay(nodes, self.random.chance());
        if delay > AT_ONCE {
            self.put(node, self.now + delay, What::Cut { member });
        } else {
            self.cut(node, member);
        }
    }

    /// Only silence cuts. Between two probes a node cannot know that a member speaks again.
    fn must_be_silent(&mut self, node: usize, member: usize) {
        let since = self
            .now
            .saturating_sub(interval(self.schedule.nodes) * 11 / 10 + Duration::from_secs(2));
        let now = self.now;
        let silent = self.schedule.faults[member].iter().any(|fault| {
            fault.condition.is_silent() && fault.seen_by(node) && fault.from <= now && fault.until >= since
        });
        if !silent {
            let condition = self.condition(node, member);
            let broken = format!("{now:?}: node {node} cuts member {member}, which is {condition:?}");
            self.seen.broken.push(broken);
        }
    }

    fn cut(&mut self, node: usize, member: usize) {
        self.nodes[node].upstreams[member].cutting = false;
        let proxy = &self.nodes[node];
        let health = proxy.balance.health(proxy.ids[member]);
        if health.is_none_or(|(state, _)| state != State::Down) {
            return;
        }
        for client in self.clients_of(node, member) {
            let cuts = self.seen.cuts.entry((node, client)).or_default();
            *cuts += 1;
            self.seen.most_cuts = self.seen.most_cuts.max(*cuts);
            self.end(node, client, End::Cut);
        }
    }

    /// As `upstream/drain.rs` does it: one connection at a time, evenly spread.
    fn begin_move(&mut self, node: usize, member: usize) {
        let upstream = &mut self.nodes[node].upstreams[member];
        upstream.moves += 1 + upstream.moves % 2;
        upstream.moved_by = self.now + stranded::MOVE_WITHIN;
        self.plan_next_close(node, member);
    }

    fn close_next(&mut self, node: usize, member: usize, turn: u32) {
        if self.nodes[node].upstreams[member].moves != turn {
            return;
        }
        if let Some(client) = self.clients_of(node, member).first() {
            self.end(node, *client, End::Moved);
        }
        self.plan_next_close(node, member);
    }

    fn plan_next_close(&mut self, node: usize, member: usize) {
        let Upstream {
            moves: turn,
            moved_by,
            open,
            ..
        } = self.nodes[node].upstreams[member];
        if open > 0 {
            let step = drain::drain_step(moved_by.saturating_sub(self.now), open);
            self.put(node, self.now + step, What::Move { member, turn });
        }
    }
}

fn name(kind: &str, index: usize) -> String {
    format!("{kind}-{index}")
}

fn target(member: usize) -> Target {
    Target {
        key: PathKey {
            member: name("cp", member),
            address: SocketAddr::from(([10, 0, 0, u8::try_from(member).unwrap()], 6443)),
        },
        preference: 0,
        draining: false,
        proven: false,
        distance: trivet_proxy::balance::place::Distance::Elsewhere,
    }
}
