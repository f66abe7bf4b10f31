//! The listening sockets that this process holds, bound or lent, and what it does with them.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use super::ACCEPT_PAUSE;
use crate::handover::lent::LentListener;

/// What this process does with its listener addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// It holds the sockets that another process lends to it, and does not accept on them.
    StandBy,
    /// It accepts on the sockets that it holds, beside the process that serves, and binds none.
    Assist,
    /// It binds the addresses of which it holds no socket, and accepts on all.
    #[default]
    Serve,
}

impl Part {
    /// Whether it accepts.
    pub fn accepts(self) -> bool {
        match self {
            Self::StandBy => false,
            Self::Assist | Self::Serve => true,
        }
    }
}

/// How long after a failure to accept for want of files this process counts as one that cannot accept. It tries again
/// every [`ACCEPT_PAUSE`].
const EXHAUSTED_FOR: Duration = ACCEPT_PAUSE.saturating_mul(3);

/// The sockets by address. Every change is told to all who follow.
#[derive(Debug, Default)]
pub struct Sockets {
    held: Mutex<BTreeMap<SocketAddr, Arc<LentListener>>>,
    /// Whether ports are shared with any process of the same user that shares them too: where there is no hand-over.
    shared: AtomicBool,
    part: watch::Sender<Part>,
    /// When this process last had no file to accept with.
    exhausted: Mutex<Option<Instant>>,
    changes: watch::Sender<u64>,
}

impl Sockets {
    /// What this process does with them now.
    pub fn part(&self) -> Part {
        *self.part.borrow()
    }

    /// Plays another part from now on.
    pub fn play(&self, part: Part) {
        if self.part() != part {
            self.part.send_replace(part);
            self.tell();
        }
    }

    /// Whether the ports are shared that are bound from now on.
    pub fn share(&self, is_shared: bool) {
        self.shared.store(is_shared, Ordering::Relaxed);
    }

    /// Whether ports are shared.
    pub fn is_shared(&self) -> bool {
        self.shared.load(Ordering::Relaxed)
    }

    /// There is no file left to accept with.
    pub fn note_exhausted(&self) {
        *self.exhausted.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Whether this process would accept and cannot, because it has no file left.
    pub fn is_exhausted(&self) -> bool {
        let last = *self.exhausted.lock().unwrap_or_else(PoisonError::into_inner);
        self.part().accepts() && last.is_some_and(|last| last.elapsed() < EXHAUSTED_FOR)
    }

    /// The socket of an address.
    pub fn get(&self, address: SocketAddr) -> Option<Arc<LentListener>> {
        self.held().get(&address).cloned()
    }

    /// All sockets.
    pub fn all(&self) -> BTreeMap<SocketAddr, Arc<LentListener>> {
        self.held().clone()
    }

    /// Holds this socket too.
    pub fn add(&self, socket: LentListener) {
        self.held().insert(socket.address(), Arc::new(socket));
        self.tell();
    }

    /// Holds exactly these sockets.
    pub fn replace(&self, sockets: Vec<LentListener>) {
        let sockets = sockets.into_iter();
        *self.held() = sockets
            .map(|socket| (socket.address(), Arc::new(socket)))
            .collect();
        self.tell();
    }

    /// Closes the socket of an address.
    pub fn remove(&self, address: SocketAddr) -> Option<Arc<LentListener>> {
        let removed = self.held().remove(&address);
        self.tell();
        removed
    }

    /// Closes this socket, unless another is in its place already.
    pub fn remove_this(&self, socket: &Arc<LentListener>) {
        let mut held = self.held();
        if held
            .get(&socket.address())
            .is_some_and(|now| Arc::ptr_eq(now, socket))
        {
            held.remove(&socket.address());
        }
        drop(held);
        self.tell();
    }

    /// Told at each change of a socket or of the part.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn tell(&self) {
        self.changes
            .send_modify(|change| *change = change.wrapping_add(1));
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, Arc<LentListener>>> {
        // A panic while the lock is held leaves the entries valid.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
