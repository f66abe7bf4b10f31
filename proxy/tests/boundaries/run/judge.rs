//! What must hold at the end of a run.

use std::collections::BTreeSet;

use super::{KeptSeen, PATIENCE, Run, is_ending};
use crate::{
    clients::{self, Attempt},
    established::Kept,
    plan::Harm,
    process::Said,
    verdict::{Facts, Life, Told},
};

impl Run {
    /// Fails if a client saw what none may see.
    pub(super) async fn judge(
        &self,
        attempts: &[Attempt],
        direct: &[Attempt],
        kept: &[Kept],
    ) -> Result<(), String> {
        if let Some(spinning) = self.faults.spinning() {
            return Err(spinning);
        }
        self.until("the end of all connections is logged", PATIENCE, async |run| {
            let said = run.process("last").said();
            kept.iter()
                .all(|kept| !kept.has_lasted() || said.has_ended(kept.client))
        })
        .await?;
        let facts = self.facts(direct);
        let broken = attempts.iter().filter_map(|attempt| {
            let begun = attempt.begun.saturating_duration_since(self.begun);
            Some(format!(
                "a connection begun at {begun:?}, {}",
                facts.broken(attempt)?
            ))
        });
        let broken_kept = kept.iter().filter_map(|kept| facts.broken_kept(kept));
        let broken: Vec<_> = broken_kept.chain(broken).collect();
        match broken.first() {
            None => Ok(()),
            Some(first) => Err(format!(
                "{} of {} connections are broken, the first: {first}; {:?} is the machine's share\n{}",
                broken.len(),
                attempts.len() + kept.len(),
                facts.machine,
                facts.story(),
            )),
        }
    }

    fn facts(&self, direct: &[Attempt]) -> Facts {
        let mut faults = self.faults.done();
        faults.sort_by_key(|done| done.from);
        let said: Vec<(&'static str, Said)> = self
            .processes
            .iter()
            .map(|process| (process.name, process.said()))
            .collect();
        let lives = said.iter().filter_map(|(name, said)| {
            let mut kills = faults.iter().filter(|done| done.harm == Harm::Kill);
            let killed = kills.find(|done| done.process == *name).map(|done| done.from);
            Some(Life {
                process: name,
                from: said.holds_since?,
                until: [killed, said.ends_since].into_iter().flatten().min(),
            })
        });
        Facts {
            lives: lives.collect(),
            machine: direct.iter().map(Attempt::took).max().unwrap_or_default() * 2,
            begun: self.begun,
            told: said.iter().map(|(name, said)| Told::of(name, said)).collect(),
            faults,
        }
    }

    pub(super) fn seen(&self, kept: &[Kept]) -> KeptSeen {
        let said = self.processes.iter().map(|process| process.said().connections);
        let clients: BTreeSet<_> = kept.iter().map(|kept| kept.client).collect();
        let moves = said
            .flatten()
            .filter(|word| word.ending.is_none() && clients.contains(&word.client));
        KeptSeen {
            connections: kept.len(),
            ended: kept.iter().filter(|kept| !kept.has_lasted()).count(),
            moves: moves.count(),
            messages: kept.iter().map(|kept| kept.answered).sum(),
            slowest: kept.iter().map(|kept| kept.slowest).max().unwrap_or_default(),
        }
    }

    /// Fails unless the last process alone has the lock and accepts.
    pub(super) async fn answers_alone(&self) -> Result<(), String> {
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
        let mut clients = Vec::new();
        for _ in 0..5 {
            let client = clients::ask(self.node.address).await;
            clients.push(client.map_err(|error| format!("not answered at the end: {error}"))?);
        }
        let what = "the last has served all clients of the end";
        self.until(what, PATIENCE, async |run| {
            let said = run.process("last").said();
            clients.iter().all(|client| said.has_ended(*client))
        })
        .await
    }

    /// The logs of all processes.
    pub(super) fn logs(&self) -> String {
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
