//! Asks the process that serves on this node who is there. The asker is no peer: it holds nothing and takes no part.

use std::{path::Path, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::{
    channel::{self, Channel, Received},
    directory,
    rank::Class,
    record::{Message, Peer},
};

/// The processes of a node and pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Processes {
    /// The one that serves.
    pub holder: Peer,
    /// Those that stand by, or are about to take over.
    pub peers: Vec<Peer>,
}

/// Why nobody says who is there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket cannot be used.
    #[error(transparent)]
    Socket(#[from] directory::Error),
    /// The question could not be sent, or the answer could not be read.
    #[error(transparent)]
    Channel(#[from] channel::Error),
    /// Nobody listens on the socket.
    #[error("no process serves there")]
    NoHolder,
    /// The process that serves hangs, or has just given.
    #[error("the process that serves does not answer")]
    Silent,
}

impl Processes {
    /// The static pod with this template, whether it serves or stands by. One that ends is none.
    pub fn standby(&self, template: &str) -> Option<&Peer> {
        let mut all = std::iter::once(&self.holder).chain(&self.peers);
        all.find(|peer| peer.rank.class == Class::Static && peer.template == template && !peer.is_leaving)
    }
}

/// Asks the process that serves in this directory.
pub async fn ask(directory: &Path, within: Duration) -> Result<Processes, Error> {
    let channel = directory::connect(directory)?.ok_or(Error::NoHolder)?;
    ask_on(&channel, within).await
}

/// Asks the process at the other end of a channel. The channel can be used for more.
pub async fn ask_on(channel: &Channel, within: Duration) -> Result<Processes, Error> {
    channel.send(&Message::StatusRequest, &[])?;
    let answered = async {
        loop {
            match channel.receive().await? {
                Received::Record(record) => {
                    if let Message::Status { holder, peers } = record.message {
                        return Ok(Processes { holder, peers });
                    }
                }
                Received::End => return Err(Error::Silent),
            }
        }
    };
    timeout(within, answered)
        .await
        .map_err(|_elapsed| Error::Silent)?
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::handover::directory::Directory;

    const SECOND: Duration = Duration::from_secs(1);

    fn peer(class: &str, template: &str) -> Peer {
        let peer = json!({"id": "a1", "rank": {"class": class}, "template": template});
        serde_json::from_value(peer).unwrap()
    }

    #[tokio::test]
    async fn who_serves_and_who_stands_by_is_told_by_the_one_that_serves() {
        let path = tempfile::tempdir().unwrap();
        let socket = Directory::open(path.path()).unwrap().bind().unwrap();
        let processes = Processes {
            holder: peer("DaemonSet", "one"),
            peers: vec![peer("Static", "two"), peer("DaemonSet", "three")],
        };
        let Processes { holder, peers } = processes.clone();
        let answer = async {
            let channel = socket.accept().await.unwrap();
            let Received::Record(record) = channel.receive().await.unwrap() else {
                panic!("no question");
            };
            assert_eq!(record.message, Message::StatusRequest);
            channel.send(&Message::Leaving, &[]).unwrap();
            channel.send(&Message::Status { holder, peers }, &[]).unwrap();
            channel
        };
        let (told, _channel) = tokio::join!(ask(path.path(), SECOND), answer);
        let told = told.unwrap();
        assert_eq!(told, processes);
        assert_eq!(told.standby("two"), Some(&processes.peers[0]));
        assert_eq!(told.standby("one"), None, "the DaemonSet's pod is no standby");
    }

    #[tokio::test]
    async fn a_directory_without_a_holder_is_told_and_not_made() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("pool");
        assert!(matches!(ask(&path, SECOND).await, Err(Error::NoHolder)));
        assert!(!path.exists());
    }

    #[tokio::test(start_paused = true)]
    async fn a_holder_that_hangs_is_not_waited_for() {
        let path = tempfile::tempdir().unwrap();
        let _socket = Directory::open(path.path()).unwrap().bind().unwrap();
        assert!(matches!(ask(path.path(), SECOND).await, Err(Error::Silent)));
    }
}
