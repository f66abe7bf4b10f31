//! A process that takes the listeners of a proxy over, and leaves the proxy's connections to what a test wants.

use std::os::fd::OwnedFd;

use serde_json::json;
use tokio::{task::JoinHandle, time::timeout};
use trivet_proxy::handover::{
    channel::{Channel, Received, Record},
    directory::{BoundSocket, Directory},
    record::{AskReason, Message, Peer},
};

use crate::{pairs::SOON, support::node::Node};

/// It has the lock, and listens for others.
pub(crate) struct Holder {
    pub(crate) socket: BoundSocket,
    pairs: u64,
    _lock_and_listeners: Vec<OwnedFd>,
}

fn peer(pairs: u64) -> Peer {
    let peer = json!({
        "id": "faulty", "rank": {"class": "Static"}, "isWarm": true, "hasListeners": true, "pairs": pairs,
    });
    serde_json::from_value(peer).unwrap()
}

impl Holder {
    /// Takes over from this proxy, which ends, and says to take so many connections at once.
    pub(crate) async fn succeed(node: &mut Node, pairs: u64) -> (Self, JoinHandle<()>) {
        let directory = Directory::open(&node.handover.as_ref().unwrap().directory).unwrap();
        let channel = directory.connect().unwrap().unwrap();
        let hello = Message::Hello {
            peer: peer(pairs),
            pool: "default".to_owned(),
        };
        channel.send(&hello, &[]).unwrap();
        let mut kept = Vec::new();
        let mut ended = None;
        loop {
            let Record { message, descriptors } = record(&channel).await;
            kept.extend(descriptors);
            match message {
                Message::Lend { .. } => ended = Some(node.terminate()),
                Message::Leaving => say(
                    &channel,
                    &Message::Ask {
                        take: 1,
                        reason: AskReason::Leaving,
                    },
                ),
                Message::Offer { take, addresses, .. } => say(&channel, &Message::Ack { take, addresses }),
                Message::Commit { take } => {
                    say(&channel, &Message::Taken { take });
                    break;
                }
                _ => {}
            }
        }
        let holder = Self {
            socket: directory.bind().unwrap(),
            pairs,
            _lock_and_listeners: kept,
        };
        (holder, ended.unwrap())
    }

    /// The next channel, on which it says who it is.
    pub(crate) async fn asked(&self) -> Channel {
        let channel = timeout(SOON, self.socket.accept()).await.unwrap().unwrap();
        assert_eq!(record(&channel).await.message, Message::StatusRequest);
        let status = Message::Status {
            holder: peer(self.pairs),
            peers: Vec::new(),
        };
        say(&channel, &status);
        channel
    }

    /// The next batch, of so many sockets, and its channel.
    pub(crate) async fn given(&self, sockets: u64) -> (Channel, u64, Vec<OwnedFd>) {
        let channel = self.asked().await;
        let Record { message, descriptors } = record(&channel).await;
        let Message::Pairs(pairs) = message else {
            panic!("{message:?}");
        };
        assert_eq!(pairs.sockets, sockets);
        (channel, pairs.take, descriptors)
    }
}

fn say(channel: &Channel, message: &Message) {
    channel.send(message, &[]).unwrap();
}

/// The next record of a channel.
pub(crate) async fn record(channel: &Channel) -> Record {
    match timeout(SOON, channel.receive()).await.unwrap().unwrap() {
        Received::Record(record) => record,
        Received::End => panic!("the channel has ended"),
    }
}

/// Waits until the other side has ended a channel, and nothing was said before.
pub(crate) async fn ends(channel: &Channel) {
    let received = timeout(SOON, channel.receive()).await.unwrap().unwrap();
    assert!(matches!(received, Received::End), "{received:?}");
}
