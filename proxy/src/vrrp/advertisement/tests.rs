use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;
use crate::vrrp::{
    address::{Ipv4Checksum, Ipv6Checksum},
    captures::{self, Capture, bytes},
};

fn advertisement<A>(priority: u8, centiseconds: u16, addresses: Vec<A>) -> Advertisement<A> {
    Advertisement {
        vrid: Vrid::new(51).unwrap(),
        priority: Priority::new(priority),
        interval: Interval::from_centiseconds(centiseconds).unwrap(),
        addresses: Addresses::new(addresses).unwrap(),
    }
}

fn v4(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 99, 0, last)
}

fn v6(address: &str) -> Ipv6Addr {
    address.parse().unwrap()
}

/// Our packet, where another program sent one that says the same.
fn is_sent_alike<A: Address>(
    (header, packet): (crate::vrrp::reception::Header<A>, Vec<u8>),
    advertisement: &Advertisement<A>,
    checksum: A::Checksum,
) {
    let message = advertisement.message(header.source);
    assert_eq!(message.packet(header.destination, checksum), packet);
}

#[test]
fn the_packet_of_the_known_example_is_byte_for_byte_as_known() {
    let message = advertisement(200, 10, vec![v4(100)]).message(v4(1));
    let packet = message.packet(Ipv4Addr::GROUP, Ipv4Checksum::WithPseudoHeader);
    assert_eq!(packet, bytes("3133c801000a11070a630064"));
}

#[test]
fn packets_to_an_ipv4_group_are_those_of_keepalived_and_frr() {
    for capture in [captures::KEEPALIVED_V4_MULTICAST, captures::FRR_V4_MULTICAST] {
        for (name, priority) in [("advertisement", 200), ("leaving", 0)] {
            let ours = advertisement(priority, 10, vec![v4(100)]);
            is_sent_alike(capture.v4(name), &ours, Ipv4Checksum::WithPseudoHeader);
        }
    }
}

#[test]
fn packets_to_an_ipv4_peer_are_those_of_keepalived() {
    for (name, priority) in [("advertisement", 200), ("leaving", 0)] {
        let ours = advertisement(priority, 10, vec![v4(100), v4(101), v4(102)]);
        let theirs = captures::KEEPALIVED_V4_UNICAST.v4(name);
        is_sent_alike(theirs, &ours, Ipv4Checksum::WithPseudoHeader);
    }
}

#[test]
fn packets_whose_checksum_covers_the_message_only_are_those_of_keepalived() {
    let ours = advertisement(200, 20, vec![v4(100)]);
    let theirs = captures::KEEPALIVED_V4_MESSAGE_ONLY.v4("advertisement");
    is_sent_alike(theirs, &ours, Ipv4Checksum::MessageOnly);
}

#[test]
fn packets_in_ipv6_are_those_of_keepalived_and_frr() {
    let captures: [(Capture, u16); 3] = [
        (captures::KEEPALIVED_V6_MULTICAST, 10),
        (captures::KEEPALIVED_V6_UNICAST, 20),
        (captures::FRR_V6_MULTICAST, 10),
    ];
    for (capture, centiseconds) in captures {
        for (name, priority) in [("advertisement", 200), ("leaving", 0)] {
            let ours = advertisement(priority, centiseconds, vec![v6("fe80::100"), v6("fd99::100")]);
            is_sent_alike(capture.v6(name), &ours, Ipv6Checksum);
        }
    }
}

#[test]
fn a_virtual_router_has_one_of_255_numbers() {
    assert_eq!(Vrid::new(0), None);
    for number in 1..=255 {
        assert_eq!(Vrid::new(number).map(Vrid::get), Some(number));
    }
}

#[test]
fn the_virtual_router_of_a_packet_is_known_before_it_is_read() {
    let packet = bytes("2133c801");
    assert_eq!(Vrid::of(&packet), Vrid::new(51));
    assert_eq!(Vrid::of(&packet[..1]), None);
    assert_eq!(Vrid::of(&[0x31, 0]), None);
}

#[test]
fn an_interval_has_between_1_and_4095_hundredths_of_a_second() {
    assert_eq!(Interval::from_centiseconds(0), None);
    assert_eq!(Interval::from_centiseconds(4096), None);
    assert_eq!(Interval::from_centiseconds(4095), Some(Interval::MAX));
    let shortest = Interval::from_centiseconds(1).unwrap();
    assert_eq!(Duration::from(shortest), Duration::from_millis(10));
    assert_eq!(Duration::from(Interval::MAX), Duration::from_millis(40_950));
}

#[test]
fn a_virtual_router_has_between_1_and_255_addresses() {
    assert_eq!(Addresses::<Ipv4Addr>::new(Vec::new()), None);
    assert_eq!(Addresses::new(vec![v4(100); 256]), None);
    let most = Addresses::new(vec![v4(100); 255]).unwrap();
    assert_eq!((most.count(), most.as_slice().len()), (255, 255));
}

#[test]
fn a_higher_priority_is_greater_and_none_is_less_than_that_of_who_leaves() {
    assert!(Priority::new(200) > Priority::new(100));
    assert!((1..=255).all(|number| Priority::new(number) > Priority::LEAVING));
    assert!((0..=254).all(|number| Priority::new(number) < Priority::OWNER));
}
