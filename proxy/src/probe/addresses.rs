//! Where a member with several addresses is asked: at the one where it was heard last.

use std::net::SocketAddr;

use super::Heard;

/// The addresses of one member: where it is asked, and where else it may be reached.
#[derive(Debug)]
pub(super) struct Addresses {
    all: Vec<SocketAddr>,
    here: usize,
    /// From here to the next one to try.
    step: usize,
}

impl Addresses {
    /// Asked at the first until it is heard elsewhere.
    pub(super) fn new(all: Vec<SocketAddr>) -> Self {
        Self {
            all,
            here: 0,
            step: 1,
        }
    }

    fn at(&self, index: usize) -> Option<SocketAddr> {
        self.all.get(index.checked_rem(self.all.len())?).copied()
    }

    /// Where to ask, and another address if there is one.
    pub(super) fn pair(&self) -> Option<(SocketAddr, Option<SocketAddr>)> {
        let here = self.at(self.here)?;
        Some((
            here,
            self.at(self.here + self.step).filter(|there| *there != here),
        ))
    }

    /// Moves to where the member was heard; without a word from anywhere it stays, and another one is tried beside it.
    pub(super) fn follow(&mut self, heard: Heard) {
        match heard {
            Heard::Here => {}
            Heard::Elsewhere => {
                self.here = (self.here + self.step) % self.all.len().max(1);
                self.step = 1;
            }
            Heard::Nothing => self.step = self.step % self.all.len().saturating_sub(1).max(1) + 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(count: u8) -> Addresses {
        let all = (0..count).map(|host| SocketAddr::from(([10, 0, 0, host], 6443)));
        Addresses::new(all.collect())
    }

    fn hosts(addresses: &Addresses) -> (u8, Option<u8>) {
        let host = |address: SocketAddr| match address {
            SocketAddr::V4(address) => address.ip().octets()[3],
            SocketAddr::V6(address) => panic!("{address}"),
        };
        let (here, there) = addresses.pair().unwrap();
        (host(here), there.map(host))
    }

    #[test]
    fn a_silent_member_is_asked_where_it_was_heard_and_every_other_address_is_tried_beside() {
        let mut addresses = addresses(4);
        let tried = (0..6).map(|_| {
            let pair = hosts(&addresses);
            addresses.follow(Heard::Nothing);
            pair
        });
        let others = [1, 2, 3, 1, 2, 3].map(|there| (0, Some(there)));
        assert_eq!(tried.collect::<Vec<_>>(), others);
    }

    #[test]
    fn a_member_that_is_heard_elsewhere_is_asked_there_from_then_on() {
        let mut addresses = addresses(3);
        addresses.follow(Heard::Nothing);
        addresses.follow(Heard::Elsewhere);
        assert_eq!(hosts(&addresses), (2, Some(0)));
        addresses.follow(Heard::Here);
        assert_eq!(hosts(&addresses), (2, Some(0)));
    }

    #[test]
    fn a_member_with_one_address_has_no_other() {
        let mut addresses = addresses(1);
        for heard in [Heard::Nothing, Heard::Elsewhere, Heard::Nothing, Heard::Here] {
            assert_eq!(hosts(&addresses), (0, None));
            addresses.follow(heard);
        }
        assert!(Addresses::new(Vec::new()).pair().is_none());
    }
}
