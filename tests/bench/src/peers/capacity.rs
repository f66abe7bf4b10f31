//! How many idle connections a peer is asked to hold.

use super::Peer;

/// What we want to open in a proxy, if files allow.
const CONNECTIONS: u64 = 9_500;

/// Files of a proxy that are no client's and no upstream's; more than any of them keeps back for itself.
const SPARE_FILES: u64 = 400;

impl Peer {
    /// As many as it can hold that keeps a twentieth of its files back.
    pub(crate) fn capacity(self, files: u64) -> u64 {
        let possible = (files * 95 / 100).saturating_sub(SPARE_FILES) / self.files_each();
        possible.min(CONNECTIONS)
    }

    /// Files that a connection costs it.
    fn files_each(self) -> u64 {
        match self {
            // Go splices between TCP connections, and each direction owns a pipe for as long as it waits.
            Self::GoLoadbalancer => 6,
            Self::Direct
            | Self::Trivet
            | Self::Haproxy
            | Self::HaproxySplice
            | Self::Nginx
            | Self::Envoy
            | Self::Bare => 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_asked_for_no_more_connections_than_its_files_allow() {
        assert_eq!(Peer::Trivet.capacity(1 << 20), CONNECTIONS);
        assert_eq!(Peer::Trivet.capacity(20_000), 9_300);
        assert_eq!(Peer::GoLoadbalancer.capacity(1 << 20), CONNECTIONS);
        assert_eq!(Peer::GoLoadbalancer.capacity(20_000), 3_100);
        assert_eq!(Peer::Trivet.capacity(100), 0);
    }
}
