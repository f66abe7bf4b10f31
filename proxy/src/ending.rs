//! Why a connection ended: one word for each reason, counted.

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Ending {
    /// Both sides closed their direction.
    Finished = 1,
    /// The client reset it, or left before an upstream had answered.
    ClientLeft,
    /// The client said nothing for ten seconds, or nothing yet when its slot was needed.
    ClientSilent,
    /// The upstream reset it.
    UpstreamReset,
    /// The kernel found the upstream's host silent (keepalive, user timeout).
    UpstreamTimeout,
    /// Its upstream is Down, that is, silent while others answer.
    MemberSilent,
    /// Its member is alive but cut off from etcd: the client is moved to another.
    MemberStranded,
    /// Its member is being removed.
    MemberDrained,
    /// This proxy ends.
    ProxyDrained,
    /// No upstream could be reached.
    NoUpstream,
    /// The proxy holds as many connections as are allowed.
    Shed,
    /// The client is not on this node's loopback.
    NotLoopback,
    /// The task was dropped half way, because this proxy was aborted.
    Aborted,
}

impl Ending {
    /// The word for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Finished => "Finished",
            Self::ClientLeft => "ClientLeft",
            Self::ClientSilent => "ClientSilent",
            Self::UpstreamReset => "UpstreamReset",
            Self::UpstreamTimeout => "UpstreamTimeout",
            Self::MemberSilent => "MemberSilent",
            Self::MemberStranded => "MemberStranded",
            Self::MemberDrained => "MemberDrained",
            Self::ProxyDrained => "ProxyDrained",
            Self::NoUpstream => "NoUpstream",
            Self::Shed => "Shed",
            Self::NotLoopback => "NotLoopback",
            Self::Aborted => "Aborted",
        }
    }

    /// Whether the other side gets a reset, as it would without a proxy, and not an orderly end.
    pub fn resets(self) -> bool {
        match self {
            Self::Finished | Self::MemberStranded | Self::MemberDrained | Self::ProxyDrained => false,
            Self::ClientLeft
            | Self::ClientSilent
            | Self::UpstreamReset
            | Self::UpstreamTimeout
            | Self::MemberSilent
            | Self::NoUpstream
            | Self::Shed
            | Self::NotLoopback
            | Self::Aborted => true,
        }
    }
}
