//! Connection slots: how many connections the proxy holds at most, and which clients lose their slot when all are taken:
//! those that have sent nothing yet, the oldest first. A silent client must not keep out one that sends something.

use std::{
    collections::BTreeMap,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use crate::{ending::Ending, upstream::CloseSignal};

/// The slots of all listeners.
#[derive(Debug, Default)]
pub struct Slots {
    limit: AtomicU32,
    silent: Mutex<Silent>,
}

/// The clients that have sent nothing yet.
#[derive(Debug, Default)]
struct Silent {
    serial: u64,
    /// By age.
    waiting: BTreeMap<u64, Arc<CloseSignal>>,
    /// Clients whose close signal was sent and that still count as connections.
    leaving: usize,
}

/// A client that has sent nothing yet. Dropped when its first bytes arrive.
#[derive(Debug)]
pub struct SilentClient {
    slots: Arc<Slots>,
    serial: u64,
    /// Ends the connection while the client is silent.
    pub close_signal: Arc<CloseSignal>,
}

impl Slots {
    /// The most connections that are held at once; 0 before the first document.
    pub fn limit(&self) -> u32 {
        self.limit.load(Ordering::Relaxed)
    }

    /// How many clients have been admitted since the start.
    pub fn admitted(&self) -> u64 {
        self.silent().serial
    }

    /// Holds at most so many connections from now on.
    pub fn set_limit(&self, limit: u32) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Admits a client beside `held` connections. If no slot is free, the oldest silent client loses its slot; returns none
    /// if there is no silent client either.
    pub fn admit(self: &Arc<Self>, held: usize) -> Option<SilentClient> {
        let limit = usize::try_from(self.limit()).unwrap_or(usize::MAX);
        let mut silent = self.silent();
        if held.saturating_sub(silent.leaving) >= limit {
            let (_, oldest) = silent.waiting.pop_first()?;
            silent.leaving += 1;
            oldest.end(Ending::ClientSilent);
        }
        let serial = silent.serial;
        silent.serial = serial.wrapping_add(1);
        let close_signal = Arc::new(CloseSignal::default());
        silent.waiting.insert(serial, Arc::clone(&close_signal));
        drop(silent);
        Some(SilentClient {
            slots: Arc::clone(self),
            serial,
            close_signal,
        })
    }

    /// Ends all clients that have sent nothing yet.
    pub fn end_silent(&self, ending: Ending) {
        let mut silent = self.silent();
        let waiting = mem::take(&mut silent.waiting);
        silent.leaving += waiting.len();
        drop(silent);
        for close_signal in waiting.into_values() {
            close_signal.end(ending);
        }
    }

    fn silent(&self) -> MutexGuard<'_, Silent> {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for SilentClient {
    fn drop(&mut self) {
        let mut silent = self.slots.silent();
        if silent.waiting.remove(&self.serial).is_none() {
            silent.leaving = silent.leaving.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn slots(limit: u32) -> Arc<Slots> {
        let slots = Arc::new(Slots::default());
        slots.set_limit(limit);
        slots
    }

    fn told(client: &SilentClient) -> Option<Ending> {
        client.close_signal.ended().now_or_never()
    }

    #[test]
    fn the_oldest_silent_client_gives_its_slot() {
        let slots = slots(2);
        let [oldest, younger] = [0, 1].map(|held| slots.admit(held).unwrap());
        let newcomer = slots.admit(2).unwrap();
        assert_eq!(told(&oldest), Some(Ending::ClientSilent));
        assert_eq!([told(&younger), told(&newcomer)], [None, None]);
    }

    #[test]
    fn a_client_that_is_told_to_end_gives_one_slot_only() {
        let slots = slots(2);
        let [oldest, younger] = [0, 1].map(|held| slots.admit(held).unwrap());
        // The newcomer speaks at once.
        drop(slots.admit(2).unwrap());
        // One of the two connections that remain ends before the oldest has gone.
        let _next = slots.admit(2).unwrap();
        assert_eq!(told(&younger), None, "there is a slot");
        drop(oldest);
        let _last = slots.admit(2).unwrap();
        assert_eq!(told(&younger), Some(Ending::ClientSilent));
    }

    #[test]
    fn clients_that_have_spoken_keep_their_slots() {
        let slots = slots(1);
        drop(slots.admit(0).unwrap());
        assert!(slots.admit(1).is_none());
    }
}
