use super::*;
use crate::vrrp::captures::{self, bytes};

const MAC: Mac = Mac::new([2, 0, 0, 0, 0, 0x0a]);
/// The MAC address of VRID 51 in IPv6.
const VIRTUAL: Mac = Mac::new([0, 0, 0x5e, 0, 2, 0x33]);

fn v4() -> Ipv4Addr {
    Ipv4Addr::new(10, 99, 0, 100)
}

#[test]
fn a_gratuitous_request_asks_everybody_for_ones_own_address() {
    let expected =
        "ffffffffffff 02000000000a 0806 0001080006040001 02000000000a 0a630064 000000000000 0a630064";
    let request = gratuitous_arp(ArpForm::Request, v4(), MAC);
    assert_eq!(request, bytes(&expected.replace(' ', "")));
}

#[test]
fn a_gratuitous_request_is_that_of_keepalived_but_for_the_field_that_nobody_reads() {
    let ours = gratuitous_arp(ArpForm::Request, v4(), MAC);
    let theirs = captures::KEEPALIVED_V4_MULTICAST.frame("announcement");
    let target = 32..38;
    assert_eq!(ours[..target.start], theirs[..target.start]);
    assert_eq!(ours[target.end..], theirs[target.end..]);
    assert_eq!(theirs[target], [0xff; 6]);
}

#[test]
fn a_gratuitous_reply_is_that_of_arping() {
    let ours = gratuitous_arp(ArpForm::Reply, v4(), Mac::new([2, 0, 0, 0, 0, 0x0b]));
    assert_eq!(ours, captures::LINUX.frame("gratuitous-reply"));
}

#[test]
fn a_neighbor_advertisement_is_that_of_keepalived() {
    let theirs = captures::KEEPALIVED_V6_MULTICAST.all("announcement");
    for (address, theirs) in ["fe80::100", "fd99::100"].iter().zip(theirs) {
        assert_eq!(
            neighbor_advertisement(address.parse().unwrap(), MAC, false),
            theirs
        );
    }
}

#[test]
fn a_neighbor_advertisement_of_a_router_says_so() {
    let address = "fe80::100".parse().unwrap();
    let host = neighbor_advertisement(address, VIRTUAL, false);
    let router = neighbor_advertisement(address, VIRTUAL, true);
    assert_eq!((host[58], router[58]), (0x20, 0xa0));
    assert_eq!(router.len(), 86);
}

#[test]
fn an_address_is_announced_in_every_form_of_its_family() {
    let forms = [ArpForm::Request, ArpForm::Reply].map(|form| gratuitous_arp(form, v4(), MAC));
    assert_eq!(announcements(v4().into(), MAC, true), forms);
    let v6: Ipv6Addr = "fd99::100".parse().unwrap();
    assert_eq!(
        announcements(v6.into(), MAC, true),
        [neighbor_advertisement(v6, MAC, true)]
    );
}

#[test]
fn a_mac_address_is_written_as_everywhere() {
    assert_eq!(VIRTUAL.to_string(), "00:00:5e:00:02:33");
    assert!(VIRTUAL.is_unicast());
    assert!(!BROADCAST.is_unicast());
    assert!(!ALL_NODES_MAC.is_unicast());
    assert!(!Mac::new([0; 6]).is_unicast());
}
