//! One run: the processes of a node, the trigger, the fault, and what must hold afterwards.

mod judge;

use std::{sync::Arc, time::Duration};

use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep};

use crate::{
    apiserver::Apiserver,
    clients::{Attempt, Clients, Outcome},
    established::Established,
    fault::Faults,
    node::Node,
    plan::{Connections, Harm, Plan, Trigger},
    process::Process,
};

/// Far beyond what a loaded machine needs for a start.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long the processes may need after the last fault until the highest in rank serves: they come back after a fault of
/// a channel (1 s), and a process that took waits for the one that gave (5 s).
const SETTLE_LIMIT: Duration = Duration::from_secs(12);

/// For how long nothing changes before the next step.
const QUIET: Duration = Duration::from_millis(100);

/// For how long clients go on when the last process has taken over.
const AFTER: Duration = Duration::from_millis(100);

/// What a run that keeps all promises has seen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// Whether the message of the fault was logged.
    pub(crate) has_hit: bool,
    pub(crate) connections: usize,
    pub(crate) slowest: Duration,
    pub(crate) kept: KeptSeen,
}

/// What it has seen of the connections that clients keep.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct KeptSeen {
    pub(crate) connections: usize,
    /// How many have ended, each for a reason that is allowed.
    pub(crate) ended: usize,
    /// How often one went from one process to another.
    pub(crate) moves: usize,
    pub(crate) messages: u64,
    /// The longest that a message has waited.
    pub(crate) slowest: Duration,
}

/// Makes a run, and says what is broken.
pub(crate) async fn run(plan: &Plan, apiserver: &Apiserver) -> Result<Seen, String> {
    let mut kept = Established::new(plan.kept.pace);
    let mut run = Run::start(plan.kept, &mut kept, apiserver).await?;
    let (clients, direct) = (
        Clients::start(run.node.address),
        Clients::start(apiserver.address),
    );
    let outcome = run.go(plan).await;
    let (attempts, direct) = (clients.finish().await, direct.finish().await);
    let kept = kept.finish().await;
    let judged = match outcome {
        Ok(()) => run.judge(&attempts, &direct, &kept).await,
        Err(broken) => Err(broken),
    };
    judged.map_err(|broken| format!("{broken}\n{}", run.logs()))?;
    let planned = 1 + usize::from(plan.before.is_some()) + usize::from(plan.trigger.is_harm());
    Ok(Seen {
        has_hit: run.faults.done().len() == planned,
        connections: attempts.len(),
        slowest: attempts.iter().map(Attempt::took).max().unwrap_or_default(),
        kept: run.seen(&kept),
    })
}

impl KeptSeen {
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            connections: self.connections + other.connections,
            ended: self.ended + other.ended,
            moves: self.moves + other.moves,
            messages: self.messages + other.messages,
            slowest: self.slowest.max(other.slowest),
        }
    }
}

struct Run {
    node: Node,
    faults: Arc<Faults>,
    /// In the order in which they came.
    processes: Vec<Process>,
    terminated: Vec<&'static str>,
    begun: Instant,
}

impl Run {
    /// A pod of the DaemonSet that serves, maybe one that has served before, and a standby that is warm.
    async fn start(
        planned: Connections,
        kept: &mut Established,
        apiserver: &Apiserver,
    ) -> Result<Self, String> {
        let mut run = Self {
            node: Node::new(apiserver),
            faults: Arc::default(),
            processes: Vec::new(),
            terminated: Vec::new(),
            begun: Instant::now(),
        };
        if planned.are_spread {
            run.serve("elder", 1, planned.count, kept).await?;
        }
        run.serve("first", 2, planned.count, kept).await?;
        run.add("standby", "Static", 0);
        run.until("the standby is warm", PATIENCE, async |run| {
            run.process("standby").is_warm()
        })
        .await?;
        Ok(run)
    }

    /// A process that takes over, and the clients that it gets.
    async fn serve(
        &mut self,
        name: &'static str,
        generation: u64,
        count: u64,
        kept: &mut Established,
    ) -> Result<(), String> {
        self.add(name, "DaemonSet", generation);
        self.until("a process of the beginning serves", PATIENCE, async |run| {
            let attempt = Attempt::make(run.node.address).await;
            matches!(attempt.outcome, Outcome::Answered) && run.process(name).state().0 == "Serving"
        })
        .await?;
        let opened = kept.open(self.node.address, name, count).await;
        opened.map_err(|error| format!("{name} does not serve: {error}"))
    }

    fn add(&mut self, name: &'static str, class: &str, generation: u64) {
        let process = Process::start(&self.node, name, class, generation, &self.faults);
        self.processes.push(process);
    }

    fn process(&self, name: &str) -> &Process {
        self.processes
            .iter()
            .find(|process| process.name == name)
            .unwrap()
    }

    /// The trigger, the fault, and a further take-over.
    async fn go(&mut self, plan: &Plan) -> Result<(), String> {
        self.faults.arm(plan.before.into_iter().chain([plan.fault]));
        if let Some(before) = plan.newcomer {
            self.add("newcomer", "DaemonSet", 3);
            if plan.trigger != Trigger::Newcomer {
                sleep(before).await;
            }
        }
        self.pull(plan.trigger);
        self.until("the highest in rank serves", SETTLE_LIMIT, async |run| {
            run.is_settled()
        })
        .await?;
        self.faults.disarm();
        self.add("last", "DaemonSet", 9);
        self.until("a further process takes over", SETTLE_LIMIT, async |run| {
            run.is_settled()
        })
        .await?;
        self.answers_alone().await?;
        let others: Vec<_> = self.processes.iter().map(|process| process.name).collect();
        self.terminate(others.into_iter().filter(|name| *name != "last"));
        self.until("all others have ended", SETTLE_LIMIT, async |run| {
            run.have_exited()
        })
        .await?;
        sleep(AFTER).await;
        Ok(())
    }

    /// They get SIGTERM, as far as they live and did not get it before.
    fn terminate(&mut self, names: impl IntoIterator<Item = &'static str>) {
        for name in names {
            if !self.faults.has_killed(name) && !self.terminated.contains(&name) {
                self.process(name).signal(Signal::SIGTERM);
                self.terminated.push(name);
            }
        }
    }

    /// Whether those that got SIGTERM have ended.
    fn have_exited(&self) -> bool {
        let mut terminated = self.terminated.iter();
        terminated.all(|name| self.process(name).has_exited())
    }

    fn pull(&mut self, trigger: Trigger) {
        if let Trigger::Terminate(names) = trigger {
            self.terminate(names.iter().copied());
        }
        let first = self.process("first");
        match trigger {
            Trigger::Newcomer | Trigger::Terminate(_) => {}
            Trigger::Kill => self
                .faults
                .start(first.name, first.pid(), Harm::Kill, Duration::ZERO),
            Trigger::Stop(time) => {
                self.faults
                    .start(first.name, first.pid(), Harm::Stop(time), Duration::ZERO);
            }
        }
    }

    /// Whether all faults are over, the highest in rank of those that live serves, and all others stand by.
    fn is_settled(&self) -> bool {
        if self.faults.are_running() {
            return false;
        }
        let living = || self.processes.iter().filter(|process| self.lives(process));
        let stays = |process: &&Process| !self.terminated.contains(&process.name);
        let rank = |process: &&Process| match process.name {
            "standby" => 0,
            "elder" => 1,
            "first" => 2,
            "newcomer" => 3,
            _ => 4,
        };
        let Some(highest) = living().filter(stays).max_by_key(rank) else {
            // No process is left that could serve.
            return true;
        };
        if !self.have_exited() {
            return false;
        }
        living().all(|process| {
            let (state, since) = process.state();
            let is_expected = if process.name == highest.name {
                state == "Serving"
            } else if stays(&process) {
                state == "Standby"
            } else {
                is_ending(&state)
            };
            is_expected && since >= QUIET
        })
    }

    fn lives(&self, process: &Process) -> bool {
        !self.faults.has_killed(process.name)
    }

    async fn until(
        &self,
        what: &str,
        limit: Duration,
        check: impl AsyncFn(&Self) -> bool,
    ) -> Result<(), String> {
        let mut deadline = Instant::now() + limit;
        while !check(self).await {
            let now = Instant::now();
            if self.faults.are_running() {
                deadline = now + limit;
            }
            if now > deadline {
                return Err(format!("not within {limit:?}: {what}"));
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}

fn is_ending(state: &str) -> bool {
    matches!(state, "Draining" | "Retiring")
}
