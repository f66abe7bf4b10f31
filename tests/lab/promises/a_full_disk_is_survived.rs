//! A node's disk is full (O13): the proxy still follows newer documents, the files on the disk stay whole, and the proxy
//! writes the missing ones once there is room.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use trivet_instruments::promptly;

use crate::support::{SECOND, serving};

/// The longest wait before a failed write is retried, with a margin for a busy machine.
const TRIED_AGAIN: Duration = Duration::from_secs(45);

/// A small disk of its own, until this is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Result<Self> {
        fs::create_dir_all(at)?;
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64k", "trivet-lab"])
            .arg(at))?;
        Ok(Self(at.to_owned()))
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// Fills the disk.
    fn fill(&self) -> Result<()> {
        let mut filler = File::create(self.filler())?;
        loop {
            match filler.write(&[0; 1024]) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error).context("failed to fill the disk"),
            }
        }
    }

    fn free(&self) -> Result<()> {
        fs::remove_file(self.filler()).context("failed to free the disk")
    }

    fn holds(&self, revision: u64) -> bool {
        self.0.join(format!("document-{revision:020}.json")).exists()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the proxy may have a file of it open.
        if let Err(error) = run(Command::new("umount").arg("--lazy").arg(&self.0)) {
            eprintln!("{error:#}");
        }
    }
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().context("failed to start mount or umount")?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}

#[test]
fn what_it_holds_stays_and_what_it_missed_comes_once_there_is_room() -> Result<()> {
    serving(2, async |lab| {
        lab.take_proxy()?.stop().await?;
        let disk = SmallDisk::mount(&lab.disk().join("cache"))?;
        lab.write(&lab.whole_pool().revision(2))?;
        lab.start_proxy()?;
        lab.proxy().follows(2).await?;
        promptly(10 * SECOND, "revision 2 is kept", async || disk.holds(2)).await?;

        disk.fill()?;
        lab.write(&lab.whole_pool().revision(3))?;
        lab.proxy().follows(3).await?;
        lab.client().who().await?;
        assert!(!disk.holds(3), "the disk is not full");

        lab.take_proxy()?.stop().await?;
        lab.take_document_away()?;
        lab.start_proxy()?;
        let client = lab.client();
        promptly(10 * SECOND, "a member is used", async || {
            client.who().await.is_ok()
        })
        .await?;
        assert_eq!(
            lab.proxy().metric("trivet_proxy_document_revision").await,
            Some(2)
        );

        lab.write(&lab.whole_pool().revision(4))?;
        lab.proxy().follows(4).await?;
        assert!(!disk.holds(4), "the disk is not full");
        disk.free()?;
        promptly(TRIED_AGAIN, "revision 4 is kept", async || disk.holds(4))
            .await
            .map(drop)
    })
}
