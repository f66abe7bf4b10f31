//! What the connections of a proxy explain of its open files and its memory. Pure.
//!
//! A proxy that leaks nothing stays below it. So it is where the proxy begins to tell of more, and where the operator begins
//! to ask why.

/// Files beside those of connections: listeners, probes, the watch, a reserve.
const FILES: u32 = 1024;

/// Files of a connection: both ends, and twice as many while they are handed over.
const FILES_OF_A_CONNECTION: u32 = 4;

/// Memory beside that of connections: about 8 MiB at rest, 64 MiB that slow readers may leave unread, and room for the
/// allocator.
const MEBIBYTES: u32 = 128;

/// Memory of a connection: 2 KiB once it is established, and up to 16 KiB of its first flight before, twice while it is
/// handed over.
const KIBIBYTES_OF_A_CONNECTION: u32 = 32;

/// The files that this many connections explain.
pub fn files(connections: u32) -> u32 {
    connections
        .saturating_mul(FILES_OF_A_CONNECTION)
        .saturating_add(FILES)
}

/// The memory that this many connections explain, in MiB.
pub fn mebibytes(connections: u32) -> u32 {
    let of_connections = connections.saturating_mul(KIBIBYTES_OF_A_CONNECTION) / 1024;
    of_connections.saturating_add(MEBIBYTES)
}

/// How often what is explained must be doubled to come to what is used. 0 where it is explained.
pub fn doublings(used: u32, explained: u32) -> u32 {
    let times = used.div_ceil(explained.max(1)).max(1);
    times.checked_next_power_of_two().map_or(u32::BITS, u32::ilog2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_connections_explain_is_no_doubling_and_a_leak_makes_few() {
        assert_eq!((files(0), files(9_500)), (1024, 39_024));
        assert_eq!((mebibytes(0), mebibytes(9_500)), (128, 424));
        let doublings = |used| doublings(used, 1024);
        assert_eq!([0, 1, 1024].map(doublings), [0; 3]);
        assert_eq!([1025, 2048, 2049, 4096, 4097].map(doublings), [1, 1, 2, 2, 3]);
        assert_eq!([1_048_576, u32::MAX].map(doublings), [10, 22]);
        assert_eq!(super::doublings(u32::MAX, 0), 32);
    }
}
