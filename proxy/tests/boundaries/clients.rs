//! Clients that connect every few milliseconds, whether the last ones were answered or not.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep, timeout},
};

/// The pause between two connections.
const BETWEEN: Duration = Duration::from_millis(10);

/// An answer that has not come after this long is lost.
const PATIENCE: Duration = Duration::from_secs(20);

/// What clients say.
const WORDS: &[u8; 8] = b"hello :)";

/// One connection.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) begun: Instant,
    pub(crate) ended: Instant,
    pub(crate) outcome: Outcome,
}

/// How it ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    Answered,
    /// Nobody listens.
    Refused,
    Lost(io::Error),
}

impl Attempt {
    pub(crate) fn took(&self) -> Duration {
        self.ended.saturating_duration_since(self.begun)
    }

    pub(crate) async fn make(address: SocketAddr) -> Self {
        let begun = Instant::now();
        let asked = timeout(PATIENCE, ask(address)).await;
        let outcome = match asked.unwrap_or_else(|_late| Err(io::ErrorKind::TimedOut.into())) {
            Ok(_client) => Outcome::Answered,
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Outcome::Refused,
            Err(error) => Outcome::Lost(error),
        };
        Self {
            begun,
            ended: Instant::now(),
            outcome,
        }
    }
}

/// A connection that is answered, from this address.
pub(crate) async fn ask(address: SocketAddr) -> io::Result<SocketAddr> {
    let mut stream = TcpStream::connect(address).await?;
    let client = stream.local_addr()?;
    stream.write_all(WORDS).await?;
    let mut heard = [0; WORDS.len()];
    stream.read_exact(&mut heard).await?;
    assert_eq!(&heard, WORDS);
    Ok(client)
}

/// The clients of an address.
pub(crate) struct Clients {
    stop: oneshot::Sender<()>,
    made: JoinHandle<Vec<Attempt>>,
}

impl Clients {
    pub(crate) fn start(address: SocketAddr) -> Self {
        let (stop, mut stopped) = oneshot::channel();
        let made = tokio::spawn(async move {
            let mut made = JoinSet::new();
            while stopped.try_recv().is_err() {
                made.spawn(Attempt::make(address));
                sleep(BETWEEN).await;
            }
            made.join_all().await
        });
        Self { stop, made }
    }

    pub(crate) async fn finish(self) -> Vec<Attempt> {
        // It fails if the task has panicked, which the next line tells.
        let _ended = self.stop.send(());
        self.made.await.unwrap()
    }
}
