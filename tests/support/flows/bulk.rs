//! Bytes from and to a pod through an apiserver's `pods/proxy`, each of which is compared.

use std::convert::Infallible;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use futures::{Stream, stream};
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout};
use trivet_instruments::{Client, SERVER_NAME};
use trivet_testbed::Host;

use super::blocks::Blocks;
use super::flow::{Begun, Seen, tell};
use super::pace::Limits;
use crate::keep_alive::KeepAlive;

/// Where the tests' pods serve streams of bytes.
const PORT: u16 = 8081;

/// What is sent at once: several TLS records.
const CHUNK: usize = 64 << 10;

/// A reader that gets nothing for so long gives up.
const LIMIT: Duration = Duration::from_secs(30);

/// A pod of the tests, and a token of who may use its `proxy`.
#[derive(Debug, Clone)]
pub(super) struct Pod {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) token: String,
}

/// One stream of bytes, on a connection of its own.
#[derive(Debug, Clone)]
pub(super) struct Bulk {
    pub(super) client: Client,
    pub(super) pod: Pod,
    pub(super) seed: u64,
    pub(super) limits: Limits,
}

/// How much lower the priority of a thread is that moves bytes, nice(2): a tenth of the CPU of one that measures. At full
/// speed, as many as there are would take the clients' whole share, and attempts would wait for the CPU for ten seconds.
const NICE: i32 = 10;

/// What has gone into a body.
#[derive(Debug, Clone, Copy, Default)]
struct Sent {
    bytes: u64,
    longest_pause: Duration,
}

/// The chunks of a body, each made when the connection takes it.
struct Chunks {
    blocks: Blocks,
    limits: Limits,
    given: Option<Instant>,
    sent: watch::Sender<Sent>,
}

/// Does this after others have had the CPU. It lowers the priority of the whole thread, and a flow has one of its own.
async fn behind_others(work: impl Future<Output = Result<Seen>>) -> Result<Seen> {
    rustix::process::nice(NICE).context("failed to lower the priority of a thread")?;
    work.await
}

impl Bulk {
    /// Starts to read from the pod.
    pub(super) async fn download(self, host: &Host) -> Result<Begun> {
        Begun::start(host, move |opened| behind_others(self.receive(opened))).await
    }

    /// Starts to write to the pod.
    pub(super) async fn upload(self, host: &Host) -> Result<Begun> {
        Begun::start(host, move |opened| behind_others(self.send(opened))).await
    }

    async fn receive(mut self, opened: oneshot::Sender<String>) -> Result<Seen> {
        let mut connection = KeepAlive::open(&self.client).await?;
        let request = self.request(Method::GET, "source", Empty::<Bytes>::new())?;
        let response = connection.sender.send_request(request).await;
        let response = response.context("no answer")?;
        if !response.status().is_success() {
            return Err(refusal(response).await);
        }
        let server = connection.server.clone();
        tell(opened, &server)?;

        let (mut blocks, mut longest_pause) = (Blocks::of(self.seed), Duration::ZERO);
        let body = response.into_body();
        let end = read(body, &mut blocks, &mut self.limits, &mut longest_pause).await;
        Ok(seen(blocks.offset(), &server, longest_pause, end))
    }

    async fn send(self, opened: oneshot::Sender<String>) -> Result<Seen> {
        let mut connection = KeepAlive::open(&self.client).await?;
        let (sent, last) = watch::channel(Sent::default());
        let chunks = Chunks {
            blocks: Blocks::of(self.seed),
            limits: self.limits.clone(),
            given: None,
            sent,
        };
        let body = StreamBody::new(chunks.stream());
        let request = self.request(Method::POST, "sink", body)?;
        let server = connection.server.clone();
        tell(opened, &server)?;

        let answer = connection.sender.send_request(request).await;
        let sent = *last.borrow();
        let end = all_arrived(answer, sent.bytes).await;
        Ok(seen(sent.bytes, &server, sent.longest_pause, end))
    }

    fn request<B>(&self, method: Method, what: &str, body: B) -> Result<Request<B>> {
        let Pod {
            namespace,
            name,
            token,
        } = &self.pod;
        let seed = self.seed;
        Request::builder()
            .method(method)
            .uri(format!(
                "/api/v1/namespaces/{namespace}/pods/{name}:{PORT}/proxy/{what}/{seed}"
            ))
            .header(header::HOST, SERVER_NAME)
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .body(body)
            .context("failed to write a request")
    }
}

impl Chunks {
    fn stream(self) -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> + Send {
        stream::unfold(self, Self::next)
    }

    async fn next(mut self) -> Option<(Result<Frame<Bytes>, Infallible>, Self)> {
        // From one chunk to the call for the next one the connection takes no more.
        let waited = self.given.map(|given| given.elapsed()).unwrap_or_default();
        let bytes = self.blocks.offset();
        self.sent.send_modify(|sent| {
            sent.bytes = bytes;
            sent.longest_pause = sent.longest_pause.max(waited);
        });
        if bytes > 0 {
            self.limits.after(CHUNK).await;
        }
        if self.limits.is_over(bytes) {
            return None;
        }
        let chunk = Bytes::from(self.blocks.take(CHUNK));
        self.given = Some(Instant::now());
        Some((Ok(Frame::data(chunk)), self))
    }
}

/// Reads until the stream is over; fails if it ends before, or a byte is wrong.
async fn read(
    mut body: Incoming,
    blocks: &mut Blocks,
    limits: &mut Limits,
    longest_pause: &mut Duration,
) -> Result<()> {
    while !limits.is_over(blocks.offset()) {
        let begun = Instant::now();
        let frame = timeout(LIMIT, body.frame()).await;
        *longest_pause = (*longest_pause).max(begun.elapsed());
        let frame = frame.with_context(|| format!("no byte for {} s", LIMIT.as_secs()))?;
        let frame = frame.context("the apiserver ended it")??;
        let Ok(bytes) = frame.into_data() else { continue };
        blocks.compare(&bytes)?;
        limits.after(bytes.len()).await;
    }
    Ok(())
}

/// Fails unless the pod says that it got as many bytes as were sent, and that each was right.
async fn all_arrived(answer: hyper::Result<Response<Incoming>>, sent: u64) -> Result<()> {
    let response = answer?;
    if !response.status().is_success() {
        return Err(refusal(response).await);
    }
    let arrived = response.into_body().collect().await?.to_bytes();
    let arrived = String::from_utf8_lossy(&arrived);
    ensure!(
        arrived.trim() == sent.to_string(),
        "{sent} bytes were sent, and {arrived:?} came"
    );
    Ok(())
}

async fn refusal(response: Response<Incoming>) -> anyhow::Error {
    let status = response.status();
    let body = response.into_body().collect().await;
    let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    anyhow!("{status}: {}", String::from_utf8_lossy(&body).trim())
}

fn seen(bytes: u64, server: &str, longest_pause: Duration, end: Result<()>) -> Seen {
    Seen {
        carried: format!("{} MiB by {server}", bytes >> 20),
        longest_pause,
        broken: end.err().map(|error| format!("{error:#}")),
    }
}
