//! Clients that keep one connection open, and say something on it every few milliseconds, whether the last words were
//! answered or not.

use std::{
    collections::VecDeque,
    future::pending,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpSocket, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// What a client says at once. The same bytes come back.
const LENGTH: usize = 16;

/// A wait for an answer that a hand-over explains without any fault; longer ones are judged.
const USUAL_WAIT: Duration = Duration::from_millis(200);

/// A connection whose last answers have not come after this long hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// How one connection has fared.
#[derive(Debug)]
pub(crate) struct Kept {
    /// The client's end of it.
    pub(crate) client: SocketAddr,
    /// The process that accepted it.
    pub(crate) home: &'static str,
    /// How many messages were answered.
    pub(crate) answered: u64,
    /// The longest that one has waited for its answer.
    pub(crate) slowest: Duration,
    /// From when to when messages have waited that waited unusually long.
    pub(crate) waits: Vec<(Instant, Instant)>,
    pub(crate) outcome: Fate,
}

impl Kept {
    /// Whether it was open for as long as its client wanted it.
    pub(crate) fn has_lasted(&self) -> bool {
        matches!(self.outcome, Fate::Lasted)
    }
}

/// How it has ended.
#[derive(Debug)]
pub(crate) enum Fate {
    /// All was answered, and the client has ended it.
    Lasted,
    /// It was ended under the client.
    Ended(Instant, io::Error),
    /// What came is not what was said.
    Wrong(String),
}

/// Clients with their connections.
pub(crate) struct Established {
    stop: CancellationToken,
    clients: JoinSet<Kept>,
    source: SocketAddr,
    opened: u64,
    pace: Duration,
}

impl Established {
    /// None yet; each will say something so often.
    pub(crate) fn new(pace: Duration) -> Self {
        Self {
            stop: CancellationToken::new(),
            clients: JoinSet::new(),
            source: source(),
            opened: 0,
            pace,
        }
    }

    /// So many connections, all of which this process has answered.
    pub(crate) async fn open(
        &mut self,
        address: SocketAddr,
        home: &'static str,
        count: u64,
    ) -> io::Result<()> {
        for _ in 0..count {
            let socket = TcpSocket::new_v4()?;
            socket.bind(self.source)?;
            let mut stream = socket.connect(address).await?;
            let words = Words(self.opened);
            stream.write_all(&words.message(0)).await?;
            let mut heard = [0; LENGTH];
            stream.read_exact(&mut heard).await?;
            assert_eq!(heard, words.message(0));
            self.clients
                .spawn(talk(stream, words, home, self.pace, self.stop.clone()));
            self.opened += 1;
        }
        Ok(())
    }

    /// Lets all clients end, and says how they have fared.
    pub(crate) async fn finish(self) -> Vec<Kept> {
        self.stop.cancel();
        self.clients.join_all().await
    }
}

/// An address of this run alone: the port of one of its clients could be that of another client, or of a connection by which
/// a process proves itself.
fn source() -> SocketAddr {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    let [high, low] = GIVEN.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    (Ipv4Addr::new(127, 1, high, low), 0).into()
}

/// What a client says: its number and that of the message.
#[derive(Clone, Copy)]
struct Words(u64);

impl Words {
    fn message(self, number: u64) -> [u8; LENGTH] {
        let mut message = [0; LENGTH];
        message[..8].copy_from_slice(&self.0.to_be_bytes());
        message[8..].copy_from_slice(&number.to_be_bytes());
        // No TLS handshake begins with it.
        message[0] = b'm';
        message
    }

    /// Whether these bytes are those from this place on.
    fn agree(self, from: u64, heard: &[u8]) -> bool {
        (from..).zip(heard).all(|(place, byte)| {
            let length = u64::try_from(LENGTH).unwrap();
            let within = usize::try_from(place % length).unwrap();
            self.message(place / length)[within] == *byte
        })
    }
}

/// When each message was said that was not answered yet. The first message was answered before.
type Unanswered = Mutex<VecDeque<Instant>>;

async fn talk(
    mut stream: TcpStream,
    words: Words,
    home: &'static str,
    pace: Duration,
    stop: CancellationToken,
) -> Kept {
    let mut kept = Kept {
        client: stream.local_addr().unwrap(),
        home,
        answered: 1,
        slowest: Duration::ZERO,
        waits: Vec::new(),
        outcome: Fate::Lasted,
    };
    let unanswered = Unanswered::default();
    let (reads, writes) = stream.split();
    let limit = async {
        stop.cancelled().await;
        sleep(PATIENCE).await;
    };
    let outcome = tokio::select! {
        outcome = hear(reads, words, &unanswered, &mut kept) => outcome,
        never = say(writes, words, pace, &unanswered, &stop) => match never {},
        () = limit => Fate::Ended(Instant::now(), io::ErrorKind::TimedOut.into()),
    };
    kept.outcome = match outcome {
        Fate::Lasted if !stop.is_cancelled() || !lock(&unanswered).is_empty() => {
            Fate::Ended(Instant::now(), io::ErrorKind::UnexpectedEof.into())
        }
        outcome @ (Fate::Lasted | Fate::Ended(..) | Fate::Wrong(_)) => outcome,
    };
    kept
}

/// Says one message after the other, and half-closes when it is to stop. How the connection ends is heard.
async fn say(
    mut writes: WriteHalf<'_>,
    words: Words,
    pace: Duration,
    unanswered: &Unanswered,
    stop: &CancellationToken,
) -> std::convert::Infallible {
    for number in 1.. {
        if timeout(pace, stop.cancelled()).await.is_ok() {
            drop(writes.shutdown().await);
            break;
        }
        lock(unanswered).push_back(Instant::now());
        if writes.write_all(&words.message(number)).await.is_err() {
            break;
        }
    }
    pending().await
}

/// Hears to the end of what comes.
async fn hear(mut reads: ReadHalf<'_>, words: Words, unanswered: &Unanswered, kept: &mut Kept) -> Fate {
    let length = u64::try_from(LENGTH).unwrap();
    let (mut heard, mut buffer) = (length, [0; 4096]);
    loop {
        let count = match reads.read(&mut buffer).await {
            Ok(0) if heard % length == 0 => return Fate::Lasted,
            Ok(0) => return Fate::Ended(Instant::now(), io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
            Err(error) => return Fate::Ended(Instant::now(), error),
        };
        if !words.agree(heard, &buffer[..count]) {
            return Fate::Wrong(format!("other bytes than it said, after {heard}"));
        }
        heard += u64::try_from(count).unwrap();
        let now = Instant::now();
        while kept.answered < heard / length {
            let Some(said) = lock(unanswered).pop_front() else {
                return Fate::Wrong(format!("an answer to what it did not say, after {heard}"));
            };
            kept.answered += 1;
            let wait = now.saturating_duration_since(said);
            kept.slowest = kept.slowest.max(wait);
            if wait > USUAL_WAIT {
                kept.waits.push((said, now));
            }
        }
    }
}

fn lock(unanswered: &Unanswered) -> std::sync::MutexGuard<'_, VecDeque<Instant>> {
    unanswered.lock().unwrap_or_else(PoisonError::into_inner)
}
