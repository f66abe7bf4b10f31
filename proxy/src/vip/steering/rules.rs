//! The requests to nftables that make and remove a table of redirections (`linux/netfilter/nf_tables.h`). Numbers are in
//! network byte order. Pure: `nft list table` shows what they make.

use std::net::IpAddr;

use super::{Ownership, Redirection};
use crate::vip::netlink::message::{Request, attribute, nested};

/// The number of nftables within nfnetlink.
const NFTABLES: u16 = 10;

/// Just before kube-proxy and others that translate destinations (`NF_IP_PRI_NAT_DST`, -100).
const PRIORITY: i32 = -110;

/// Where packets are caught: those that arrive, and those of the node itself (`NF_INET_PRE_ROUTING`,
/// `NF_INET_LOCAL_OUT`).
const HOOKS: [(&str, u32); 2] = [("prerouting", 0), ("output", 3)];

/// The number of TCP.
const TCP: u8 = 6;

/// The register that each step of a rule uses.
const REGISTER: u32 = 1;

const NLM_F_CREATE: u16 = 0x400;
const NLM_F_APPEND: u16 = 0x800;

/// `NFT_MSG_*`.
mod kind {
    pub(super) const NEW_TABLE: u16 = 0;
    pub(super) const GET_TABLE: u16 = 1;
    pub(super) const DELETE_TABLE: u16 = 2;
    pub(super) const NEW_CHAIN: u16 = 3;
    pub(super) const NEW_RULE: u16 = 6;
}

/// An address family, which has tables of its own: one for both can translate addresses since Linux 5.2 only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// `ip`
    V4,
    /// `ip6`
    V6,
}

impl Family {
    pub(super) const ALL: [Self; 2] = [Self::V4, Self::V6];

    pub(super) fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// `NFPROTO_*`
    fn number(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }

    /// Where the IP header has the destination.
    fn destination(self) -> u32 {
        match self {
            Self::V4 => 16,
            Self::V6 => 24,
        }
    }
}

/// A table of one family.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table<'a> {
    pub(super) family: Family,
    pub(super) name: &'a str,
}

impl Table<'_> {
    /// Removes it. It is made first, since to remove what is not there is an error.
    pub(super) fn absent(self) -> Vec<Request> {
        let name = text(1, self.name);
        vec![
            self.request(kind::NEW_TABLE, NLM_F_CREATE, &name),
            self.request(kind::DELETE_TABLE, 0, &name),
        ]
    }

    /// Makes it with its chains and rules, after it was made absent.
    pub(super) fn present(self, ownership: Ownership, redirections: &[Redirection]) -> Vec<Request> {
        let owner = match ownership {
            Ownership::Bound => number(2, 2), // NFTA_TABLE_FLAGS, NFT_TABLE_F_OWNER
            Ownership::Free => Vec::new(),
        };
        let table = [text(1, self.name), owner].concat();
        let mut requests = vec![self.request(kind::NEW_TABLE, NLM_F_CREATE, &table)];
        for (chain, hook) in HOOKS {
            requests.push(self.chain(chain, hook));
            let own = redirections
                .iter()
                .filter(|redirection| Family::of(redirection.address) == self.family);
            requests.extend(own.map(|redirection| self.rule(chain, redirection)));
        }
        requests
    }

    /// Asks whether it is there.
    pub(super) fn sought(self) -> Request {
        self.request(kind::GET_TABLE, 0, &text(1, self.name))
    }

    fn chain(self, name: &str, hook: u32) -> Request {
        let hook = [number(1, hook), number(2, PRIORITY.cast_unsigned())].concat();
        let chain = [
            text(1, self.name),
            text(3, name),
            nested(4, &hook),
            text(7, "nat"),
        ];
        self.request(kind::NEW_CHAIN, NLM_F_CREATE, &chain.concat())
    }

    /// `ip daddr ADDRESS tcp dport PORT redirect to :TO`
    fn rule(self, chain: &str, redirection: &Redirection) -> Request {
        let address = match redirection.address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let steps = [
            protocol(),
            is(&[TCP]),
            header(1, self.family.destination(), address.len()),
            is(&address),
            // The destination port of TCP.
            header(2, 2, 2),
            is(&redirection.port.to_be_bytes()),
            set(&redirection.to.to_be_bytes()),
            step("redir", &number(1, REGISTER)),
        ];
        let rule = [text(1, self.name), text(2, chain), nested(4, &steps.concat())];
        self.request(kind::NEW_RULE, NLM_F_CREATE | NLM_F_APPEND, &rule.concat())
    }

    fn request(self, kind: u16, flags: u16, attributes: &[u8]) -> Request {
        Request::new(
            NFTABLES << 8 | kind,
            flags,
            &[self.family.number(), 0, 0, 0],
            attributes,
        )
    }
}

/// Begins a batch (`NFNL_MSG_BATCH_BEGIN`).
pub(super) fn begin() -> Request {
    edge(0x10)
}

/// Ends a batch and carries it out (`NFNL_MSG_BATCH_END`).
pub(super) fn commit() -> Request {
    edge(0x11)
}

fn edge(kind: u16) -> Request {
    let [high, low] = NFTABLES.to_be_bytes();
    Request::new(kind, 0, &[0, 0, high, low], &[])
}

/// Loads the number of the protocol above IP (`NFT_META_L4PROTO`).
fn protocol() -> Vec<u8> {
    step("meta", &[number(1, REGISTER), number(2, 16)].concat())
}

/// Loads bytes of a header: of IP (1) or of what is above it (2).
fn header(base: u32, offset: u32, length: usize) -> Vec<u8> {
    let length = u32::try_from(length).unwrap_or_default();
    let fields = [
        number(1, REGISTER),
        number(2, base),
        number(3, offset),
        number(4, length),
    ];
    step("payload", &fields.concat())
}

/// Goes on only if what was loaded is this (`NFT_CMP_EQ`).
fn is(value: &[u8]) -> Vec<u8> {
    let fields = [number(1, REGISTER), number(2, 0), nested(3, &attribute(1, value))];
    step("cmp", &fields.concat())
}

/// Loads this.
fn set(value: &[u8]) -> Vec<u8> {
    let fields = [number(1, REGISTER), nested(2, &attribute(1, value))];
    step("immediate", &fields.concat())
}

/// One step of a rule.
fn step(name: &str, fields: &[u8]) -> Vec<u8> {
    nested(1, &[text(1, name), nested(2, fields)].concat())
}

fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

fn text(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, &[value.as_bytes(), &[0]].concat())
}
