//! An agent hears of a pulled cable before its next advertisement is due.

use std::{thread, time::Duration};

use anyhow::Result;
use tokio::time::Instant;
use trivet_lab::{Place, Wire};
use trivet_proxy::vip::{
    changes::{Change, Changes},
    interface,
};

use super::{LIMIT, Node, is_readable};

/// A quarter of an advertisement interval.
const AT_ONCE: Duration = Duration::from_millis(50);

/// The kernel spreads news of carriers, those of all interfaces together, once a second at most.
const NEWS: Duration = Duration::from_millis(1050);

/// When the kernel has told that the interface has a carrier, or none.
fn told(changes: &mut Changes, carrier: bool) -> Result<Instant> {
    let deadline = Instant::now() + LIMIT;
    loop {
        assert!(Instant::now() < deadline, "not told");
        if is_readable(changes, Duration::from_secs(1))? {
            let now = Instant::now();
            let is_it = |change: &Change| match change {
                Change::Interface(interface) => interface.name == "eth0" && interface.has_carrier == carrier,
                Change::InterfaceGone(_) | Change::Address(_) | Change::AddressGone(_) | Change::Missed => {
                    false
                }
            };
            if changes.hear()?.iter().any(is_it) {
                return Ok(now);
            }
        }
    }
}

#[test]
fn who_asks_learns_of_a_pulled_cable_within_50_ms_and_who_listens_within_a_second() -> Result<()> {
    let wire = Wire::lay(&[Place::Node])?;
    let mut node = Node::at(&wire, Place::Node)?;
    let mut changes = wire.at(Place::Node, Changes::subscribe)??;
    for plugged in [false, true, false, true, false] {
        thread::sleep(Duration::from_millis(1100));
        while is_readable(&changes, Duration::ZERO)? {
            changes.hear()?;
        }
        let (heard, asked, pulled) = thread::scope(|scope| -> Result<_> {
            let hearing = scope.spawn(|| told(&mut changes, plugged));
            wire.plug(Place::Node, plugged)?;
            let pulled = Instant::now();
            let asked = loop {
                let read = interface::by_index(&mut node.netlink, node.interface.index)?.unwrap();
                assert!(read.is_up && read.mac == node.interface.mac);
                if read.has_carrier == plugged {
                    break Instant::now();
                }
                assert!(pulled.elapsed() < LIMIT, "it still has a carrier");
            };
            Ok((hearing.join().unwrap()?, asked, pulled))
        })?;
        let [heard, asked] = [heard, asked].map(|at| at.saturating_duration_since(pulled));
        println!("carrier {plugged}: told {heard:?}, and read {asked:?} after the command's end");
        assert!(asked <= AT_ONCE, "{asked:?}");
        assert!(heard <= NEWS, "{heard:?}");
    }
    Ok(())
}
