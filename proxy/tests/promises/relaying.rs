//! No byte is lost, altered or reordered, and each end hears of the other's end as it was meant.

use std::{io::ErrorKind, sync::Arc, time::Duration};

use bytes::Bytes;
use rand::{Rng, RngCore, SeedableRng, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinHandle,
    time::{sleep, timeout},
};
use trivet_proxy::{
    ending::Ending,
    metrics::Metrics,
    net::socket,
    relay::{Pair, Stop, Summary, TailBudget},
    upstream::CloseSignal,
};

/// Both ends of a relay, and the relay.
struct Relayed {
    client: TcpStream,
    server: TcpStream,
    relay: JoinHandle<Summary>,
}

/// Small kernel buffers: tails and back-pressure are what is tested. They are set before the handshake, or the window that
/// it announces would be larger than the buffer behind it, and packets would be lost.
const BUFFER: u32 = 64 * 1024;

fn small_socket() -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_send_buffer_size(BUFFER).unwrap();
    socket.set_recv_buffer_size(BUFFER).unwrap();
    socket.set_nodelay(true).unwrap();
    socket
}

async fn connected() -> (TcpStream, TcpStream) {
    let listener = small_socket();
    listener.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = listener.listen(1).unwrap();
    let (near, far) = tokio::join!(
        small_socket().connect(listener.local_addr().unwrap()),
        listener.accept()
    );
    (near.unwrap(), far.unwrap().0)
}

async fn relayed(unsent: &'static [u8]) -> Relayed {
    relayed_within(unsent, Arc::default()).await
}

/// A relay whose tails count in this budget.
async fn relayed_within(unsent: &'static [u8], tails: Arc<TailBudget>) -> Relayed {
    let (client, from_client) = connected().await;
    let (to_server, server) = connected().await;
    let relay = tokio::spawn(async move {
        let mut pair = Pair::new(from_client, to_server, Bytes::from_static(unsent), &tails);
        let stop = pair.run(&CloseSignal::default(), &Metrics::default()).await;
        let Stop::Ended(summary) = stop else {
            panic!("nobody asked for it");
        };
        if summary.ending.resets() {
            socket::reset_on_close(pair.client());
            socket::reset_on_close(pair.upstream());
        }
        summary
    });
    Relayed {
        client,
        server,
        relay,
    }
}

pub(crate) fn random(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// Writes in pieces of all sizes, with pauses, and half-closes.
pub(crate) async fn write_slowly(stream: &mut (impl AsyncWriteExt + Unpin), bytes: &[u8], seed: u64) {
    let mut chance = StdRng::seed_from_u64(seed);
    let mut rest = bytes;
    while !rest.is_empty() {
        let (piece, later) = rest.split_at(chance.random_range(1..=rest.len().min(100_000)));
        stream.write_all(piece).await.unwrap();
        rest = later;
        if chance.random_bool(0.2) {
            sleep(Duration::from_millis(1)).await;
        }
    }
    stream.shutdown().await.unwrap();
}

/// Reads in pieces of up to `most` bytes, with pauses, to the end.
pub(crate) async fn read_slowly(stream: &mut (impl AsyncReadExt + Unpin), most: usize, seed: u64) -> Vec<u8> {
    let mut chance = StdRng::seed_from_u64(seed);
    let (mut all, mut piece) = (Vec::new(), vec![0; most]);
    loop {
        let length = chance.random_range(1..=most);
        match stream.read(&mut piece[..length]).await.unwrap() {
            0 => return all,
            read => all.extend_from_slice(&piece[..read]),
        }
        if chance.random_bool(0.01) {
            sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test]
async fn random_streams_arrive_byte_for_byte_both_ways_at_once() {
    // With the usual budget, with one that is used up at times, and without any.
    for (seed, limit) in [64 << 20, 16 << 20, 0].into_iter().cycle().take(9).enumerate() {
        let (seed, tails) = (seed as u64, Arc::new(TailBudget::new(limit)));
        let Relayed {
            client,
            server,
            relay,
        } = relayed_within(b"", Arc::clone(&tails)).await;
        let (up, down) = (random(seed, 3_000_000), random(seed + 100, 2_000_000));
        let (mut client_reads, mut client_writes) = client.into_split();
        let (mut server_reads, mut server_writes) = server.into_split();
        let ((), (), at_server, at_client) = tokio::join!(
            write_slowly(&mut client_writes, &up, seed),
            write_slowly(&mut server_writes, &down, seed + 1),
            read_slowly(&mut server_reads, 70_000, seed + 2),
            read_slowly(&mut client_reads, 3_000, seed + 3),
        );
        assert!(at_server == up, "seed {seed}");
        assert!(at_client == down, "seed {seed}");
        let summary = relay.await.unwrap();
        assert_eq!(
            summary,
            Summary {
                ending: Ending::Finished,
                sent: 3_000_000,
                received: 2_000_000
            }
        );
        assert_eq!(tails.held(), 0);
    }
}

#[tokio::test]
async fn slow_readers_hold_no_more_than_the_budget_and_lose_nothing() {
    // The relay keeps nothing more once 8 MiB are left, less than a read.
    const LIMIT: usize = 9 << 20;
    let tails = Arc::new(TailBudget::new(LIMIT));
    let burst = random(1, 1 << 20);
    let mut readers = Vec::new();
    let mut most = 0;
    for _ in 0..60 {
        let Relayed {
            mut client,
            server,
            relay,
        } = relayed_within(b"", Arc::clone(&tails)).await;
        let sent = burst.clone();
        tokio::spawn(async move {
            client.write_all(&sent).await.unwrap();
            client.shutdown().await.unwrap();
        });
        // It takes what it can before the next comes.
        sleep(Duration::from_millis(5)).await;
        most = most.max(tails.held());
        readers.push((server, relay));
    }
    println!("60 readers that stall make the relay hold {most} bytes");
    assert!((512 << 10..=(1 << 20) + (64 << 10)).contains(&most), "{most}");
    for (mut server, relay) in readers {
        let mut received = Vec::new();
        server.read_to_end(&mut received).await.unwrap();
        assert!(received == burst);
        drop(server);
        assert_eq!(relay.await.unwrap().ending, Ending::Finished);
    }
    assert_eq!(tails.held(), 0);
}

#[tokio::test]
async fn a_client_that_resets_while_its_upstream_is_slow_is_noticed() {
    let budgets = [TailBudget::default(), TailBudget::new(0)].map(Arc::new);
    for tails in budgets {
        let Relayed {
            mut client,
            server,
            relay,
        } = relayed_within(b"", tails).await;
        // The server reads nothing: its buffers fill, and the relay waits for it.
        let stalled = timeout(Duration::from_millis(300), client.write_all(&vec![7; 20 << 20])).await;
        assert!(stalled.is_err(), "it went through");
        socket::reset_on_close(&client);
        drop(client);
        let summary = timeout(Duration::from_secs(10), relay).await;
        assert_eq!(
            summary.expect("the reset goes unnoticed").unwrap().ending,
            Ending::ClientLeft
        );
        drop(server);
    }
}

#[tokio::test]
async fn a_burst_against_one_byte_reads_arrives_whole() {
    let Relayed {
        mut client,
        mut server,
        relay,
    } = relayed(b"").await;
    let burst = random(1, 20 * 1024 * 1024);
    let sent = burst.clone();
    let writer = tokio::spawn(async move {
        client.write_all(&sent).await.unwrap();
        client.shutdown().await.unwrap();
        client
    });
    // One byte at a time while everything behind it is full, then the rest.
    let mut received = Vec::with_capacity(burst.len());
    for _ in 0..100_000 {
        received.push(server.read_u8().await.unwrap());
    }
    server.read_to_end(&mut received).await.unwrap();
    assert!(received == burst);
    drop(server);
    drop(writer.await.unwrap());
    assert_eq!(relay.await.unwrap().ending, Ending::Finished);
}

#[tokio::test]
async fn what_the_client_said_before_comes_first() {
    let Relayed {
        mut client,
        mut server,
        ..
    } = relayed(b"first ").await;
    client.write_all(b"second").await.unwrap();
    client.shutdown().await.unwrap();
    let mut text = String::new();
    server.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "first second");
}

#[tokio::test]
async fn either_side_may_end_its_half_and_still_hear_the_other() {
    for client_first in [true, false] {
        let Relayed {
            client,
            server,
            relay,
        } = relayed(b"").await;
        let (mut first, mut second) = if client_first {
            (client, server)
        } else {
            (server, client)
        };
        first.write_all(b"question").await.unwrap();
        first.shutdown().await.unwrap();
        let mut question = String::new();
        second.read_to_string(&mut question).await.unwrap();
        assert_eq!(question, "question");
        second.write_all(b"answer").await.unwrap();
        second.shutdown().await.unwrap();
        let mut answer = String::new();
        first.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "answer");
        assert_eq!(relay.await.unwrap().ending, Ending::Finished);
    }
}

#[tokio::test]
async fn a_reset_is_passed_on_as_a_reset() {
    for (client_resets, ending) in [(true, Ending::ClientLeft), (false, Ending::UpstreamReset)] {
        let Relayed {
            client,
            server,
            relay,
        } = relayed(b"").await;
        let (resetting, mut other) = if client_resets {
            (client, server)
        } else {
            (server, client)
        };
        socket::reset_on_close(&resetting);
        drop(resetting);
        assert_eq!(relay.await.unwrap().ending, ending);
        assert_eq!(
            other.read(&mut [0]).await.unwrap_err().kind(),
            ErrorKind::ConnectionReset
        );
    }
}

#[tokio::test]
async fn a_reset_in_the_middle_of_a_stream_is_no_orderly_end() {
    for (seed, client_resets) in [(1, true), (2, false), (3, true), (4, false)] {
        let Relayed {
            client,
            server,
            relay,
        } = relayed(b"").await;
        let (mut resetting, mut other) = if client_resets {
            (client, server)
        } else {
            (server, client)
        };
        // Said, and never heard: it must not turn the reset into anything else.
        other.write_all(&random(seed + 10, 5_000)).await.unwrap();
        let stream = random(seed, 3_000_000);
        let sent = stream.clone();
        let sending = tokio::spawn(async move {
            resetting.write_all(&sent).await.unwrap();
            socket::reset_on_close(&resetting);
        });
        let mut received = Vec::new();
        let end = other.read_to_end(&mut received).await;
        assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset, "seed {seed}");
        assert!(
            stream.starts_with(&received),
            "seed {seed}: {} bytes",
            received.len()
        );
        sending.await.unwrap();
        assert!(relay.await.unwrap().ending.resets());
    }
}

#[tokio::test]
async fn an_idle_pair_ends_by_its_close_signal() {
    let (_client, from_client) = connected().await;
    let (to_server, _server) = connected().await;
    let close_signal = Arc::new(CloseSignal::default());
    let held = Arc::clone(&close_signal);
    let relay = tokio::spawn(async move {
        let mut pair = Pair::new(from_client, to_server, Bytes::new(), &Arc::default());
        pair.run(&held, &Metrics::default()).await
    });
    sleep(Duration::from_millis(20)).await;
    close_signal.end(Ending::MemberSilent);
    close_signal.end(Ending::MemberDrained);
    let Stop::Ended(summary) = relay.await.unwrap() else {
        panic!("nobody asked for it");
    };
    assert_eq!(summary.ending, Ending::MemberSilent, "the first reason counts");
}
