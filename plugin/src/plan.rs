//! Shows what an edit of a pool would do, by the operator's own plan. It writes nothing.

mod difference;
mod edit;
mod print;
mod settings;
#[cfg(test)]
mod tests;

use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};
use kube::{Api, Client, ResourceExt};
use trivet_crds::pool::ApiserverPool;
use trivet_operator::preview::{Source, preview};

use self::difference::{Difference, Refusal};
use self::edit::{Checked, Edit};
use crate::access::Cluster;
use crate::cli;
use crate::output::{Screen, patiently};
use crate::{BadUsage, Outcome};

/// Reads the file and the cluster, and prints what would change.
pub async fn run(cluster: &Cluster, screen: &Screen, flags: cli::Plan) -> Result<Outcome> {
    let edit = Edit::parse(&text(&flags.file)?)?;
    let access = cluster.operator_access()?;
    let client = cluster.reading();
    let settings = settings::read(&client, &cluster.namespace).await?;
    let source = Source {
        client: client.clone(),
        access,
        settings,
    };
    let work = Box::pin(difference(&client, &edit, source));
    let difference = patiently("reading the cluster", work).await?;
    match flags.output.format {
        cli::Format::Table => screen.print(&print::table(*screen, &difference))?,
        cli::Format::Json => screen.print_json(&difference)?,
    }
    Ok(if difference.refused.is_some() {
        Outcome::Wrong
    } else {
        Outcome::Fine
    })
}

/// What the edit would change.
async fn difference(client: &Client, edit: &Edit, source: Source) -> Result<Difference> {
    let pools: Api<ApiserverPool> = Api::all(client.clone());
    let live = pools.get_opt(&edit.name).await;
    let live = live.with_context(|| format!("failed to read pool {}", edit.name))?;
    let (pool, is_checked) = match edit.check(&pools, live.as_ref()).await? {
        Checked::Refused { reason, message } => {
            let refusal = Refusal {
                by: "the API server",
                reason,
                message,
            };
            return Ok(Difference::refused(&edit.name, refusal));
        }
        Checked::ByServer(pool) => (pool, true),
        Checked::Here(pool) => (pool, false),
    };
    let seen = live.as_ref().and_then(|live| live.status.as_ref());
    let preview = preview(&pool, seen, source).await?;
    let mut difference = Difference::of(&pool, live.is_some(), &preview);
    if !is_checked {
        let name = pool.name_any();
        difference.notes.push(format!(
            "the rules of the schema were not checked, because you may not patch pool {name}: the API server may refuse it"
        ));
    }
    Ok(difference)
}

fn text(file: &Path) -> Result<String> {
    if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin()
            .lock()
            .read_to_string(&mut text)
            .context("failed to read stdin")?;
        return Ok(text);
    }
    let read = std::fs::read_to_string(file);
    read.with_context(|| BadUsage(format!("failed to read {}", file.display())))
}
