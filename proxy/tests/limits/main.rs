//! The proxy's process at the limits of what the kernel gives it: the real program, with as many files as there may be
//! or none left at all, with a log that nobody reads, with scrapers that hang, and with all its connections going to the next.
//! `TRIVET_PROGRAM` names a program of another profile.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unchecked_time_subtraction,
    clippy::unwrap_used,
    reason = "a test says by its panic what is wrong, its helpers too"
)]

#[path = "../support/addresses.rs"]
mod addresses;
mod echo;
mod log;
mod pairs;
mod process;
mod scrapers;

use std::{io::ErrorKind, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{Barrier, Mutex, MutexGuard},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use self::process::Proxy;

/// A storm is over within this time on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);

/// More than a pair may cost: its two sockets, its task, its claim, and what the allocator keeps for it.
const MEMORY_PER_PAIR: usize = 8 * 1024;

/// For one test at a time of those that need nearly all files that this process may have.
async fn alone() -> MutexGuard<'static, ()> {
    static FILES: Mutex<()> = Mutex::const_new(());
    FILES.lock().await
}

#[tokio::test]
async fn a_storm_of_clients_is_served_whole_in_bounded_memory() {
    let _alone = alone().await;
    let proxy = Proxy::start().await;
    // Two files a connection in the proxy, two here, and some for what else there is.
    let clients = (proxy.limit_of_files() / 2 * 9 / 10).min(10_000);
    let before = proxy.memory();
    let all_served = std::sync::Arc::new(Barrier::new(clients + 1));
    let mut storm = JoinSet::new();
    for client in 0..clients {
        let (address, all_served) = (proxy.address, all_served.clone());
        storm.spawn(async move {
            let mut stream = TcpStream::connect(address).await?;
            let said = client.to_be_bytes();
            stream.write_all(&said).await?;
            let mut heard = [0; 8];
            stream.read_exact(&mut heard).await?;
            assert_eq!(heard, said);
            all_served.wait().await;
            // All are open now, and each still goes its own way.
            stream.write_all(&said).await?;
            stream.shutdown().await?;
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await?;
            assert_eq!(rest, said);
            std::io::Result::Ok(())
        });
    }
    let started = Instant::now();
    tokio::select! {
        reached = timeout(PATIENCE, all_served.wait()) => drop(reached.unwrap()),
        ended = storm.join_next() => panic!("a client was lost: {:?}", ended.unwrap()),
    }
    let served = started.elapsed();
    let memory = proxy.memory().saturating_sub(before);
    println!(
        "{clients} clients served after {served:?}, {} bytes each",
        memory / clients
    );
    assert!(
        memory <= clients * MEMORY_PER_PAIR,
        "{memory} bytes for {clients} clients"
    );
    while let Some(ended) = timeout(PATIENCE, storm.join_next()).await.unwrap() {
        ended.unwrap().unwrap();
    }
}

#[tokio::test]
async fn without_files_the_proxy_waits_without_spinning_and_recovers_within_a_second() {
    let proxy = Proxy::start().await;
    assert_eq!(proxy.ask(b"before").await.unwrap(), b"before");
    let usual = proxy.limit_of_files();
    // What it has open stays open; there is nothing more.
    proxy.limit_files(1);
    // The kernel takes it, and the proxy cannot.
    let mut waiting = TcpStream::connect(proxy.address).await.unwrap();
    waiting.write_all(b"waiting").await.unwrap();
    let (started, used) = (Instant::now(), proxy.cpu());
    let early = timeout(Duration::from_secs(4), waiting.read_u8()).await;
    let share = (proxy.cpu() - used).as_secs_f64() / started.elapsed().as_secs_f64();
    assert!(early.is_err(), "there was a file left: {early:?}");
    println!("{:.1} % of a CPU without files", share * 100.0);
    assert!(share < 0.05, "{share}");
    proxy.limit_files(usual);
    let freed = Instant::now();
    let mut heard = [0; 7];
    timeout(PATIENCE, waiting.read_exact(&mut heard))
        .await
        .unwrap()
        .unwrap();
    let recovered = freed.elapsed();
    println!("served {recovered:?} after there were files again");
    assert_eq!(&heard, b"waiting");
    assert!(recovered <= Duration::from_secs(1), "{recovered:?}");
}

#[tokio::test]
async fn a_client_that_is_accepted_with_the_last_file_is_served() {
    let proxy = Proxy::start().await;
    assert_eq!(proxy.ask(b"before").await.unwrap(), b"before");
    proxy.leave_one_file();
    for _ in 0..10 {
        let answer = timeout(PATIENCE, proxy.ask(b"last")).await.unwrap();
        assert_eq!(answer.unwrap(), b"last");
    }
}

#[tokio::test]
async fn a_client_beyond_what_files_allow_is_shed_and_not_left_waiting() {
    let proxy = Proxy::start_with_files(300).await;
    let mut held = Vec::new();
    let shed = loop {
        let served = async {
            let mut stream = TcpStream::connect(proxy.address).await?;
            stream.write_all(b"x").await?;
            stream.read_u8().await?;
            Ok::<_, std::io::Error>(stream)
        };
        match timeout(Duration::from_secs(5), served).await.unwrap() {
            Ok(stream) => held.push(stream),
            Err(error) => break error,
        }
        assert!(held.len() < 150, "more connections than files");
    };
    assert!(
        matches!(shed.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe),
        "{shed}"
    );
    assert!(!held.is_empty());
    // Whoever is in stays in, and whoever leaves makes room.
    held[0].write_all(b"y").await.unwrap();
    assert_eq!(held[0].read_u8().await.unwrap(), b'y');
    held.clear();
    let deadline = Instant::now() + Duration::from_secs(5);
    while proxy.ask(b"again").await.is_err() {
        assert!(Instant::now() < deadline, "nobody is let in again");
        sleep(Duration::from_millis(20)).await;
    }
}
