//! As many established connections as a process may have go to the next process of its node, and none of them notices.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{StreamExt, TryStreamExt, stream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{MEMORY_PER_PAIR, PATIENCE, alone, process::Proxy};

/// A big node has a tenth of it.
const MOST: usize = 9_500;

/// So many of them say something all the time, spread over all by age.
const PINGING: usize = 50;

/// The pause between two words of one that pings, whether the last was answered or not.
const PACE: Duration = Duration::from_millis(10);

/// How long a connection may pause beyond what the machine costs: far below the shortest timeout of a client.
const PAUSE: Duration = Duration::from_millis(300);

/// For what the first process has left to do, and a machine that does much else.
const END: Duration = Duration::from_secs(30);

/// Clients that connect at once.
const AT_A_TIME: usize = 100;

#[tokio::test]
async fn as_many_connections_as_files_allow_go_to_the_next_proxy_without_a_pause() {
    let _alone = alone().await;
    let mut first = Proxy::start_handing_over().await;
    let count = (first.most_pairs() - PINGING).min(MOST);
    let mut clients = connect(first.address, count).await.unwrap();
    let next = first.successor().await;
    let pinging = (0..PINGING).map(|index| clients.remove(index * (count - PINGING) / PINGING));
    let pinging: Vec<_> = pinging.map(Ping::start).collect();
    let direct = TcpStream::connect(first.upstream()).await.unwrap();
    let direct = Ping::start(direct);
    sleep(Duration::from_millis(500)).await;

    let before = (first.memory(), next.memory());
    let longest = |pings: &[Ping]| pings.iter().map(Ping::take_longest).max().unwrap();
    let usual = (longest(&pinging), direct.take_longest());
    let begun = Instant::now();
    assert!(first.terminate(END).await.success());
    let took = begun.elapsed();
    let after = next.memory();
    let taken = next.metric("trivet_proxy_connections_taken_total").await;
    let held = next.metric("trivet_proxy_client_connections").await;

    // One more turn each, so that all are answered after it.
    sleep(PAUSE).await;
    let (longest, machine) = (longest(&pinging), direct.take_longest());
    println!(
        "{count} connections handed over within {took:?}; bytes of the first {}, of the next {} and then {after}; the \
         longest pause {longest:?}, of a direct connection {machine:?}; before it {usual:?}",
        before.0, before.1
    );
    assert!(
        after.saturating_sub(before.1) <= count * MEMORY_PER_PAIR,
        "{after} bytes"
    );
    // The first one may have been proving itself, on a connection of its own.
    let count = u64::try_from(count).unwrap();
    assert!(
        taken >= Some(count) && held >= Some(count),
        "{taken:?}, {held:?} of {count}"
    );
    for client in &mut clients {
        say(client, b"after").await.unwrap();
    }
    assert!(
        pinging.iter().all(Ping::lasts),
        "a connection that pings has ended"
    );
    // The longest pauses of two connections differ by chance where the machine is busy.
    assert!(longest <= PAUSE + machine * 2, "{longest:?}");
}

/// Established connections, all of which were answered.
async fn connect(address: SocketAddr, count: usize) -> io::Result<Vec<TcpStream>> {
    let connected = stream::iter(0..count).map(|_| async move {
        let mut client = TcpStream::connect(address).await?;
        say(&mut client, b"before").await?;
        Ok(client)
    });
    connected.buffered(AT_A_TIME).try_collect().await
}

async fn say(client: &mut TcpStream, words: &[u8]) -> io::Result<()> {
    client.write_all(words).await?;
    let mut heard = vec![0; words.len()];
    timeout(PATIENCE, client.read_exact(&mut heard)).await??;
    assert_eq!(heard, words);
    Ok(())
}

/// A client that says something all the time, and how long it has waited at most.
struct Ping {
    waits: Arc<Mutex<Waits>>,
    client: AbortOnDropHandle<io::Result<()>>,
}

#[derive(Default)]
struct Waits {
    /// When the words were said that were not answered yet.
    unanswered: VecDeque<Instant>,
    longest: Duration,
}

impl Waits {
    /// The longest so far, of those too that go on.
    fn longest(&self) -> Duration {
        let waiting = self.unanswered.front().map(Instant::elapsed);
        self.longest.max(waiting.unwrap_or_default())
    }
}

impl Ping {
    fn start(mut stream: TcpStream) -> Self {
        let waits = Arc::new(Mutex::new(Waits::default()));
        let of_client = Arc::clone(&waits);
        let client = tokio::spawn(async move {
            let waits = of_client;
            let (mut reads, mut writes) = stream.split();
            let say = async {
                for word in 0_u64.. {
                    waits.lock().unwrap().unanswered.push_back(Instant::now());
                    writes.write_all(&word.to_be_bytes()).await?;
                    sleep(PACE).await;
                }
                Ok(())
            };
            let hear = async {
                for word in 0_u64.. {
                    assert_eq!(reads.read_u64().await?, word);
                    let mut waits = waits.lock().unwrap();
                    let said = waits.unanswered.pop_front().unwrap();
                    waits.longest = waits.longest.max(said.elapsed());
                }
                Ok(())
            };
            tokio::select! {
                ended = say => ended,
                ended = hear => ended,
            }
        });
        Self {
            waits,
            client: AbortOnDropHandle::new(client),
        }
    }

    /// How long it has waited at most since this was last asked.
    fn take_longest(&self) -> Duration {
        let mut waits = self.waits.lock().unwrap();
        let longest = waits.longest();
        waits.longest = Duration::ZERO;
        longest
    }

    /// Whether all that it said came back, and its connection is open.
    fn lasts(&self) -> bool {
        !self.client.is_finished()
    }
}
