//! Truncated files on the node's disk (O13): the proxy follows an older document, or if none is whole the next one it gets.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use tokio::time::sleep;
use trivet_instruments::promptly;
use trivet_lab::Lab;

use crate::support::{SECOND, serving};

/// The cached documents, the newest first.
fn cached(lab: &Lab) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(lab.disk().join("cache"))?;
    let mut files: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|path| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("document-"))
    });
    files.sort();
    files.reverse();
    Ok(files)
}

fn tear(path: &PathBuf) -> Result<()> {
    let text = fs::read(path)?;
    fs::write(path, &text[..text.len() / 2]).with_context(|| format!("failed to tear {}", path.display()))
}

async fn is_used(lab: &Lab) -> Result<()> {
    let client = lab.client();
    promptly(10 * SECOND, "a member is used", async || {
        client.who().await.is_ok()
    })
    .await
    .map(drop)
}

#[test]
fn an_older_generation_serves_or_the_next_document() -> Result<()> {
    serving(2, async |lab| {
        lab.write(&lab.whole_pool().revision(2))?;
        lab.proxy().follows(2).await?;
        promptly(10 * SECOND, "two generations are kept", async || {
            cached(lab).is_ok_and(|files| files.len() == 2)
        })
        .await?;
        lab.take_proxy()?.stop().await?;
        lab.take_document_away()?;

        tear(&cached(lab)?[0])?;
        lab.start_proxy()?;
        is_used(lab).await?;
        assert_eq!(
            lab.proxy().metric("trivet_proxy_document_revision").await,
            Some(1)
        );
        lab.take_proxy()?.stop().await?;

        for path in cached(lab)? {
            tear(&path)?;
        }
        fs::write(lab.disk().join("cache/proven.json"), "{")?;
        lab.start_proxy()?;
        sleep(2 * SECOND).await;
        assert!(
            lab.proxy()
                .metric("trivet_proxy_document_revision")
                .await
                .is_some(),
            "it has ended"
        );
        lab.write(&lab.whole_pool().revision(3))?;
        is_used(lab).await
    })
}
