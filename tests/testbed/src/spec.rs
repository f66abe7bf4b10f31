//! How many hosts are wanted, and which ones are missing.

use anyhow::{Result, bail, ensure};

use crate::address::HostName;

/// The size of a testbed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spec {
    /// Hosts with a control plane and an etcd.
    pub masters: u8,
    /// Hosts without.
    pub workers: u8,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            masters: 3,
            workers: 2,
        }
    }
}

impl Spec {
    /// The hosts' names: `cp1`… and `w1`…
    pub(crate) fn hosts(self) -> Result<Vec<HostName>> {
        ensure!(self.masters > 0, "a cluster needs at least one master");
        let masters = (1..=self.masters).map(HostName::master);
        let workers = (1..=self.workers).map(HostName::worker);
        masters.chain(workers).collect()
    }

    /// The hosts that a testbed lacks. An error if it has hosts that are not wanted: to remove them could destroy work.
    pub(crate) fn missing(self, have: &[HostName]) -> Result<Vec<HostName>> {
        let wanted = self.hosts()?;
        if let Some(extra) = have.iter().find(|host| !wanted.contains(host)) {
            let way_out = if extra.is_master() {
                format!("`remove-master {extra}`, or `down` and begin again")
            } else {
                format!("`remove-worker {extra}`, or `down` and begin again")
            };
            bail!(
                "the testbed that is there has {extra}, and {} masters and {} workers are wanted: {way_out}",
                self.masters,
                self.workers
            );
        }
        Ok(wanted.into_iter().filter(|host| !have.contains(host)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<HostName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn a_testbed_has_three_masters_and_two_workers() {
        assert_eq!(
            Spec::default().hosts().unwrap(),
            names(&["cp1", "cp2", "cp3", "w1", "w2"])
        );
    }

    #[test]
    fn a_size_outside_the_address_plan_is_refused() {
        assert!(
            Spec {
                masters: 0,
                workers: 1
            }
            .hosts()
            .is_err()
        );
        assert!(
            Spec {
                masters: 10,
                workers: 1
            }
            .hosts()
            .is_err()
        );
        assert!(
            Spec {
                masters: 1,
                workers: 100
            }
            .hosts()
            .is_err()
        );
        assert_eq!(
            Spec {
                masters: 1,
                workers: 0
            }
            .hosts()
            .unwrap(),
            names(&["cp1"])
        );
    }

    #[test]
    fn a_testbed_grows_but_is_never_cut_down() {
        let spec = Spec {
            masters: 2,
            workers: 1,
        };
        assert_eq!(spec.missing(&names(&["cp1", "w1"])).unwrap(), names(&["cp2"]));
        assert!(spec.missing(&names(&["cp1", "cp2", "w1"])).unwrap().is_empty());
        let refusal = spec
            .missing(&names(&["cp1", "cp2", "cp4", "w1"]))
            .unwrap_err()
            .to_string();
        assert!(refusal.contains("remove-master cp4"), "{refusal}");
    }
}
