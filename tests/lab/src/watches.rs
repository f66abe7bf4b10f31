//! Long connections: each watches one apiserver, records every tick, and reconnects at once when it is cut.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_rustls::client::TlsStream;
use trivet_instruments::Client;

/// The request of a watch. The head of the answer comes at once, then the ticks.
const REQUEST: &[u8] = b"GET /watch HTTP/1.1\r\nhost: kubernetes\r\n\r\n";

/// The limit of an answer, which a healthy apiserver never reaches.
const OPENED: Duration = Duration::from_secs(30);

/// More than any head of an answer.
const LONGEST_HEAD: usize = 16 * 1024;

/// The pause before a reconnect. client-go reconnects at once the first time; the pause keeps the test from spinning.
const COME_BACK: Duration = Duration::from_millis(20);

/// One connection of a watch, from its first tick to its end.
#[derive(Clone, Debug)]
pub struct Stay {
    /// The member that sent the ticks.
    pub member: String,
    /// When the first tick came.
    pub first: Instant,
    /// When the last tick came.
    pub last: Instant,
    /// When and how it ended; none if it goes on. An orderly end is `Ok`.
    pub end: Option<(Instant, Result<(), io::ErrorKind>)>,
}

/// Watches under way. Dropping them ends them.
#[derive(Debug)]
pub struct Watches {
    logs: Vec<Arc<Mutex<Vec<Stay>>>>,
    tasks: JoinSet<()>,
}

impl Watches {
    /// Opens `count` watches; returns once each has ticked.
    pub(crate) async fn start(client: &Client, count: usize) -> Self {
        let mut watches = Self {
            logs: Vec::new(),
            tasks: JoinSet::new(),
        };
        for _ in 0..count {
            let log = Arc::new(Mutex::new(Vec::new()));
            watches.logs.push(Arc::clone(&log));
            watches.tasks.spawn(watch(client.clone(), Arc::clone(&log)));
            // One after the other, so that the proxy chooses a member for each with the others counted.
            while lock(&log).is_empty() {
                sleep(Duration::from_millis(1)).await;
            }
        }
        watches
    }

    /// The connections of each watch so far.
    pub fn stays(&self) -> Vec<Vec<Stay>> {
        self.logs.iter().map(|log| lock(log).clone()).collect()
    }

    /// How many watches a member has now.
    pub fn on(&self, member: &str) -> usize {
        let here = |stay: &Stay| stay.end.is_none() && stay.member == member;
        self.stays()
            .iter()
            .filter(|stays| stays.last().is_some_and(here))
            .count()
    }

    /// The connections that ended at `since` or later, with any member.
    pub fn ended_since(&self, since: Instant) -> Vec<Stay> {
        let stays = self.stays().into_iter().flatten();
        stays
            .filter(|stay| stay.end.is_some_and(|(at, _)| at >= since))
            .collect()
    }

    /// The most connections that one watch has lost.
    pub fn most_cuts(&self) -> usize {
        let cuts = |stays: &Vec<Stay>| stays.iter().filter(|stay| stay.end.is_some()).count();
        self.stays().iter().map(cuts).max().unwrap_or_default()
    }

    /// The longest time without a tick in any watch from `since` until now.
    pub fn longest_gap(&self, since: Instant) -> Duration {
        let now = Instant::now();
        let gaps = self.stays().into_iter().flat_map(|stays| {
            let starts: Vec<_> = stays.iter().map(|stay| stay.first).skip(1).chain([now]).collect();
            let pauses = stays
                .into_iter()
                .zip(starts)
                .map(move |(stay, next)| (stay.last.max(since), next));
            pauses
                .map(|(from, to)| to.saturating_duration_since(from))
                .collect::<Vec<_>>()
        });
        gaps.max().unwrap_or_default()
    }
}

async fn watch(client: Client, log: Arc<Mutex<Vec<Stay>>>) {
    loop {
        if let Ok(stream) = open(&client).await {
            let (mut reading, _writing) = tokio::io::split(stream);
            let end = ticks(&mut reading, &log).await;
            if let Some(stay) = lock(&log).last_mut().filter(|stay| stay.end.is_none()) {
                stay.end = Some((Instant::now(), end));
            }
        }
        sleep(COME_BACK).await;
    }
}

/// Opens a watch and returns its stream behind the head of the answer.
async fn open(client: &Client) -> io::Result<TlsStream<TcpStream>> {
    let opening = async {
        let mut stream = client.connect().await?;
        stream.write_all(REQUEST).await?;
        stream.flush().await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
            if head.len() > LONGEST_HEAD {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        Ok(stream)
    };
    timeout(OPENED, opening).await?
}

/// Notes ticks until the stream ends.
async fn ticks(
    stream: &mut ReadHalf<TlsStream<TcpStream>>,
    log: &Mutex<Vec<Stay>>,
) -> Result<(), io::ErrorKind> {
    let mut buffer = [0; 1024];
    let mut begun = false;
    loop {
        let length = stream.read(&mut buffer).await.map_err(|error| error.kind())?;
        let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned();
        // The last chunk of an answer that ends as it should.
        if length == 0 || text.ends_with("0\r\n\r\n") {
            return Ok(());
        }
        let now = Instant::now();
        let mut stays = lock(log);
        if let Some(stay) = stays.last_mut().filter(|_| begun) {
            stay.last = now;
        } else if let Some(member) = text.lines().find_map(|line| line.strip_prefix("tick ")) {
            begun = true;
            stays.push(Stay {
                member: member.to_owned(),
                first: now,
                last: now,
                end: None,
            });
        }
    }
}

fn lock(log: &Mutex<Vec<Stay>>) -> std::sync::MutexGuard<'_, Vec<Stay>> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}
