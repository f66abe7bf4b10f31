//! Every call of Trivet's accounts, from the apiservers' audit logs, beside the rights that the chart gives them: none may be
//! refused, none may need a right from elsewhere, and every right must be used.

mod call;
mod changes;
mod exempt;
mod judge;
mod read;
mod report;
mod spans;

use anyhow::{Result, ensure};
use jiff::Timestamp;

use crate::audit;
use crate::cluster::Cluster;
use crate::rights;

pub use self::report::{AccountReport, Found, Report, RightReport};

/// Compares the calls since a moment, or all that the logs have, with the chart of this tree.
pub fn compare(cluster: &Cluster, since: Option<Timestamp>) -> Result<Report> {
    let rendered = rights::render(cluster)?;
    let mut seen = read::Seen::since(since);
    for log in audit::logs(cluster)? {
        seen.add(&log)?;
    }
    ensure!(
        !seen.calls.is_empty(),
        "the audit logs of the masters have no call of Trivet's accounts{}",
        since.map(|since| format!(" since {since}")).unwrap_or_default()
    );
    Ok(judge::judge(&rendered, seen))
}
