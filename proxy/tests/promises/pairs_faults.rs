//! A process that hangs, dies or errs while connections are handed over costs them a pause at most, and no byte.

mod giver;
mod holder;

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
    time::{Instant, timeout},
};
use trivet_proxy::handover::{
    channel, inquiry,
    pairs::{MAX_PAIRS, batch},
    record::Message,
    sealed,
};

use self::{
    giver::{Relayed, connect, give, send},
    holder::{Holder, ends, record},
};
use crate::{
    handover::{Process, limit_files},
    pairs::{SOON, connections, echo, ready_before, serving, successor_of_idle, taken},
    support::{
        apiserver::{Apiserver, Mode},
        client::Client,
        eventually,
        node::{Node, Pool, shared},
    },
};

/// Far less than the 10 s for which a proxy tries to give its connections, and more than the second for which it waits for an
/// answer, on a machine that does much else.
const A_PAUSE: Duration = Duration::from_secs(5);

/// A proxy that hands over with a client.
async fn with_client(drain_seconds: u32) -> (Node, Apiserver, Client) {
    let document = |pool: Pool| pool.unhurried().drain_within(drain_seconds);
    let (node, [apiserver]) = ready_before(["cp1"], document).await;
    let client = node.client_on(&apiserver).await;
    (node, apiserver, client)
}

/// The same beside a client that is being opened, because the member hangs.
async fn with_one_being_opened() -> (Node, Apiserver, Client, JoinHandle<io::Result<Client>>) {
    let (node, apiserver, client) = with_client(60).await;
    apiserver.set(Mode::Hung);
    let (proxy, tls) = shared(&node);
    let opening = tokio::spawn(Client::connect(proxy, tls));
    eventually("it has both", async || connections(&node).await == 2).await;
    (node, apiserver, client, opening)
}

#[tokio::test]
async fn a_holder_that_hangs_with_connections_costs_them_a_pause_and_cannot_take_them_later() {
    let (mut node, _apiserver, mut client) = with_client(60).await;
    let (holder, _ending) = Holder::succeed(&mut node, MAX_PAIRS as u64).await;
    let (channel, number, duplicates) = holder.given(2).await;
    let given = Instant::now();
    // Nobody takes them from now on.
    drop(holder);
    assert_eq!(timeout(A_PAUSE, client.who()).await.unwrap().unwrap(), "cp1");
    println!("the client waited for {:?}", given.elapsed());
    let told = record(&channel).await.message;
    assert!(
        matches!(told, Message::Abort { take, .. } if take == number),
        "{told:?}"
    );
    let late = channel.send(&Message::Taken { take: number }, &[]).unwrap_err();
    assert!(matches!(late, channel::Error::Closed), "{late:?}");
    ends(&channel).await;
    drop(duplicates);
    assert_eq!(timeout(SOON, client.who()).await.unwrap().unwrap(), "cp1");
}

#[tokio::test]
async fn a_client_that_is_being_opened_does_not_wait_for_a_holder_that_hangs() {
    let (mut node, apiserver, mut client, opening) = with_one_being_opened().await;
    let (holder, _ending) = Holder::succeed(&mut node, MAX_PAIRS as u64).await;
    // It answers nobody.
    let _unanswered = timeout(SOON, holder.socket.accept()).await.unwrap().unwrap();
    apiserver.set(Mode::Ready);
    let opened = timeout(A_PAUSE, opening).await.unwrap();
    assert_eq!(opened.unwrap().unwrap().who().await.unwrap(), "cp1");
    assert_eq!(timeout(A_PAUSE, client.who()).await.unwrap().unwrap(), "cp1");
}

#[tokio::test]
async fn clients_that_nobody_serves_are_told_though_a_holder_that_hangs_has_their_sockets() {
    let (mut node, apiserver, mut client, opening) = with_one_being_opened().await;
    let (holder, _ending) = Holder::succeed(&mut node, MAX_PAIRS as u64).await;
    let (channel, _, duplicates) = holder.given(3).await;
    drop(holder);
    let told = record(&channel).await.message;
    assert!(matches!(told, Message::Abort { .. }), "{told:?}");
    apiserver.set(Mode::Killed);
    assert!(timeout(SOON, opening).await.unwrap().unwrap().is_err());
    timeout(SOON, client.end()).await.unwrap();
    drop(duplicates);
}

#[tokio::test]
async fn connections_of_which_a_holder_took_the_rest_and_hung_go_on() {
    let (mut node, apiserver, first) = with_client(60).await;
    let mut clients = vec![first];
    // More than fit into a batch.
    for _ in 0..MAX_PAIRS + 9 {
        clients.push(node.client_on(&apiserver).await);
    }
    let (holder, _ending) = Holder::succeed(&mut node, MAX_PAIRS as u64).await;
    let (channel, _, duplicates) = holder.given(2 * MAX_PAIRS as u64).await;
    // It answers nobody from now on.
    for client in &mut clients {
        assert_eq!(timeout(A_PAUSE, client.who()).await.unwrap().unwrap(), "cp1");
    }
    drop((channel, duplicates, holder));
}

#[tokio::test]
async fn connections_that_a_holder_had_that_dies_go_on() {
    let (mut node, _apiserver, mut client) = with_client(60).await;
    let (holder, _ending) = Holder::succeed(&mut node, MAX_PAIRS as u64).await;
    drop(holder.given(2).await);
    assert_eq!(timeout(SOON, client.who()).await.unwrap().unwrap(), "cp1");
    // It tries again, with the same.
    drop((holder.given(2).await, holder));
    assert_eq!(timeout(SOON, client.who()).await.unwrap().unwrap(), "cp1");
}

#[tokio::test]
async fn a_holder_of_an_earlier_release_is_given_none_and_they_drain() {
    let (mut node, _apiserver, mut client) = with_client(1).await;
    let (holder, ending) = Holder::succeed(&mut node, 0).await;
    ends(&holder.asked().await).await;
    timeout(SOON, client.end()).await.unwrap();
    timeout(SOON, ending).await.unwrap().unwrap();
}

#[tokio::test]
async fn connections_for_which_the_holder_has_no_files_go_on_and_are_given_once_it_has_some() {
    let (mut node, apiserver, first) = with_client(60).await;
    let mut clients = vec![first];
    for _ in 0..19 {
        clients.push(node.client_on(&apiserver).await);
    }
    let next = Process::start(&node, "DaemonSet", 2);
    eventually("it is ready", async || next.node.ready().await).await;
    let open = fs::read_dir(format!("/proc/{}/fd", next.id())).unwrap().count();
    // Enough for the channel, and for some of what else it does.
    limit_files(&next, open + 10);
    let ending = node.terminate();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(1) {
        for client in &mut clients {
            assert_eq!(timeout(A_PAUSE, client.who()).await.unwrap().unwrap(), "cp1");
        }
    }
    assert!(!ending.is_finished());
    limit_files(&next, 1024);
    timeout(SOON, ending).await.unwrap().unwrap();
    assert_eq!(taken(&next.node).await, 20);
    for client in &mut clients {
        assert_eq!(timeout(A_PAUSE, client.who()).await.unwrap().unwrap(), "cp1");
    }
}

#[tokio::test]
async fn who_asks_a_proxy_that_has_given_is_told_at_once() {
    let (node, _apiserver, _client) = with_client(60).await;
    let channel = connect(&node);
    inquiry::ask_on(&channel, SOON).await.unwrap();
    let next = Process::start(&node, "DaemonSet", 2);
    eventually("it has taken over", async || next.node.ready().await).await;
    let begun = Instant::now();
    let told = inquiry::ask_on(&channel, SOON).await;
    assert!(matches!(told, Err(inquiry::Error::Silent)), "{told:?}");
    assert!(begun.elapsed() < A_PAUSE, "nobody answers");
}

/// A proxy before a member that echoes, which can take connections, and three connections of another process, of which one
/// is still being opened.
async fn taker_and_connections() -> (Node, Vec<Relayed>) {
    let member = echo().await;
    let node = serving(|pool| pool.impatient_with(member)).await;
    eventually("it serves", async || TcpStream::connect(node.proxy).await.is_ok()).await;
    let connections = vec![
        Relayed::new(member).await,
        Relayed::opening().await,
        Relayed::new(member).await,
    ];
    (node, connections)
}

/// All go on in this proxy, byte for byte.
async fn all_go_on(node: &Node, connections: Vec<Relayed>) {
    for (seed, relayed) in connections.into_iter().enumerate() {
        relayed.leave().goes_on(seed as u64).await;
    }
    assert_eq!(taken(node).await, 3);
}

#[tokio::test]
async fn connections_of_a_process_that_dies_before_they_are_taken_go_on() {
    let (node, connections) = taker_and_connections().await;
    let channel = connect(&node);
    give(&channel, 1, &connections);
    // Before the taker runs.
    drop(channel);
    all_go_on(&node, connections).await;
}

#[tokio::test]
async fn connections_of_a_process_that_dies_after_they_are_taken_go_on() {
    let (node, connections) = taker_and_connections().await;
    let channel = connect(&node);
    give(&channel, 1, &connections);
    assert_eq!(record(&channel).await.message, Message::Taken { take: 1 });
    drop(channel);
    all_go_on(&node, connections).await;
}

#[tokio::test]
async fn connections_whose_sockets_block_go_on_and_hold_nothing_up() {
    let (node, connections) = taker_and_connections().await;
    for side in connections.iter().flat_map(|relayed| &relayed.sides) {
        SockRef::from(side).set_nonblocking(false).unwrap();
    }
    let channel = connect(&node);
    give(&channel, 1, &connections);
    assert_eq!(record(&channel).await.message, Message::Taken { take: 1 });
    all_go_on(&node, connections).await;
}

#[tokio::test]
async fn connections_of_a_process_that_dies_before_it_says_that_it_keeps_them_go_on() {
    let (node, connections) = taker_and_connections().await;
    let channel = connect(&node);
    give(&channel, 1, &connections);
    assert!(channel.shut_receive().is_empty());
    // The other one has tried by then.
    node.metrics().await;
    drop(channel);
    all_go_on(&node, connections).await;
}

#[tokio::test]
async fn they_go_on_too_where_the_one_that_was_to_take_them_ends_meanwhile() {
    let (mut node, connections) = taker_and_connections().await;
    let channel = connect(&node);
    give(&channel, 1, &connections);
    assert!(channel.shut_receive().is_empty());
    node.metrics().await;
    let next = successor_of_idle(&node).await;
    let ending = node.terminate();
    let directory = &next.handover.as_ref().unwrap().directory;
    eventually("the next one serves", async || {
        let processes = inquiry::ask(directory, SOON).await;
        processes.is_ok_and(|processes| processes.holder.rank.generation == 0)
    })
    .await;
    assert_eq!(taken(&next).await, 0);
    drop(channel);
    all_go_on(&next, connections).await;
    timeout(SOON, ending).await.unwrap().unwrap();
}

#[tokio::test]
async fn connections_that_a_process_keeps_are_left_alone() {
    let (node, mut connections) = taker_and_connections().await;
    let channel = connect(&node);
    give(&channel, 1, &connections);
    assert!(channel.shut_receive().is_empty());
    node.metrics().await;
    let abort = serde_json::json!({"message": "abort", "take": 1, "reason": "Overdue"});
    channel
        .send(&serde_json::from_value(abort).unwrap(), &[])
        .unwrap();
    drop(channel);
    for relayed in &mut connections {
        relayed.client.write_all(b"still here").await.unwrap();
        let mut got = [0; 10];
        timeout(SOON, relayed.sides[0].read_exact(&mut got))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(&got, b"still here");
    }
    for relayed in connections {
        relayed.leave().has_lost_all().await;
    }
    assert_eq!(taken(&node).await, 0);
}

#[tokio::test]
async fn what_is_no_batch_is_refused_and_the_next_one_is_taken() {
    let (node, connections) = taker_and_connections().await;
    let (sound, text, bytes) = {
        let written = batch::write(connections.iter().map(|relayed| &relayed.passport)).unwrap();
        (written.file, written.text, written.bytes)
    };
    let sealed = |content: &[&[u8]]| sealed::write("test", content.iter().copied()).unwrap();
    let content = sealed::read(sound.try_clone().unwrap(), text + bytes, 1 << 20).unwrap();
    let unsealed = tempfile::tempfile().unwrap();
    fs::write(format!("/proc/self/fd/{}", unsealed.as_raw_fd()), &content).unwrap();
    let same = || sound.try_clone().unwrap();
    let many = batch::write([&connections[1].passport; MAX_PAIRS + 1].into_iter()).unwrap();
    let no_socket = tempfile::tempfile().unwrap();
    let other = TcpStream::connect(node.proxy).await.unwrap();
    let sides: Vec<_> = connections
        .iter()
        .flat_map(|relayed| &relayed.sides)
        .map(AsFd::as_fd)
        .collect();
    let (five, four) = (&sides[..], &sides[..4]);
    let six = [five, &[other.as_fd()]].concat();
    let with_a_file = [four, &[no_socket.as_fd()]].concat();
    let batches: [(OwnedFd, u64, u64, &[BorrowedFd<'_>]); 12] = [
        (sealed(&[b"no text"]), 7, 0, five),
        (sealed(&[]), 0, 0, five),
        (sealed(&[&content, b"more"]), text, bytes + 4, five),
        (same(), text + 1, bytes - 1, five),
        (same(), text, bytes + 1, five),
        (same(), u64::MAX, bytes, five),
        (same(), text, bytes, four),
        (same(), text, bytes, &[]),
        (same(), text, bytes, &six),
        (same(), text, bytes, &with_a_file),
        (unsealed.into(), text, bytes, five),
        (many.file, many.text, many.bytes, five),
    ];
    for (file, text, bytes, sockets) in &batches {
        let channel = connect(&node);
        send(&channel, (file, *text, *bytes), 1, sockets);
        ends(&channel).await;
    }
    assert_eq!(taken(&node).await, 0);
    let channel = connect(&node);
    give(&channel, 1, &connections);
    assert_eq!(record(&channel).await.message, Message::Taken { take: 1 });
    all_go_on(&node, connections).await;
}
