//! One run: the processes of a node, the trigger, the fault, and what must hold afterwards.

use std::{sync::Arc, time::Duration};

use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep};

use crate::{
    apiserver::Apiserver,
    clients::{Attempt, Clients, Outcome},
    fault::Faults,
    node::Node,
    plan::{Harm, Plan, Trigger},
    process::Process,
    verdict::{Facts, Life},
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
}

/// Makes a run, and says what is broken.
pub(crate) async fn run(plan: &Plan, apiserver: &Apiserver) -> Result<Seen, String> {
    let mut run = Run::start(apiserver).await?;
    let (clients, direct) = (
        Clients::start(run.node.address),
        Clients::start(apiserver.address),
    );
    let outcome = run.go(plan).await;
    let (attempts, direct) = (clients.finish().await, direct.finish().await);
    let judged = match outcome {
        Ok(()) => match run.judge(&attempts, &direct) {
            Ok(()) => run.answers_alone().await,
            Err(broken) => Err(broken),
        },
        Err(broken) => Err(broken),
    };
    judged.map_err(|broken| format!("{broken}\n{}", run.logs()))?;
    let planned = 1 + usize::from(plan.before.is_some()) + usize::from(plan.trigger.is_harm());
    Ok(Seen {
        has_hit: run.faults.done().len() == planned,
        connections: attempts.len(),
        slowest: attempts.iter().map(Attempt::took).max().unwrap_or_default(),
    })
}

struct Run {
    node: Node,
    faults: Arc<Faults>,
    /// The first one, the standby, and those that come later.
    processes: Vec<Process>,
    is_terminated: bool,
    begun: Instant,
}

impl Run {
    /// A pod of the DaemonSet that serves, and a standby that is warm.
    async fn start(apiserver: &Apiserver) -> Result<Self, String> {
        let mut run = Self {
            node: Node::new(apiserver),
            faults: Arc::default(),
            processes: Vec::new(),
            is_terminated: false,
            begun: Instant::now(),
        };
        run.add("first", "DaemonSet", 1);
        run.until("the first process serves", PATIENCE, async |run| {
            let attempt = Attempt::make(run.node.address).await;
            matches!(attempt.outcome, Outcome::Answered)
        })
        .await?;
        run.add("standby", "Static", 0);
        run.until("the standby is warm", PATIENCE, async |run| {
            run.processes[1].is_warm()
        })
        .await?;
        Ok(run)
    }

    fn add(&mut self, name: &'static str, class: &str, generation: u64) {
        let process = Process::start(&self.node, name, class, generation, &self.faults);
        self.processes.push(process);
    }

    /// The trigger, the fault, and a further take-over.
    async fn go(&mut self, plan: &Plan) -> Result<(), String> {
        self.faults.arm(plan.before.into_iter().chain([plan.fault]));
        if let Some(before) = plan.newcomer {
            self.add("newcomer", "DaemonSet", 2);
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
        sleep(AFTER).await;
        Ok(())
    }

    fn pull(&mut self, trigger: Trigger) {
        let first = &self.processes[0];
        match trigger {
            Trigger::Newcomer => {}
            Trigger::Terminate => {
                self.is_terminated = true;
                if !self.faults.has_killed(first.name) {
                    first.signal(Signal::SIGTERM);
                }
            }
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
        let stays = |process: &&Process| !(self.is_terminated && process.name == "first");
        let rank = |process: &&Process| match process.name {
            "standby" => 0,
            "first" => 1,
            "newcomer" => 2,
            _ => 3,
        };
        let Some(highest) = living().filter(stays).max_by_key(rank) else {
            // No process is left that could serve.
            return true;
        };
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
        let deadline = Instant::now() + limit;
        while !check(self).await {
            if Instant::now() > deadline && !self.faults.are_running() {
                return Err(format!("not within {limit:?}: {what}"));
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Fails if a client saw what none may see.
    fn judge(&self, attempts: &[Attempt], direct: &[Attempt]) -> Result<(), String> {
        if let Some(spinning) = self.faults.spinning() {
            return Err(spinning);
        }
        let mut faults = self.faults.done();
        faults.sort_by_key(|done| done.from);
        let lives = self.processes.iter().filter_map(|process| {
            let (said, name) = (process.said(), process.name);
            let mut kills = faults.iter().filter(|done| done.harm == Harm::Kill);
            let killed = kills.find(|done| done.process == name).map(|done| done.from);
            Some(Life {
                process: name,
                from: said.holds_since?,
                until: [killed, said.ends_since].into_iter().flatten().min(),
            })
        });
        let facts = Facts {
            lives: lives.collect(),
            machine: direct.iter().map(Attempt::took).max().unwrap_or_default() * 2,
            faults,
        };
        let broken: Vec<_> = attempts
            .iter()
            .filter_map(|attempt| Some((attempt, facts.broken(attempt)?)))
            .collect();
        match broken.first() {
            None => Ok(()),
            Some((attempt, first)) => Err(format!(
                "{} of {} connections are broken, the first begun at {:?}, {first}; {:?} is the machine's share\n{}",
                broken.len(),
                attempts.len(),
                attempt.begun.saturating_duration_since(self.begun),
                facts.machine,
                facts.relative_to(self.begun),
            )),
        }
    }

    /// Fails unless the last process alone has the lock and accepts.
    async fn answers_alone(&self) -> Result<(), String> {
        let lock = self.node.path("handover").join("lock");
        let living: Vec<_> = self
            .processes
            .iter()
            .filter(|process| self.lives(process) && !is_ending(&process.state().0))
            .collect();
        let holders: Vec<_> = living.iter().filter(|process| process.files(&lock) > 0).collect();
        if holders.len() != 1 || holders[0].name != "last" {
            let names: Vec<_> = holders.iter().map(|process| process.name).collect();
            return Err(format!("the lock is held by {names:?}"));
        }
        let mut before = Vec::new();
        for process in &living {
            before.push(process.served().await);
        }
        for _ in 0..5 {
            let attempt = Attempt::make(self.node.address).await;
            if !matches!(attempt.outcome, Outcome::Answered) {
                return Err(format!("not answered at the end: {attempt:?}"));
            }
        }
        for (process, before) in living.iter().zip(before) {
            let now = process.served().await;
            if process.name != "last" && now > before {
                return Err(format!("{} accepts beside the last", process.name));
            }
        }
        Ok(())
    }

    /// The logs of all processes.
    fn logs(&self) -> String {
        let logs = self.processes.iter().map(|process| {
            let said = process.said();
            let lines: Vec<_> = said
                .lines
                .iter()
                .map(|line| line.chars().take(160).collect::<String>())
                .collect();
            format!("--- {} ({})\n{}", process.name, said.state, lines.join("\n"))
        });
        logs.collect::<Vec<_>>().join("\n")
    }
}

fn is_ending(state: &str) -> bool {
    matches!(state, "Draining" | "Retiring")
}
