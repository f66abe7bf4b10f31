//! The sockets that systemd passed and that are no listener of the document.
//!
//! The kernel completes connections to them, because they listen. A client whose connection nobody accepts would wait, so
//! each is accepted and reset: the client learns at once that nothing serves it there.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use super::ACCEPT_PAUSE;
use crate::{net::socket, systemd::sockets::PassedSockets};

/// Resets the clients of passed sockets that are no listeners.
#[derive(Debug)]
pub(super) struct Refusals {
    passed: PassedSockets,
    refusing: Mutex<BTreeMap<SocketAddr, AbortOnDropHandle<()>>>,
}

impl Refusals {
    /// Refuses no client yet.
    pub(super) fn new(passed: PassedSockets) -> Self {
        Self {
            passed,
            refusing: Mutex::default(),
        }
    }

    /// Refuses the clients of all passed sockets but these from now on.
    pub(super) fn all_but(&self, listeners: &BTreeSet<SocketAddr>) {
        let mut refusing = self.refusing();
        refusing.retain(|address, _| !listeners.contains(address));
        for address in self.passed.addresses().difference(listeners) {
            refusing.entry(*address).or_insert_with(|| {
                let refusing = refuse(self.passed.clone(), *address);
                AbortOnDropHandle::new(tokio::spawn(refusing))
            });
        }
    }

    /// Refuses no client any more: from now on they wait for the next process.
    pub(super) fn stop(&self) {
        self.refusing().clear();
    }

    fn refusing(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, AbortOnDropHandle<()>>> {
        self.refusing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn refuse(passed: PassedSockets, address: SocketAddr) {
    let Some(socket) = passed.get(address) else {
        return;
    };
    let listener = loop {
        match socket.open() {
            Ok(listener) => break listener,
            Err(error) => debug!(%address, %error, "failed to open a socket of systemd, trying again"),
        }
        sleep(ACCEPT_PAUSE).await;
    };
    loop {
        match listener.accept().await {
            Ok((client, peer)) => {
                debug!(%address, %peer, "reset a client: the document has no listener there");
                socket::reset_on_close(&client);
            }
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}
