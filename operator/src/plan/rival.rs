//! Another pool, whose proxies run on the same nodes.

use std::net::IpAddr;

/// An address and port of a node.
pub type Claim = (IpAddr, u16);

/// A pool's place in the queue; the smaller wins. Fields in order of weight.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Precedence {
    /// When it was created, in seconds; an orphan, whose pool is gone, was there before all.
    pub created: i64,
    /// Decides between twins.
    pub name: String,
}

/// Another pool, or what is left of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rival {
    /// Its place in the queue.
    pub precedence: Precedence,
    /// Whether the pool object exists. Proxies outlive it.
    pub has_pool: bool,
    /// Where its spec asks to listen.
    pub wanted: Vec<Claim>,
    /// Where its proxies listen.
    pub serving: Vec<Claim>,
}
