//! kubectl's long streams through a node's proxy: `exec`, `logs -f` and `port-forward`, every byte of which is checked.
//!
//! A stream that ends is opened again at once, as a person would, and each of its lives is recorded.

mod drive;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};
use trivet_testbed::Host;

use crate::inside::inside;

/// The pause after a stream that could not be opened at all.
const AGAIN: Duration = Duration::from_millis(200);

/// A kind of stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Numbered lines to `cat` in the pod and back.
    Exec,
    /// The pod's numbered lines.
    Logs,
    /// Blocks of lines to an echo in the pod and back.
    PortForward,
}

/// One stream: each pod has at most one of a kind, so that audit logs tell them apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stream {
    /// The pod at its other end.
    pub pod: String,
    /// What kubectl does with it.
    pub kind: Kind,
}

/// How kubectl gets to the cluster from inside a host.
#[derive(Debug, Clone)]
pub struct Way {
    /// The credentials.
    pub kubeconfig: PathBuf,
    /// The proxy.
    pub through: SocketAddr,
    /// Where the pods are.
    pub namespace: String,
}

/// One life of a stream.
#[derive(Debug, Clone)]
pub struct Life {
    /// The stream.
    pub stream: Stream,
    /// When kubectl was started.
    pub begun: Timestamp,
    /// When the first line came.
    pub first: Option<Timestamp>,
    /// When the last line came.
    pub last: Option<Timestamp>,
    /// Lines that came.
    pub lines: u64,
    /// The longest time from one line to the next.
    pub longest_silence: Duration,
    /// When and how it ended, if it did.
    pub ended: Option<(Timestamp, String)>,
}

/// Streams under way on one host.
#[derive(Debug)]
pub struct Streams {
    stop: DropGuard,
    lives: Lives,
    work: JoinHandle<Result<()>>,
}

/// The lives so far, in the order in which they began.
#[derive(Debug, Clone, Default)]
struct Lives(Arc<Mutex<Vec<Life>>>);

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Exec, Self::Logs, Self::PortForward];

    /// The name of the subresource in the API.
    pub fn subresource(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Logs => "log",
            Self::PortForward => "portforward",
        }
    }
}

impl Streams {
    /// Opens all of them on `host`, and keeps them open until `finish` is called.
    pub fn open(host: &Host, way: &Way, streams: Vec<Stream>) -> Self {
        let (stop, lives) = (CancellationToken::new(), Lives::default());
        let (host, way, stopped, shared) = (host.clone(), way.clone(), stop.clone(), lives.clone());
        let work = tokio::spawn(async move {
            let kubectl = host.clone();
            let all = move || async move {
                let mut under_way = JoinSet::new();
                for stream in streams {
                    let (host, way) = (kubectl.clone(), way.clone());
                    under_way.spawn(keep_open(host, way, stream, shared.clone(), stopped.clone()));
                }
                under_way.join_all().await.into_iter().collect()
            };
            inside(&host, all).await?
        });
        Self {
            stop: stop.drop_guard(),
            lives,
            work,
        }
    }

    /// The current life of every stream whose first line has come and which has not ended.
    pub fn open_now(&self) -> Vec<Life> {
        let mut lives = self.lives.all();
        lives.retain(|life| life.first.is_some() && life.ended.is_none());
        lives
    }

    /// Ends them, and returns all their lives. Fails if a stream brought a byte that was not the one sent.
    pub async fn finish(self) -> Result<Vec<Life>> {
        drop(self.stop);
        self.work.await.context("the streams were lost")??;
        Ok(self.lives.all())
    }
}

impl Lives {
    fn all(&self) -> Vec<Life> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn begin(&self, stream: &Stream) -> usize {
        let mut lives = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lives.push(Life {
            stream: stream.clone(),
            begun: Timestamp::now(),
            first: None,
            last: None,
            lines: 0,
            longest_silence: Duration::ZERO,
            ended: None,
        });
        lives.len() - 1
    }

    fn with(&self, index: usize, change: impl FnOnce(&mut Life)) {
        let mut lives = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(life) = lives.get_mut(index) {
            change(life);
        }
    }
}

impl Life {
    fn line(&mut self, at: Timestamp) {
        let silence = self.last.map(|last| at.duration_since(last).unsigned_abs());
        self.longest_silence = self.longest_silence.max(silence.unwrap_or_default());
        self.first.get_or_insert(at);
        self.last = Some(at);
        self.lines += 1;
    }
}

async fn keep_open(
    host: Host,
    way: Way,
    stream: Stream,
    lives: Lives,
    stop: CancellationToken,
) -> Result<()> {
    while !stop.is_cancelled() {
        let life = lives.begin(&stream);
        let seen = || lives.with(life, |life| life.line(Timestamp::now()));
        let to_its_end = drive::live(&host, &way, &stream, seen);
        let Some(end) = stop.run_until_cancelled(to_its_end).await else {
            break;
        };
        let end = end.with_context(|| format!("{} of {}", stream.kind.subresource(), stream.pod))?;
        let mut opened = false;
        lives.with(life, |life| {
            life.ended = Some((Timestamp::now(), end));
            opened = life.first.is_some();
        });
        if !opened {
            sleep(AGAIN).await;
        }
    }
    Ok(())
}

/// Fails unless every stream was opened at least once, so that there is something to say about it.
pub fn all_opened(streams: &[Stream], lives: &[Life]) -> Result<()> {
    for stream in streams {
        let opened = lives
            .iter()
            .any(|life| life.stream == *stream && life.first.is_some());
        ensure!(opened, "{stream:?} never brought a line");
    }
    Ok(())
}
