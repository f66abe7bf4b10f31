//! A stream of bytes without an end that every reader can check: numbered blocks of one pattern, which a seed makes, so that
//! no two streams are alike. tests/client-go/trivet-pod/stream.go has the same.

use anyhow::{Result, ensure};

/// Bytes of a block: its number, and the pattern.
const BLOCK: usize = 4096;

/// The stream of one seed, at a position.
pub(super) struct Blocks {
    pattern: Vec<u8>,
    offset: u64,
}

impl Blocks {
    /// The stream of a seed from its first byte on. The pattern is SplitMix64's.
    pub(super) fn of(seed: u64) -> Self {
        let mut state = seed;
        let words = std::iter::repeat_with(move || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = state;
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (word ^ (word >> 31)).to_be_bytes()
        });
        Self {
            pattern: words.take(BLOCK / size_of::<u64>()).flatten().collect(),
            offset: 0,
        }
    }

    /// How many bytes have passed.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next bytes of the stream, to the end of a block at most.
    fn next(&mut self, at_most: usize) -> &[u8] {
        let block = u64::try_from(BLOCK).unwrap_or(u64::MAX);
        let (number, within) = (self.offset / block, self.offset % block);
        if let Some(head) = self.pattern.first_chunk_mut() {
            *head = number.to_be_bytes();
        }
        let rest = usize::try_from(within).ok();
        let rest = rest
            .and_then(|within| self.pattern.get(within..))
            .unwrap_or_default();
        let next = rest.get(..at_most).unwrap_or(rest);
        self.offset += u64::try_from(next.len()).unwrap_or_default();
        next
    }

    /// The next `count` bytes of the stream.
    pub(super) fn take(&mut self, count: usize) -> Vec<u8> {
        let mut taken = Vec::with_capacity(count);
        while taken.len() < count {
            let missing = count - taken.len();
            taken.extend_from_slice(self.next(missing));
        }
        taken
    }

    /// Fails unless these are the next bytes of the stream.
    pub(super) fn compare(&mut self, mut found: &[u8]) -> Result<()> {
        while !found.is_empty() {
            let offset = self.offset;
            let wanted = self.next(found.len());
            let (part, later) = found.split_at_checked(wanted.len()).unwrap_or((found, &[]));
            ensure!(
                part == wanted,
                "a wrong byte in the {} from byte {offset} on",
                part.len()
            );
            found = later;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_the_one_that_the_pods_know() {
        let stream = Blocks::of(7).take(2 * BLOCK);
        let second = 0x044c_3cd7_f43c_661c_u64.to_be_bytes();
        assert_eq!(stream[BLOCK..][..16], [1_u64.to_be_bytes(), second].concat());
    }

    #[test]
    fn the_same_stream_passes_in_whatever_parts_it_comes() {
        let stream = Blocks::of(7).take(3 * BLOCK + 5);
        for part in [1, 100, BLOCK, BLOCK + 1, stream.len()] {
            let mut blocks = Blocks::of(7);
            for found in stream.chunks(part) {
                blocks.compare(found).unwrap();
            }
            assert_eq!(blocks.offset(), stream.len() as u64);
        }
    }

    #[test]
    fn a_lost_a_repeated_and_an_altered_byte_fail_and_another_stream_too() {
        let whole = Blocks::of(7).take(3 * BLOCK);
        let mut altered = whole.clone();
        altered[BLOCK + 99] ^= 1;
        for wrong in [
            [&whole[..5000], &whole[5001..]].concat(),
            [&whole[..5001], &whole[5000..]].concat(),
            [&whole[..BLOCK], &whole[2 * BLOCK..]].concat(),
            [&whole[..BLOCK], &whole].concat(),
            altered,
            Blocks::of(8).take(BLOCK),
        ] {
            assert!(Blocks::of(7).compare(&wrong).is_err());
        }
    }
}
