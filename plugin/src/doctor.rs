//! Looks for what is wrong or will be. Each check is a pure function of the facts.

pub mod expected;
pub mod finding;
pub mod kind;

mod cluster;
mod crds;
mod images;
pub(crate) mod members;
mod nodes;
mod pools;
pub(crate) mod print;
mod rights;
mod standbys;
#[cfg(test)]
pub(crate) mod tests;

use anyhow::Result;
use kube::ResourceExt;
use trivet_crds::pool::ApiserverPool;

pub use self::finding::Finding;
pub use self::kind::{Kind, Severity};
use crate::Outcome;
use crate::access::Cluster;
use crate::cli;
use crate::output::{Screen, patiently};
use crate::read::{Facts, Reader};

/// Reads the cluster and prints what is wrong.
pub async fn run(cluster: &Cluster, screen: &Screen, flags: cli::Doctor) -> Result<Outcome> {
    let reader = Reader::new(cluster.reading(), &cluster.namespace);
    let facts = patiently("reading the cluster", reader.everything(flags.ask_kubelets)).await;
    let findings = findings(&facts);
    match flags.output.format {
        cli::Format::Table => screen.print(&print::table(*screen, &facts, &findings))?,
        cli::Format::Json => screen.print_json(&print::json(&facts, &findings))?,
    }
    Ok(outcome(&findings))
}

/// Wrong if something other than a note was found.
pub fn outcome(findings: &[Finding]) -> Outcome {
    if findings
        .iter()
        .any(|finding| finding.kind.severity() != Severity::Note)
    {
        Outcome::Wrong
    } else {
        Outcome::Fine
    }
}

/// All that is found, the gravest first.
pub fn findings(facts: &Facts) -> Vec<Finding> {
    let mut findings = cluster::check(facts);
    findings.extend(crds::check(facts));
    findings.extend(rights::check(facts));
    for pool in facts.pools.iter().flatten() {
        findings.extend(of_pool(facts, pool));
    }
    finding::sort(&mut findings);
    findings
}

/// What could not be read.
pub fn unread(facts: &Facts) -> Vec<Finding> {
    cluster::unread(facts)
}

/// What is found of one pool and its nodes.
pub fn of_pool(facts: &Facts, pool: &ApiserverPool) -> Vec<Finding> {
    let reports = facts.fresh_reports(&pool.name_any());
    let mut findings = pools::check(facts, pool);
    findings.extend(members::check(pool, &reports));
    findings.extend(nodes::check(facts, pool, &reports));
    findings.extend(standbys::check(facts, pool, &reports));
    finding::sort(&mut findings);
    findings
}
