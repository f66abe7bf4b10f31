//! Shows each pool: its conditions, its members, which node reaches which member, and what is wrong with it.

mod matrix;
mod print;
mod view;

use anyhow::Result;
use kube::ResourceExt;

use crate::access::Cluster;
use crate::cli;
use crate::doctor;
use crate::output::{Screen, patiently};
use crate::read::{Facts, Reader};
use crate::{BadUsage, Outcome};

use self::view::PoolView;

/// Reads pools and reports and prints them.
pub async fn run(cluster: &Cluster, screen: &Screen, flags: cli::Status) -> Result<Outcome> {
    let reader = Reader::new(cluster.reading(), &cluster.namespace);
    let facts = patiently("reading the cluster", reader.pools()).await;
    let views = views(&facts, flags.pool.as_deref())?;
    match flags.output.format {
        cli::Format::Table => screen.print(&print::table(*screen, &facts, &views, flags.all))?,
        cli::Format::Json => screen.print_json(&print::json(&views))?,
    }
    let mut findings = views
        .iter()
        .flat_map(|view| &view.findings)
        .cloned()
        .collect::<Vec<_>>();
    findings.extend(doctor::unread(&facts));
    Ok(doctor::outcome(&findings))
}

/// The pools that were asked for.
fn views<'a>(facts: &'a Facts, asked: Option<&str>) -> Result<Vec<PoolView<'a>>> {
    let pools = facts.pools.as_ref().ok_or_else(|| {
        let why = facts
            .unread
            .iter()
            .find(|unread| unread.what.starts_with("apiserverpools"));
        anyhow::anyhow!(
            "failed to list the pools: {}",
            why.map_or("", |unread| &unread.why)
        )
    })?;
    let wanted: Vec<_> = pools
        .iter()
        .filter(|pool| asked.is_none_or(|asked| pool.name_any() == asked))
        .collect();
    if let (Some(asked), []) = (asked, wanted.as_slice()) {
        let names: Vec<_> = pools.iter().map(ResourceExt::name_any).collect();
        let there = if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(", ")
        };
        return Err(BadUsage(format!("there is no pool {asked:?}; there are: {there}")).into());
    }
    Ok(wanted.into_iter().map(|pool| PoolView::of(facts, pool)).collect())
}

#[cfg(test)]
mod tests;
