//! The numbers of an outage.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::{Result, ensure};
use jiff::Timestamp;

use crate::fault::Fault;
use crate::observe::History;
use trivet_instruments::{Attempt, Record};

/// A kubelet renews its Lease every 10 s. With 5 s more, its node is still 35 s away from NotReady.
const LEASE_LATE: Duration = Duration::from_secs(15);

/// The effect of an outage on the workers.
#[derive(Debug, Clone)]
pub struct Measured {
    /// How long the master was gone.
    pub lasted: Duration,
    /// New connections that were tried during the outage.
    pub attempts: usize,
    /// Failures among those that started before the fault's detection time had passed.
    pub failed_before_detection: Vec<Attempt>,
    /// Failures among those that started later.
    pub failed_after_detection: Vec<Attempt>,
    /// Successes that took more than a second.
    pub slow: usize,
    /// The longest time for which a worker got no answer at all.
    pub longest_gap: Duration,
    /// The oldest that each worker's Lease became.
    pub lease_gaps: BTreeMap<String, Duration>,
    /// The workers that left Ready, and how soon after the fault.
    pub left_ready: BTreeMap<String, Duration>,
}

/// When a fault began and was complete. To kill a process or to change a host's nftables rules takes a moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Onset {
    /// From here on connections may fail.
    pub(super) begun: Timestamp,
    /// From here on the detection time runs.
    pub(super) complete: Timestamp,
}

impl Measured {
    /// All connections that failed.
    pub fn failed(&self) -> usize {
        self.failed_before_detection.len() + self.failed_after_detection.len()
    }

    /// The oldest that any worker's Lease became.
    pub fn worst_lease_gap(&self) -> Duration {
        self.lease_gaps.values().copied().max().unwrap_or_default()
    }
}

impl Measured {
    /// Fails if it cost a worker anything: each stayed Ready, its Lease came in time, and no connection was lost that
    /// began after the fault must have been noticed.
    pub fn cost_nothing(&self) -> Result<()> {
        let left = &self.left_ready;
        ensure!(left.is_empty(), "workers left Ready: {left:?}");
        for (worker, gap) in &self.lease_gaps {
            ensure!(*gap <= LEASE_LATE, "{worker} did not renew its Lease for {gap:?}");
        }
        let late = &self.failed_after_detection;
        ensure!(
            late.is_empty(),
            "{} connections failed after detection, the first: {:?}",
            late.len(),
            late.first()
        );
        Ok(())
    }

    /// Fails unless every worker left Ready, every Lease was late and connections failed, as without a load balancer.
    pub fn cost_every_worker(&self) -> Result<()> {
        ensure!(
            self.left_ready.len() == self.lease_gaps.len(),
            "only {:?} left Ready",
            self.left_ready
        );
        for (worker, gap) in &self.lease_gaps {
            ensure!(*gap > LEASE_LATE, "{worker} renewed its Lease all the same");
        }
        ensure!(
            !self.failed_after_detection.is_empty(),
            "the master was gone, yet no connection failed"
        );
        Ok(())
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "in {:.0} s: {} of {} new connections failed ({} before detection, {} after), {} slower than 1 s, \
             longest gap {:.2} s, oldest Lease {:.1} s",
            self.lasted.as_secs_f32(),
            self.failed(),
            self.attempts,
            self.failed_before_detection.len(),
            self.failed_after_detection.len(),
            self.slow,
            self.longest_gap.as_secs_f32(),
            self.worst_lease_gap().as_secs_f32(),
        )?;
        match self
            .left_ready
            .iter()
            .map(|(worker, after)| format!("{worker} after {} s", after.as_secs()))
            .collect::<Vec<_>>()
        {
            left if left.is_empty() => write!(f, ", no worker left Ready"),
            left => write!(f, ", left Ready: {}", left.join(", ")),
        }
    }
}

/// Sums up an outage. Failures before it mean that there is nothing to compare with.
pub(super) fn judge<'a>(
    fault: Fault,
    onset: &Onset,
    history: &History,
    records: impl Iterator<Item = (String, &'a Record)>,
) -> Result<Measured> {
    let detected = onset.complete.checked_add(fault.detection())?;
    let mut measured = Measured {
        lasted: history
            .end()
            .duration_since(onset.begun)
            .try_into()
            .unwrap_or_default(),
        attempts: 0,
        failed_before_detection: Vec::new(),
        failed_after_detection: Vec::new(),
        slow: 0,
        longest_gap: Duration::ZERO,
        lease_gaps: BTreeMap::new(),
        left_ready: BTreeMap::new(),
    };
    for (worker, record) in records {
        let (before, during): (Vec<_>, Vec<_>) = record
            .attempts()
            .iter()
            .partition(|attempt| attempt.end() < onset.begun);
        ensure!(
            !before.is_empty() && !during.is_empty(),
            "{worker} made no attempts before or during the fault"
        );
        if let Some(early) = before.iter().find(|attempt| !attempt.succeeded()) {
            anyhow::bail!("a connection of {worker} failed before the fault: {early}");
        }
        measured.attempts += during.len();
        let failed = during.into_iter().filter(|attempt| !attempt.succeeded()).cloned();
        let (early, late): (Vec<_>, Vec<_>) = failed.partition(|attempt| attempt.at < detected);
        measured.failed_before_detection.extend(early);
        measured.failed_after_detection.extend(late);
        measured.slow += record.slow().len();
        measured.longest_gap = measured.longest_gap.max(record.longest_gap());
        measured
            .lease_gaps
            .insert(worker.clone(), history.worst_lease_gap(&worker));
        if let Some(left) = history.left_ready(&worker) {
            measured.left_ready.insert(
                worker,
                left.duration_since(onset.begun).try_into().unwrap_or_default(),
            );
        }
    }
    Ok(measured)
}
