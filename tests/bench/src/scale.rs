//! The control path in a large cluster: the operator as shipped at a real etcd and a real apiserver that have 5,000 nodes, their
//! proxies' pods and reports, and a thousand proxies' watches. Nothing else runs: no controllers, no kubelets.

#![expect(
    clippy::indexing_slicing,
    reason = "of the objects that it makes and reads as JSON, a field that is absent reads as null"
)]

mod access;
mod audit;
mod cluster;
mod fill;
mod measurements;
mod objects;
mod operator;
mod pacing;
mod page;
mod reports;
mod rows;
mod watches;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use trivet_testbed::{Progress, Stopwatch, binaries, images, setup};

use self::cluster::Cluster;
use self::measurements::Measurements;
use self::objects::{Fleet, News, Sizes};
use self::operator::Operator;
use self::rows::Row;
use self::watches::Watches;
use crate::cli::{NODES, Scale};
use crate::machine::{self, Machine};
use crate::network;

/// The proxies whose watches are open while the pool is edited.
const WATCHES: usize = 1000;

/// The edits of the pool that they follow.
const EDITS: usize = 10;

/// The times of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// What the caches and the apiserver get to come to rest.
    settle: Duration,
    /// How long nothing changes, and how long reports without news arrive.
    rest: Duration,
    /// How long reports with news arrive.
    news: Duration,
}

impl Times {
    fn of(quick: bool) -> Self {
        let seconds = |whole: u64, short: u64| Duration::from_secs(if quick { short } else { whole });
        Self {
            settle: seconds(15, 5),
            rest: seconds(60, 10),
            news: seconds(30, 10),
        }
    }
}

/// Everything that is told of a run.
#[derive(Debug)]
pub(crate) struct Report {
    rows: Vec<Row>,
    nodes: usize,
    /// Whether the operator was given, instead of built as it ships.
    is_given: bool,
    times: Times,
    sizes: Sizes,
    machine: Machine,
    /// The load averages before and after.
    load: (String, String),
    taken: Duration,
}

/// Measures and reports.
pub(crate) fn run(options: &Scale) -> Result<()> {
    let progress = Progress::new();
    let watch = Stopwatch::start();
    let programs = binaries::ensure(&progress)?;
    let operator = if let Some(path) = &options.operator {
        path.clone()
    } else {
        setup::packages(&progress)?;
        images::program(&progress, "trivet-operator")?
    };
    let directory = tempfile::tempdir().context("failed to make a directory for this run")?;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("failed to raise the limit of open files")?;
    network::enter()?;
    let before = machine::load();
    let cluster = Cluster::start(&programs, directory.path())?;
    progress.done("etcd and an apiserver are ready", &watch);
    let times = Times::of(options.quick);
    let run = Run {
        progress: &progress,
        cluster: &cluster,
        program: &operator,
        directory: directory.path(),
        nodes: options.nodes,
        times,
    };
    // Threads of its own would take CPU from what is measured.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (mut rows, sizes) = runtime.block_on(run.measure())?;
    rows.extend(pacing::rows(options.nodes)?);
    let report = Report {
        rows,
        nodes: options.nodes,
        is_given: options.operator.is_some(),
        times,
        sizes,
        machine: Machine::look(),
        load: (before, machine::load()),
        taken: watch.elapsed(),
    };
    publish(&progress, options, &report)
}

struct Run<'run> {
    progress: &'run Progress,
    cluster: &'run Cluster,
    program: &'run Path,
    directory: &'run Path,
    nodes: usize,
    times: Times,
}

impl Run<'_> {
    async fn measure(&self) -> Result<(Vec<Row>, Sizes)> {
        let access = self.cluster.access();
        let (fleet, sizes) = self.fill().await?;
        let watch = Stopwatch::start();
        let mut operator = Operator::start(self.program, self.directory, self.cluster.kubeconfig())?;
        operator.wait_until_it_leads().await?;
        fill::wait_for_status(access).await?;
        let ready_after = watch.elapsed();
        self.progress
            .done("the operator has read all and written the status", &watch);

        tokio::time::sleep(self.times.settle).await;
        let at_rest = operator.memory()?;
        let watch = Stopwatch::start();
        let nothing = async {
            tokio::time::sleep(self.times.rest).await;
            Ok(())
        };
        let rest = operator.observe(self.cluster.audit(), nothing).await?;
        self.progress.done("measured it at rest", &watch);

        let mut arriving = async |lasts, news| {
            let arriving = reports::arrive(access, &fleet, self.nodes, (lasts, news));
            operator.observe(self.cluster.audit(), arriving).await
        };
        let watch = Stopwatch::start();
        let reports = arriving(self.times.rest, News::None).await?;
        self.progress.done("measured it while reports arrive", &watch);
        let watch = Stopwatch::start();
        let news = arriving(self.times.news, News::MemberLost).await?;
        self.progress
            .done("measured it while reports tell of a lost member", &watch);

        let watch = Stopwatch::start();
        let mut watches = Watches::open(access, WATCHES).await?;
        let mut edits = Vec::new();
        for edit in 0..EDITS {
            edits.push(watches.follow(access, self.cluster.audit(), edit).await?);
        }
        self.progress.done(
            format_args!("{WATCHES} watches have followed {EDITS} edits"),
            &watch,
        );
        let measured = Measurements {
            ready_after,
            at_rest,
            at_end: operator.memory()?,
            rest,
            reports,
            news,
            edits,
        };
        for write in measured.surplus() {
            self.progress.done(
                format_args!("nothing called for a write of {} at {}", write.resource, write.at),
                &watch,
            );
        }
        Ok((measured.rows(), sizes))
    }

    /// Fills the cluster. An operator makes the pool's objects, and ends before what is measured begins.
    async fn fill(&self) -> Result<(Fleet, Sizes)> {
        let access = self.cluster.access();
        let watch = Stopwatch::start();
        fill::base(access, self.nodes).await?;
        let mut first = Operator::start(self.program, self.directory, self.cluster.kubeconfig())?;
        first.wait_until_it_leads().await?;
        let fleet = fill::wait_for_fleet(access).await?;
        drop(first);
        let sizes = fill::proxies(access, &fleet, self.nodes).await?;
        self.progress.done(
            format_args!("{} nodes, their proxies' pods and reports are there", self.nodes),
            &watch,
        );
        Ok((fleet, sizes))
    }
}

fn publish(progress: &Progress, options: &Scale, report: &Report) -> Result<()> {
    print!("{}", page::terminal(report)?);
    let is_whole = !options.quick && options.nodes == NODES;
    let path = match &options.page {
        Some(path) => path.clone(),
        None if is_whole => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/scale.md"),
        None => return Ok(()),
    };
    fs::write(&path, page::page(report)?).with_context(|| format!("failed to write {}", path.display()))?;
    progress.done(format_args!("wrote {}", path.display()), &Stopwatch::start());
    Ok(())
}
