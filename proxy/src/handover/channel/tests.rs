use std::{
    collections::BTreeSet,
    env,
    fs::{self, File, Permissions},
    io::Write,
    os::{
        fd::AsFd,
        unix::fs::{FileExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    process::Command,
};

use nix::{
    sys::resource::{Resource, getrlimit, setrlimit},
    unistd::{Uid, setuid},
};
use rustix::{
    io::{FdFlags, fcntl_getfd},
    net::socketpair,
};

use serde_json::Map;

use super::*;
use crate::handover::record::{Listener, ListenerKind};

/// A user that owns nothing.
const NOBODY: u32 = 65534;

/// What tells a process of [`own_process`] its directory.
const DIRECTORY: &str = "TRIVET_TEST_DIRECTORY";

/// Two ends of a channel.
pub(in crate::handover) fn pair() -> (Channel, Channel) {
    let (left, right) = raw_pair();
    (Channel::new(left).unwrap(), Channel::new(right).unwrap())
}

/// A command that runs this test of this crate in a process of its own, with a directory.
pub(in crate::handover) fn own_process(test: &str, directory: &Path) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "--ignored", "--nocapture", test]);
    command.env(DIRECTORY, directory);
    command
}

/// The directory of this process, which [`own_process`] started.
pub(in crate::handover) fn own_directory() -> PathBuf {
    env::var_os(DIRECTORY).unwrap().into()
}

fn raw_pair() -> (OwnedFd, OwnedFd) {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
}

/// Sends bytes that no release writes.
fn send_raw(socket: &OwnedFd, record: &[u8], descriptors: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(8))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(descriptors.is_empty() || ancillary.push(SendAncillaryMessage::ScmRights(descriptors)));
    rustix::net::sendmsg(
        socket,
        &[IoSlice::new(record)],
        &mut ancillary,
        SendFlags::empty(),
    )
    .unwrap();
}

fn ping(number: u64) -> Message {
    Message::Ping { number }
}

/// A message with so many descriptors.
fn lend(descriptors: usize) -> Message {
    let listener = Listener {
        name: "default".to_owned(),
        kind: ListenerKind::Apiserver,
        address: "127.0.0.1:7443".parse().unwrap(),
        other: Map::new(),
    };
    Message::Lend {
        listeners: vec![listener; descriptors],
    }
}

async fn record(channel: &Channel) -> Record {
    match channel.receive().await.unwrap() {
        Received::Record(record) => record,
        Received::End => panic!("the channel has ended"),
    }
}

/// Receives this message next, without descriptors.
async fn expect(channel: &Channel, message: Message) {
    let record = record(channel).await;
    assert_eq!(record.message, message);
    assert!(record.descriptors.is_empty());
}

async fn expect_end(channel: &Channel) {
    let received = channel.receive().await.unwrap();
    assert!(matches!(received, Received::End), "{received:?}");
}

fn is_closed_on_exec(descriptor: impl AsFd) -> bool {
    fcntl_getfd(descriptor).unwrap().contains(FdFlags::CLOEXEC)
}

#[tokio::test]
async fn records_arrive_in_order_and_apart_with_their_descriptors() {
    let (sender, receiver) = pair();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"content").unwrap();
    sender.send(&ping(1), &[]).unwrap();
    sender.send(&lend(2), &[file.as_fd(), file.as_fd()]).unwrap();
    sender.send(&ping(3), &[]).unwrap();
    drop((sender, file));
    expect(&receiver, ping(1)).await;
    let Record { message, descriptors } = record(&receiver).await;
    assert_eq!((message, descriptors.len()), (lend(2), 2));
    for descriptor in descriptors {
        assert!(is_closed_on_exec(&descriptor));
        let mut content = [0; 7];
        File::from(descriptor).read_exact_at(&mut content, 0).unwrap();
        assert_eq!(&content, b"content");
    }
    expect(&receiver, ping(3)).await;
    expect_end(&receiver).await;
    expect_end(&receiver).await;
}

#[tokio::test]
async fn a_receiver_that_does_not_wait_tells_nothing_from_the_end() {
    let (sender, receiver) = pair();
    assert!(receiver.receive_now().unwrap().is_none());
    sender.send(&ping(1), &[]).unwrap();
    drop(sender);
    let next = receiver.receive_now().unwrap();
    assert!(matches!(next, Some(Received::Record(_))), "{next:?}");
    let next = receiver.receive_now().unwrap();
    assert!(matches!(next, Some(Received::End)), "{next:?}");
}

#[tokio::test]
async fn a_peer_that_never_reads_does_not_hold_up_the_sender() {
    let (sender, stopped) = pair();
    let mut sent = 0;
    let refused = loop {
        match sender.send(&ping(sent), &[]) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
        assert!(sent < 100_000);
    };
    assert!(matches!(refused, Error::NotReading), "{refused:?}");
    for number in 0..sent {
        expect(&stopped, ping(number)).await;
    }
    assert!(stopped.receive_now().unwrap().is_none());
    sender.send(&ping(sent), &[]).unwrap();
    expect(&stopped, ping(sent)).await;
}

#[tokio::test]
async fn a_shut_end_receives_what_was_sent_before_and_the_peer_learns_that_the_rest_was_not() {
    let (shut, peer) = pair();
    let (kept, _other) = raw_pair();
    peer.send(&lend(1), &[kept.as_fd()]).unwrap();
    peer.send(&ping(2), &[]).unwrap();
    let rest: Vec<_> = shut.shut_receive().into_iter().map(Result::unwrap).collect();
    let messages: Vec<_> = rest.iter().map(|record| record.message.clone()).collect();
    assert_eq!(messages, [lend(1), ping(2)]);
    assert_eq!(rest[0].descriptors.len(), 1);
    let refused = peer.send(&ping(3), &[]).unwrap_err();
    assert!(matches!(refused, Error::Closed), "{refused:?}");
    assert!(peer.receive_now().unwrap().is_none(), "no end of file yet");
    shut.send(&ping(4), &[]).unwrap();
    drop(shut);
    expect(&peer, ping(4)).await;
    expect_end(&peer).await;
}

#[tokio::test]
async fn a_shut_end_reads_beyond_a_record_that_is_none() {
    let (shut, peer) = raw_pair();
    let shut = Channel::new(shut).unwrap();
    send_raw(&peer, b"{", &[]);
    send_raw(&peer, &codec::encode(&ping(1), 0).unwrap(), &[]);
    let rest = shut.shut_receive();
    assert_eq!(rest.len(), 2, "{rest:?}");
    assert!(matches!(rest[0], Err(Error::Record(_))), "{rest:?}");
    assert_eq!(rest[1].as_ref().unwrap().message, ping(1));
    assert!(Channel::new(peer).unwrap().receive_now().unwrap().is_none());
}

#[tokio::test]
async fn the_last_words_of_a_peer_that_died_with_unread_records_are_received() {
    let (survivor, dead) = pair();
    survivor.send(&ping(1), &[]).unwrap();
    dead.send(&ping(2), &[]).unwrap();
    dead.send(&ping(3), &[]).unwrap();
    drop(dead);
    expect(&survivor, ping(2)).await;
    expect(&survivor, ping(3)).await;
    expect_end(&survivor).await;
    let refused = survivor.send(&ping(4), &[]).unwrap_err();
    assert!(matches!(refused, Error::Closed), "{refused:?}");
}

#[tokio::test]
async fn a_sender_learns_of_a_dead_peer_and_still_receives_its_last_words() {
    let (survivor, dead) = pair();
    survivor.send(&ping(1), &[]).unwrap();
    dead.send(&ping(2), &[]).unwrap();
    drop(dead);
    for _again in 0..2 {
        let refused = survivor.send(&ping(3), &[]).unwrap_err();
        assert!(matches!(refused, Error::Closed), "{refused:?}");
    }
    expect(&survivor, ping(2)).await;
    expect_end(&survivor).await;
}

#[tokio::test]
async fn a_bad_record_costs_only_itself_and_its_descriptors() {
    let (peer, receiver) = raw_pair();
    let receiver = Channel::new(receiver).unwrap();
    let (witness, passed) = pair();
    let announced = codec::encode(&lend(2), 2).unwrap();
    send_raw(&peer, &announced, &[passed.socket.as_fd()]);
    send_raw(&peer, &vec![b' '; MAX_RECORD + 1], &[passed.socket.as_fd()]);
    send_raw(&peer, b"", &[passed.socket.as_fd()]);
    send_raw(&peer, b"nonsense", &[passed.socket.as_fd()]);
    send_raw(&peer, &codec::encode(&ping(2), 0).unwrap(), &[]);
    drop(passed);
    assert!(witness.receive_now().unwrap().is_none(), "they are on their way");
    let refused = receiver.receive().await.unwrap_err();
    assert!(
        matches!(
            refused,
            Error::Record(codec::Error::Descriptors {
                announced: 2,
                present: 1
            })
        ),
        "{refused:?}"
    );
    let refused = receiver.receive().await.unwrap_err();
    assert!(matches!(refused, Error::TooLong), "{refused:?}");
    for _unreadable in 0..2 {
        let refused = receiver.receive().await.unwrap_err();
        assert!(
            matches!(refused, Error::Record(codec::Error::Content(_))),
            "{refused:?}"
        );
    }
    expect_end(&witness).await;
    expect(&receiver, ping(2)).await;
}

#[tokio::test]
async fn a_record_holds_as_many_descriptors_as_the_kernel_passes() {
    let (sender, receiver) = pair();
    let file = tempfile::tempfile().unwrap();
    let refused = sender
        .send(&lend(MAX_DESCRIPTORS + 1), &[file.as_fd(); MAX_DESCRIPTORS + 1])
        .unwrap_err();
    assert!(
        matches!(refused, Error::TooManyDescriptors { count: 254 }),
        "{refused:?}"
    );
    sender
        .send(&lend(MAX_DESCRIPTORS), &[file.as_fd(); MAX_DESCRIPTORS])
        .unwrap();
    let record = record(&receiver).await;
    assert_eq!(
        (record.message, record.descriptors.len()),
        (lend(MAX_DESCRIPTORS), MAX_DESCRIPTORS)
    );
}

#[test]
fn a_process_that_may_open_no_more_files_refuses_a_record_and_keeps_none_of_its_descriptors() {
    let directory = tempfile::tempdir().unwrap();
    let test = "handover::channel::tests::receive_at_the_limit_of_open_files";
    let ended = own_process(test, directory.path()).status().unwrap();
    assert!(ended.success());
}

#[tokio::test]
#[ignore = "changes the limit of its process: another test starts it in one of its own"]
async fn receive_at_the_limit_of_open_files() {
    let (sender, receiver) = pair();
    let file = tempfile::tempfile().unwrap();
    let limits = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let before = open_files();
    for (free, is_received) in [(3, false), (0, false), (4, true)] {
        sender.send(&lend(4), &[file.as_fd(); 4]).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, limit_with(free), limits.1).unwrap();
        let next = receiver.receive().await;
        setrlimit(Resource::RLIMIT_NOFILE, limits.0, limits.1).unwrap();
        match next {
            Ok(Received::Record(record)) => assert!(is_received && record.descriptors.len() == 4),
            Err(Error::DescriptorsLost) => assert!(!is_received, "{free} free"),
            next => panic!("{free} free: {next:?}"),
        }
        assert_eq!(open_files(), before);
        sender.send(&ping(2), &[]).unwrap();
        expect(&receiver, ping(2)).await;
    }
}

fn open_files() -> BTreeSet<u64> {
    let names = fs::read_dir("/proc/self/fd").unwrap();
    let listed: Vec<u64> = names
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap())
        .collect();
    // Without the descriptor that listed them.
    let is_open = |number: &u64| fs::symlink_metadata(format!("/proc/self/fd/{number}")).is_ok();
    listed.into_iter().filter(is_open).collect()
}

/// The limit at which so many descriptors are free.
fn limit_with(free: usize) -> u64 {
    let open = open_files();
    let is_limit = |limit: &u64| (0..*limit).filter(|number| !open.contains(number)).count() == free;
    (0..1 << 20).find(is_limit).unwrap()
}

#[tokio::test]
async fn a_process_of_another_user_is_refused_at_either_end() {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o777)).unwrap();
    let ours = directory.path().join("ours");
    let peers = PeerSocket::bind(&ours).unwrap();
    fs::set_permissions(&ours, Permissions::from_mode(0o777)).unwrap();
    let test = "handover::channel::tests::meet_as_another_user";
    let mut foreign = own_process(test, directory.path()).spawn().unwrap();
    let refused = peers.accept().await.unwrap_err();
    assert!(
        matches!(refused, Error::ForeignUser { peer: NOBODY, own: 0 }),
        "{refused:?}"
    );
    let refused = Channel::connect(&directory.path().join("theirs")).unwrap_err();
    assert!(
        matches!(refused, Error::ForeignUser { peer: NOBODY, own: 0 }),
        "{refused:?}"
    );
    assert!(foreign.wait().unwrap().success());
}

#[tokio::test]
#[ignore = "changes the user of its process: another test starts it in one of its own"]
async fn meet_as_another_user() {
    setuid(Uid::from_raw(NOBODY)).unwrap();
    let theirs = PeerSocket::bind(&own_directory().join("theirs")).unwrap();
    for refused in [
        Channel::connect(&own_directory().join("ours")).unwrap_err(),
        theirs.accept().await.unwrap_err(),
    ] {
        assert!(
            matches!(refused, Error::ForeignUser { peer: 0, own: NOBODY }),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn peers_connect_and_talk_both_ways() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    assert!(Channel::connect(&path).unwrap().is_none(), "there is no socket");
    let peers = PeerSocket::bind(&path).unwrap();
    let client = Channel::connect(&path).unwrap().unwrap();
    // What it sends before it is accepted is not lost.
    client.send(&ping(1), &[]).unwrap();
    let server = peers.accept().await.unwrap();
    expect(&server, ping(1)).await;
    server.send(&ping(2), &[]).unwrap();
    expect(&client, ping(2)).await;
    for socket in [peers.socket.as_fd(), client.socket.as_fd(), server.socket.as_fd()] {
        assert!(is_closed_on_exec(socket));
    }
    drop((peers, server));
    expect_end(&client).await;
    assert!(Channel::connect(&path).unwrap().is_none(), "nobody listens");
}

#[tokio::test]
async fn a_holder_that_does_not_accept_is_told_from_one_that_is_not_there() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let _stopped = PeerSocket::bind(&path).unwrap();
    let mut connected = Vec::new();
    let refused = loop {
        match Channel::connect(&path) {
            Ok(channel) => connected.push(channel.unwrap()),
            Err(error) => break error,
        }
        assert!(connected.len() < 1000);
    };
    assert!(matches!(refused, Error::NotAccepting), "{refused:?}");
}
