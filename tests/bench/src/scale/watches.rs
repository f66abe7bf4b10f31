//! A thousand proxies' watches of the document, and how long after an edit each has it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use trivet_crds::data_plane_name;

use super::access::{Access, Call};
use super::audit;
use super::fill;
use super::objects::{NAMESPACE, POOL};
use crate::authority::NAME;

/// How long an edit may take to reach all of them.
const LIMIT: Duration = Duration::from_secs(30);

/// The pause before each edit: whatever the one before has left to do is done then.
const PAUSE: Duration = Duration::from_secs(2);

/// The hedge delay that the first edit asks for. Each one asks for one millisecond more, so that each changes the document.
const HEDGE_MILLISECONDS: usize = 300;

/// The open watches.
#[derive(Debug)]
pub(crate) struct Watches {
    count: usize,
    events: mpsc::Receiver<Event>,
    /// They end with this value.
    _tasks: JoinSet<Result<()>>,
    /// The newest version of the ConfigMap that has been heard of.
    version: u64,
}

/// What a watch has brought.
#[derive(Clone, Copy, Debug)]
struct Event {
    watch: usize,
    version: u64,
    at: Instant,
}

/// One edit of the pool.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Edit {
    /// When the apiserver got the document, in seconds after the edit.
    pub(crate) written: f64,
    /// When each watch had it, in seconds after the edit.
    pub(crate) heard: Vec<f64>,
}

impl Watches {
    /// Opens so many, each on a connection of its own, by the request that a proxy makes.
    pub(crate) async fn open(access: &Access, count: usize) -> Result<Self> {
        let path = format!(
            "/api/v1/namespaces/{NAMESPACE}/configmaps?fieldSelector=metadata.name%3D{}",
            data_plane_name(POOL)
        );
        let list = access
            .get(&path)
            .await?
            .context("there is no list of ConfigMaps")?;
        let version = version(&list).context("the list of ConfigMaps has no version")?;
        let path = format!(
            "{path}&watch=true&allowWatchBookmarks=true&timeoutSeconds=600&resourceVersion={version}"
        );
        let (sender, events) = mpsc::channel(4 * count.max(1));
        let mut tasks = JoinSet::new();
        for watch in 0..count {
            let body = open(access, &path)
                .await
                .with_context(|| format!("failed to open watch {watch}"))?;
            tasks.spawn(follow(watch, body, sender.clone()));
        }
        Ok(Self {
            count,
            events,
            _tasks: tasks,
            version,
        })
    }

    /// Edits the pool and waits until all of them have the new document.
    pub(crate) async fn follow(&mut self, access: &Access, log: &Path, edit: usize) -> Result<Edit> {
        sleep(PAUSE).await;
        while let Ok(event) = self.events.try_recv() {
            self.version = self.version.max(event.version);
        }
        let spec =
            json!({ "spec": { "connection": { "hedgeDelayMilliseconds": HEDGE_MILLISECONDS + edit } } });
        let mark = audit::mark(log)?;
        let (began, clock) = (Instant::now(), Timestamp::now());
        access.write(Call::merge(fill::pool(), &spec)).await?;
        let heard = self.hear(began);
        let Ok(heard) = timeout(LIMIT, heard).await else {
            bail!(
                "not all of {} watches have brought edit {edit} after {LIMIT:?}",
                self.count
            );
        };
        let writes = audit::writes_since(log, mark)?;
        let write = writes.iter().find(|write| write.resource == "configmaps");
        let write = write.context("the operator has not written the ConfigMap")?;
        Ok(Edit {
            written: write.at.duration_since(clock).as_secs_f64(),
            heard: heard?,
        })
    }

    /// When each has brought a version that is newer than all before.
    async fn hear(&mut self, began: Instant) -> Result<Vec<f64>> {
        let mut heard = vec![None; self.count];
        let (mut left, mut newest) = (self.count, self.version);
        while left > 0 {
            let event = self.events.recv().await.context("all watches have ended")?;
            newest = newest.max(event.version);
            if let Some(at @ None) = heard.get_mut(event.watch)
                && event.version > self.version
            {
                *at = Some(event.at.saturating_duration_since(began).as_secs_f64());
                left -= 1;
            }
        }
        self.version = newest;
        Ok(heard.into_iter().flatten().collect())
    }
}

async fn open(access: &Access, path: &str) -> Result<Incoming> {
    let stream = access.connect_http1().await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Its end shows in the body.
    tokio::spawn(async move { drop(connection.await) });
    let request = Request::get(path)
        .header("host", NAME)
        .header("authorization", access.authorization())
        .body(Empty::<Bytes>::new())?;
    let response = sender
        .send_request(request)
        .await
        .context("the apiserver did not answer")?;
    let status = response.status();
    if status != StatusCode::OK {
        bail!("the watch was refused: {status}");
    }
    Ok(response.into_body())
}

/// Sends word of each change. An event is a line.
async fn follow(watch: usize, mut body: Incoming, events: mpsc::Sender<Event>) -> Result<()> {
    let mut buffer = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.context("a watch broke off")?.into_data() else {
            continue;
        };
        let at = Instant::now();
        buffer.extend_from_slice(&data);
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<_> = buffer.drain(..=end).collect();
            let event: Value = serde_json::from_slice(&line).context("not an event of a watch")?;
            if event["type"] == "MODIFIED"
                && let Some(version) = version(&event["object"])
            {
                events.send(Event { watch, version, at }).await?;
            }
        }
    }
    bail!("a watch has ended")
}

fn version(object: &Value) -> Option<u64> {
    object["metadata"]["resourceVersion"].as_str()?.parse().ok()
}
