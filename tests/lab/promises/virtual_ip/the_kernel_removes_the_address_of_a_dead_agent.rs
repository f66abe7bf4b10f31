//! The kernel removes an address that nobody prolongs.

use std::{net::IpAddr, thread, time::Duration};

use anyhow::Result;
use tokio::time::Instant;
use trivet_lab::{Place, Wire};
use trivet_proxy::vip::{
    address::{self, LIFETIME},
    changes::{Change, Changes},
};

use super::{LIMIT, Node, V4, V6, is_readable};

/// The kernel is late: by up to a quarter of a second because it waits for a full one that is near, and by 64 ticks of its
/// clock because its timers are as coarse as that (256 ms with `CONFIG_HZ=250`).
const LATEST: Duration = Duration::from_millis(LIFETIME as u64 * 1000 + 250 + 256);

/// It looks for addresses whose time is over once a second at most.
const CROWDED: Duration = Duration::from_millis(LIFETIME as u64 * 1000 + 1000 + 256);

/// It counts in ticks.
const EARLIEST: Duration = Duration::from_millis(LIFETIME as u64 * 1000 - 50);

/// A busy machine's share.
const SLACK: Duration = Duration::from_millis(50);

/// When all of these addresses were gone.
fn gone(changes: &mut Changes, mut waited_for: Vec<IpAddr>) -> Result<Instant> {
    let deadline = Instant::now() + LIMIT;
    loop {
        assert!(Instant::now() < deadline, "{waited_for:?} are still there");
        if is_readable(changes, Duration::from_secs(1))? {
            let now = Instant::now();
            for change in changes.hear()? {
                match change {
                    Change::AddressGone(gone) => waited_for.retain(|address| *address != gone.address),
                    Change::Address(_) | Change::Interface(_) | Change::InterfaceGone(_) => {}
                    Change::Missed => panic!("the kernel told more than was read"),
                }
            }
            if waited_for.is_empty() {
                return Ok(now);
            }
        }
    }
}

#[test]
fn an_address_that_is_not_prolonged_is_gone_after_its_lifetime() -> Result<()> {
    // At different phases of the kernel's seconds, and each in a network of its own, so that none waits for another.
    let places: Vec<_> = (1..=8).map(Place::Member).collect();
    let wire = Wire::lay(&places)?;
    for address in [IpAddr::from(V4), IpAddr::from(V6)] {
        let mut lasted = thread::scope(|scope| -> Result<Vec<Duration>> {
            let waiting: Vec<_> = places
                .iter()
                .map(|place| {
                    thread::sleep(Duration::from_millis(137));
                    let mut node = Node::at(&wire, *place)?;
                    let mut changes = wire.at(*place, Changes::subscribe)??;
                    node.put_for(address, LIFETIME)?;
                    let put = Instant::now();
                    Ok(scope
                        .spawn(move || -> Result<Duration> { Ok(gone(&mut changes, vec![address])? - put) }))
                })
                .collect::<Result<_>>()?;
            waiting
                .into_iter()
                .map(|waiting| waiting.join().unwrap())
                .collect()
        })?;
        lasted.sort();
        println!("{address} for {LIFETIME} s lasted {lasted:?}");
        assert!(lasted[0] >= EARLIEST, "{lasted:?}");
        assert!(lasted[lasted.len() - 1] <= LATEST + SLACK, "{lasted:?}");
    }
    Ok(())
}

#[test]
fn addresses_that_are_put_together_are_gone_together() -> Result<()> {
    let wire = Wire::lay(&[Place::Node])?;
    let mut node = Node::at(&wire, Place::Node)?;
    let mut changes = wire.at(Place::Node, Changes::subscribe)??;
    let second = IpAddr::from([10, 77, 0, 101]);
    node.put_for(V4.into(), LIFETIME)?;
    node.put_for(second, LIFETIME)?;
    let put = Instant::now();
    let lasted = gone(&mut changes, vec![V4.into(), second])? - put;
    println!("two addresses lasted {lasted:?}");
    assert!(lasted <= LATEST + SLACK, "{lasted:?}");
    Ok(())
}

#[test]
fn an_address_that_ends_just_after_another_is_gone_a_second_later_at_most() -> Result<()> {
    let wire = Wire::lay(&[Place::Node])?;
    let mut node = Node::at(&wire, Place::Node)?;
    let mut changes = wire.at(Place::Node, Changes::subscribe)??;
    node.put_for([10, 77, 0, 101].into(), LIFETIME)?;
    thread::sleep(Duration::from_millis(300));
    node.put_for(V4.into(), LIFETIME)?;
    let put = Instant::now();
    let lasted = gone(&mut changes, vec![V4.into()])? - put;
    println!("the later of two addresses lasted {lasted:?}");
    assert!(lasted <= CROWDED + SLACK, "{lasted:?}");
    Ok(())
}

#[test]
fn an_address_that_is_prolonged_thirty_times_is_never_gone() -> Result<()> {
    let wire = Wire::lay(&[Place::Node])?;
    let mut node = Node::at(&wire, Place::Node)?;
    let both = [IpAddr::from(V4), IpAddr::from(V6)];
    let mut changes = wire.at(Place::Node, Changes::subscribe)??;
    let index = node.interface.index;
    let mut slowest = Duration::ZERO;
    // Thirty times 300 ms is longer than the lifetime by far.
    for _ in 0..=30 {
        for address in both {
            let begun = Instant::now();
            node.put_for(address, 1)?;
            slowest = slowest.max(begun.elapsed());
        }
        thread::sleep(Duration::from_millis(300));
    }
    let assigned = address::list(&mut node.netlink)?;
    let left: Vec<_> = address::leftovers(&assigned, &both).collect();
    assert_eq!(left.len(), 2, "{assigned:?}");
    assert!(
        left.iter()
            .all(|assigned| assigned.is_usable() && assigned.interface == index)
    );
    let mut prolonged = 0;
    while is_readable(&changes, Duration::ZERO)? {
        for change in changes.hear()? {
            match change {
                Change::Address(assigned) if both.contains(&assigned.address) => prolonged += 1,
                Change::AddressGone(assigned) => assert!(!both.contains(&assigned.address), "{assigned:?}"),
                Change::Address(_) | Change::Interface(_) | Change::InterfaceGone(_) => {}
                Change::Missed => panic!("the kernel told more than was read"),
            }
        }
    }
    println!("the slowest of 62 calls took {slowest:?}");
    assert_eq!(prolonged, 62);
    Ok(())
}

#[test]
fn an_address_is_removed_at_once_and_only_if_it_is_there() -> Result<()> {
    let wire = Wire::lay(&[Place::Node])?;
    let mut node = Node::at(&wire, Place::Node)?;
    for address in [IpAddr::from(V4), IpAddr::from(V6)] {
        node.put(address)?;
        assert!(node.remove(address)?);
        assert!(!node.remove(address)?);
        let assigned = address::list(&mut node.netlink)?;
        assert!(assigned.iter().all(|assigned| assigned.address != address));
    }
    // The node's own addresses are still there, and nobody takes them for left ones.
    let own = [Place::Node.ipv4(), Place::Node.ipv6()];
    let assigned = address::list(&mut node.netlink)?;
    assert!(
        own.iter()
            .all(|own| assigned.iter().any(|assigned| assigned.address == *own))
    );
    assert_eq!(address::leftovers(&assigned, &own).count(), 0);
    Ok(())
}
