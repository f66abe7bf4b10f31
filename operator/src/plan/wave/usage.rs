//! Whether the files or the memory of a proxy run away, by what it reports. Pure.
//!
//! How much is too much? More than its connections explain, and for memory also more than twice what others use that have
//! another template: the predecessor on the node, or the neighbours. A release may use more than the one before; one that
//! goes beyond both leaks.
//!
//! How sure is that? A report is one moment, and a rollout that is halted for nothing costs trust in all that follow. So it
//! is a doubt, which must last, unless it says how it ends: a proxy that says itself that no file is left serves nobody, and
//! one that has taken half of its pod's limit is killed with the connections that it has. Without a limit nobody kills it.

use trivet_crds::report::usage;

use super::facts::{Reported, WaveFacts};

/// Files beside those of connections by which a proxy that has none left has leaked some: what it keeps free for itself.
const FILES_OF_ITS_OWN: u32 = 256;

/// A use that connections do not explain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Excess {
    /// What is wrong.
    pub(super) cause: String,
    /// What would make it good.
    pub(super) awaits: String,
    /// Whether it ends badly, whatever comes.
    pub(super) is_certain: bool,
}

/// The excess in a report of a proxy with this template, if there is any.
pub(super) fn excess(report: &Reported, template: &str, facts: &WaveFacts) -> Option<Excess> {
    if report.template != template {
        return None;
    }
    of_files(report).or_else(|| of_memory(report, template, facts))
}

fn of_files(report: &Reported) -> Option<Excess> {
    let (open, connections) = (report.open_files, report.connections);
    let of_its_own = open.saturating_sub(usage::files(connections) - usage::files(0));
    let is_certain = report.is_out_of_files && of_its_own > FILES_OF_ITS_OWN;
    let is_doubtful = open > usage::files(connections);
    (is_certain || is_doubtful).then(|| Excess {
        cause: format!("the files of its new proxy run out: {open} are open for {connections} connections"),
        awaits: format!("its new proxy to close files: it has {open} open for {connections} connections"),
        is_certain,
    })
}

fn of_memory(report: &Reported, template: &str, facts: &WaveFacts) -> Option<Excess> {
    let (used, connections) = (report.memory_mebibytes, report.connections);
    let usual = usual_mebibytes(report, template, facts);
    if used <= usage::mebibytes(connections) || usual.is_some_and(|usual| used / 2 <= usual) {
        return None;
    }
    let limit = facts.memory_limit_mebibytes;
    let is_certain = usual.is_some() && limit.is_some_and(|limit| used > limit / 2);
    let beside = usual.map_or_else(String::new, |usual| format!(", and others at most {usual} MiB"));
    let has = format!("{used} MiB for {connections} connections{beside}");
    Some(Excess {
        cause: format!("the memory of its new proxy runs away: it has {has}"),
        awaits: format!("its new proxy to give memory back: it has {has}"),
        is_certain,
    })
}

/// The most memory that is reported by a proxy with another template: its predecessor, or a neighbour.
fn usual_mebibytes(report: &Reported, template: &str, facts: &WaveFacts) -> Option<u32> {
    let reports = facts.nodes.iter().filter_map(|node| node.report.as_ref());
    let others = reports.filter(|other| other.template != template);
    let usual = others
        .map(|other| other.memory_mebibytes)
        .chain([report.earlier_mebibytes])
        .max();
    // A release before this one reports none.
    usual.filter(|usual| *usual > 0)
}
