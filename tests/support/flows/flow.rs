//! One flow: what it is, and what became of it.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use trivet_testbed::Host;

use crate::inside::inside;
use crate::streams;

/// On a busy machine, where others open at the same time.
const OPENS: Duration = Duration::from_secs(30);

/// From the word that it may end: what is missing of a gibibyte comes first.
const ENDS: Duration = Duration::from_secs(120);

/// A kind of flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// client-go's informers, and a writer.
    Informers,
    /// Small requests at a steady rate.
    Requests,
    /// One of kubectl's streams.
    Kubectl(streams::Kind),
    /// Bytes from a pod.
    Download,
    /// Bytes to a pod.
    Upload,
    /// Bytes from a pod whose reader is slower than the apiserver, so that some are always held on the way.
    SlowReader,
}

/// How a flow reaches an apiserver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// Through the proxy of its node.
    Proxy,
    /// Directly: what it has to wait for is the machine's share.
    Direct,
}

/// A flow that is over.
#[derive(Debug, Clone)]
pub struct Flow {
    /// Where its client is.
    pub worker: String,
    /// What it is.
    pub kind: Kind,
    /// How it went.
    pub route: Route,
    /// What became of it.
    pub seen: Seen,
}

/// What a client says of its flow at the end.
#[derive(Debug, Clone)]
pub struct Seen {
    /// How much it carried, and from whom.
    pub carried: String,
    /// The longest time that its client waited for the next part.
    pub longest_pause: Duration,
    /// What was wrong, if it did not go on to the end as it began.
    pub broken: Option<String>,
}

/// A flow under way.
pub(super) struct Begun {
    /// The master at its other end.
    pub(super) server: String,
    end: JoinHandle<Result<Seen>>,
}

impl Seen {
    /// Of a client that does not say.
    pub(super) fn lost(error: &anyhow::Error) -> Self {
        Self {
            carried: "nothing that is known".to_owned(),
            longest_pause: Duration::ZERO,
            broken: Some(format!("{error:#}")),
        }
    }
}

impl Begun {
    /// Starts `work` in a host, and waits until it tells which master it is connected to.
    pub(super) async fn start<F>(
        host: &Host,
        work: impl FnOnce(oneshot::Sender<String>) -> F + Send + 'static,
    ) -> Result<Self>
    where
        F: Future<Output = Result<Seen>>,
    {
        let (opened, open) = oneshot::channel();
        let host = host.clone();
        let end = tokio::spawn(async move { inside(&host, move || work(opened)).await? });
        if let Ok(server) = timeout(OPENS, open).await.context("it did not open in time")? {
            return Ok(Self { server, end });
        }
        let seen = end.await.context("it was lost")??;
        Err(anyhow!("it ended as it began: {seen:?}"))
    }

    /// Whether it has ended by itself.
    pub(super) fn has_ended(&self) -> bool {
        self.end.is_finished()
    }

    /// Waits for its end. It must have been told to end.
    pub(super) async fn finish(self) -> Seen {
        let end = async {
            let end = timeout(ENDS, self.end).await.context("it does not end")?;
            end.context("it was lost")?
        };
        end.await.unwrap_or_else(|error| Seen::lost(&error))
    }
}

/// Says which master a flow is connected to.
pub(super) fn tell(opened: oneshot::Sender<String>, server: &str) -> Result<()> {
    let told = opened.send(server.to_owned());
    told.map_err(|server| anyhow!("nobody waits for the connection to {server}"))
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Informers => "informers",
            Self::Requests => "requests",
            Self::Kubectl(kind) => kind.subresource(),
            Self::Download => "download",
            Self::Upload => "upload",
            Self::SlowReader => "slow reader",
        })
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { worker, kind, .. } = self;
        let directly = match self.route {
            Route::Proxy => "",
            Route::Direct => ", directly",
        };
        let Seen {
            carried,
            longest_pause,
            broken,
        } = &self.seen;
        let pause = longest_pause.as_secs_f32();
        write!(
            f,
            "{worker}: {kind}{directly}: {carried}, longest pause {pause:.3} s"
        )?;
        broken.iter().try_for_each(|broken| write!(f, "; {broken}"))
    }
}
