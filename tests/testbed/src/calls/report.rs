//! What the comparison found, for people and for scripts.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Result, ensure};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::rights::{Account, Request, Right};

/// The calls of all accounts beside their rights.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The first call.
    pub from: Option<Timestamp>,
    /// The last one.
    pub to: Option<Timestamp>,
    /// Lines of the logs that could not be read: an apiserver was killed while it wrote them.
    pub unreadable: u64,
    /// By account.
    pub accounts: Vec<AccountReport>,
}

/// The calls of one account beside its rights.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AccountReport {
    /// The name of the ServiceAccount.
    pub account: String,
    /// How many calls it made while it had the chart's rights.
    pub calls: u64,
    /// How many it made while it had others: a scenario had taken them away, or had installed another release.
    pub aside: u64,
    /// How many of those were refused.
    pub refused_aside: u64,
    /// For how long it had others.
    pub without_rights: SignedDuration,
    /// How many calls another program made with its token.
    pub by_others: u64,
    /// How many calls were refused by an apiserver that had just started, and had not read the roles yet.
    pub at_starts: u64,
    /// Every right that the chart gives it.
    pub rights: Vec<RightReport>,
    /// The calls that authorization refused.
    pub refused: Vec<Found>,
    /// The calls that no right of the chart covers, and that were allowed all the same.
    pub outside: Vec<Found>,
}

/// A right and its use.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RightReport {
    /// The right.
    #[serde(flatten)]
    pub right: Right,
    /// How many calls it covered.
    pub used: u64,
    /// Why it need not be used.
    pub exempt: Option<&'static str>,
}

/// Calls that the rights do not explain.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Found {
    /// What was asked for.
    #[serde(flatten)]
    pub request: Request,
    /// How often.
    pub times: u64,
    /// The first time.
    pub first: Timestamp,
    /// The binding by which it was allowed.
    pub by: Option<String>,
    /// Why it may be.
    pub exempt: Option<&'static str>,
}

impl AccountReport {
    pub(crate) fn of(account: Account) -> Self {
        Self {
            account: account.name,
            calls: 0,
            aside: 0,
            refused_aside: 0,
            without_rights: SignedDuration::ZERO,
            by_others: 0,
            at_starts: 0,
            rights: Vec::new(),
            refused: Vec::new(),
            outside: Vec::new(),
        }
    }
}

impl Report {
    /// What is not as it must be, one a line; empty if all is well.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for account in &self.accounts {
            let name = &account.account;
            let refused = account.refused.iter();
            problems.extend(refused.map(|call| {
                format!("{name} is refused: {call}. Give it the right in the chart, or let it not ask")
            }));
            let outside = account.outside.iter().filter(|call| call.exempt.is_none());
            problems.extend(outside.map(|call| {
                format!(
                    "{name} needs a right that the chart does not give it: {call}, allowed by {}",
                    call.by.as_deref().unwrap_or("something other than RBAC")
                )
            }));
            let unused = account
                .rights
                .iter()
                .filter(|right| right.used == 0 && right.exempt.is_none());
            problems.extend(unused.map(|right| {
                format!(
                    "{name} never uses its right: {}. Take it out of the chart, or let a scenario need it",
                    right.right
                )
            }));
        }
        problems
    }
}

impl Report {
    /// An error that names every problem.
    pub fn verdict(&self) -> Result<()> {
        let problems = self.problems();
        ensure!(
            problems.is_empty(),
            "calls and the chart's roles differ:\n  {}",
            problems.join("\n  ")
        );
        Ok(())
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} times from {}", self.request, self.times, self.first)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:22} {:16} {:58} USED", "ACCOUNT", "WHERE", "RIGHTS")?;
        for account in &self.accounts {
            for ((place, thing), verbs) in rows(account) {
                writeln!(
                    f,
                    "{:22} {place:16} {thing:58} {}",
                    account.account,
                    verbs.join(", ")
                )?;
            }
        }
        writeln!(f)?;
        for account in &self.accounts {
            account.summary(f)?;
        }
        if self.unreadable > 0 {
            writeln!(f, "{} lines could not be read", self.unreadable)?;
        }
        Ok(())
    }
}

impl AccountReport {
    fn summary(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let refused: u64 = self.refused.iter().map(|call| call.times).sum();
        write!(f, "{}: {} calls, {refused} refused", self.account, self.calls)?;
        if self.aside > 0 {
            write!(
                f,
                "; {} more, {} of them refused, in the {} s in which it had other rights than the chart's",
                self.aside,
                self.refused_aside,
                self.without_rights.as_secs()
            )?;
        }
        if self.by_others > 0 {
            write!(f, "; {} by other programs with its token", self.by_others)?;
        }
        if self.at_starts > 0 {
            write!(
                f,
                "; {} refused by apiservers that had just started",
                self.at_starts
            )?;
        }
        writeln!(f)?;
        for call in &self.outside {
            let why = call.exempt.unwrap_or("no right of the chart covers it");
            writeln!(f, "  {}, {} times: {why}", call.request, call.times)?;
        }
        for right in self.rights.iter().filter(|right| right.used == 0) {
            if let Some(why) = right.exempt {
                writeln!(f, "  {} is not used here: {why}", right.right)?;
            }
        }
        Ok(())
    }
}

/// One row for each thing: its verbs, each with its uses.
fn rows(account: &AccountReport) -> BTreeMap<(String, String), Vec<String>> {
    let mut rows: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for RightReport { right, used, .. } in &account.rights {
        let place = right.namespace.clone().unwrap_or_else(|| "cluster".to_owned());
        let verbs = rows.entry((place, right.on.to_string())).or_default();
        verbs.push(format!("{} {used}", right.verb));
    }
    rows
}
