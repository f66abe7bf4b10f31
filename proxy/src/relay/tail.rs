//! Tails: bytes that were read from one side and that the other side has not taken yet.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::{Buf, Bytes};

/// The most bytes that all tails of a proxy may hold together. Slow readers of large lists use it up; then connections are
/// relayed without tails, see [`TailBudget::read_size`].
pub const TAILS_LIMIT: usize = 64 << 20;

/// One read takes at most this fraction of the rest of the budget, so that a few slow readers cannot use it up.
const SHARE: usize = 128;

/// The budget of memory that all tails share.
#[derive(Debug)]
pub struct TailBudget {
    limit: usize,
    held: AtomicUsize,
}

impl Default for TailBudget {
    fn default() -> Self {
        Self::new(TAILS_LIMIT)
    }
}

impl TailBudget {
    /// A budget of so many bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            held: AtomicUsize::new(0),
        }
    }

    /// What tails hold now.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// How much of `wanted` may be read at once; none if that is less than `least`: then only as much may be taken from a
    /// source as its sink takes.
    pub(super) fn read_size(&self, wanted: usize, least: usize) -> Option<usize> {
        let share = self.limit.saturating_sub(self.held()) / SHARE;
        (share >= least).then(|| share.min(wanted))
    }
}

/// A tail. It counts in the budget until the sink has taken all of it, or it is dropped.
#[derive(Debug)]
pub(super) struct Tail {
    bytes: Bytes,
    charged: usize,
    budget: Arc<TailBudget>,
}

impl Tail {
    pub(super) fn new(bytes: Bytes, budget: Arc<TailBudget>) -> Self {
        let mut tail = Self {
            bytes: Bytes::new(),
            charged: 0,
            budget,
        };
        tail.set(bytes);
        tail
    }

    pub(super) fn budget(&self) -> &TailBudget {
        &self.budget
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The bytes, which count in the budget no longer.
    pub(super) fn into_bytes(mut self) -> Bytes {
        let bytes = std::mem::take(&mut self.bytes);
        self.set(Bytes::new());
        bytes
    }

    /// Keeps what the sink did not take.
    pub(super) fn keep(&mut self, bytes: &[u8]) {
        self.set(Bytes::copy_from_slice(bytes));
    }

    /// Offers the tail to the sink once and returns how much that took.
    pub(super) fn offer(&mut self, write: impl FnOnce(&[u8]) -> io::Result<usize>) -> io::Result<usize> {
        let taken = write(&self.bytes)?;
        self.bytes.advance(taken);
        if self.bytes.is_empty() {
            // An empty slice would keep its large buffer.
            self.set(Bytes::new());
        }
        Ok(taken)
    }

    fn set(&mut self, bytes: Bytes) {
        self.budget.held.fetch_sub(self.charged, Ordering::Relaxed);
        self.charged = bytes.len();
        self.budget.held.fetch_add(self.charged, Ordering::Relaxed);
        self.bytes = bytes;
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.set(Bytes::new());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: usize = 64 << 10;

    #[test]
    fn a_tail_counts_until_its_last_byte_is_taken() {
        let budget = Arc::new(TailBudget::default());
        let mut tail = Tail::new(Bytes::new(), Arc::clone(&budget));
        tail.keep(&[0; 1000]);
        assert_eq!(tail.offer(|_| Ok(999)).unwrap(), 999);
        assert_eq!(budget.held(), 1000, "the buffer is still there");
        tail.offer(|_| Ok(1)).unwrap();
        assert_eq!(budget.held(), 0);
        tail.keep(&[0; 10]);
        drop(tail);
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn reads_get_smaller_as_the_budget_is_used_up_and_never_exceed_it() {
        let budget = Arc::new(TailBudget::default());
        let mut tails = Vec::new();
        while let Some(size) = budget.read_size(512 << 10, LEAST) {
            assert!((LEAST..=512 << 10).contains(&size));
            tails.push(Tail::new(vec![0; size].into(), Arc::clone(&budget)));
        }
        assert!(tails.len() > 200, "{} stalled readers use it up", tails.len());
        assert!(budget.held() <= TAILS_LIMIT);
    }
}
