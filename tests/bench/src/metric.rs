//! What is measured: one number a peer and a repetition.

use serde::Serialize;

/// One measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) enum Metric {
    BulkCpu,
    BulkRate,
    ListCpu,
    ListRate,
    EchoMedian,
    EchoAdded,
    RequestCpu,
    ChurnCpu,
    NoisyTail,
    BaseMemory,
    IdleMemory,
    LeftMemory,
    KeptMemory,
    IdleFiles,
}

impl Metric {
    pub(crate) const ALL: [Self; 14] = [
        Self::BulkCpu,
        Self::BulkRate,
        Self::ListCpu,
        Self::ListRate,
        Self::EchoMedian,
        Self::EchoAdded,
        Self::RequestCpu,
        Self::ChurnCpu,
        Self::NoisyTail,
        Self::BaseMemory,
        Self::IdleMemory,
        Self::LeftMemory,
        Self::KeptMemory,
        Self::IdleFiles,
    ];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::BulkCpu => "bulk, one stream: CPU per GB",
            Self::BulkRate => "bulk, one stream: throughput",
            Self::ListCpu => "HTTP/2 + TLS lists of 20 MiB: CPU per GB",
            Self::ListRate => "HTTP/2 + TLS lists of 20 MiB: throughput",
            Self::EchoMedian => "64 B round trip: p50",
            Self::EchoAdded => "64 B round trip: p50 added to direct",
            Self::RequestCpu => "small HTTP/2 + TLS request: CPU",
            Self::ChurnCpu => "connect, byte, close: CPU",
            Self::NoisyTail => "small request while others list at 4 Gb/s: p99",
            Self::BaseMemory => "base memory (PSS)",
            Self::IdleMemory => "user memory per idle connection",
            Self::LeftMemory => "memory once all connections have closed (PSS)",
            Self::KeptMemory => "of that more than before the first",
            Self::IdleFiles => "files per idle connection",
        }
    }

    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::BulkCpu | Self::ListCpu => "s/GB",
            Self::BulkRate | Self::ListRate => "GB/s",
            Self::EchoMedian | Self::EchoAdded | Self::RequestCpu | Self::ChurnCpu => "µs",
            Self::NoisyTail => "ms",
            Self::BaseMemory | Self::LeftMemory | Self::KeptMemory => "MiB",
            Self::IdleMemory => "KB",
            Self::IdleFiles => "",
        }
    }

    /// Whether more is better.
    pub(crate) fn rises(self) -> bool {
        matches!(self, Self::BulkRate | Self::ListRate)
    }

    /// Why a target of this measure is missed, where a profile has told.
    pub(crate) fn known_cause(self) -> Option<&'static str> {
        match self {
            Self::RequestCpu => Some(
                "93 % of it (perf, beside nginx) are in the kernel, in the epoll_wait, recv and send of each message, which every \
                 proxy here makes; the rest is the runtime's way from the event to the relay",
            ),
            Self::BulkCpu => Some(
                "98 % of it (perf) are in the kernel, in copying and in TCP's own work; larger slices would cost less (2 MiB: 0.92), \
                 but let small requests wait (p99 beside lists: 2.7 times), so only splice, which copies nothing, is left",
            ),
            Self::EchoAdded => Some(
                "a message costs one epoll_wait, recv and send, as for all, and two wake-ups; what is ours is the runtime's way from \
                 the event to the relay",
            ),
            Self::ChurnCpu => Some(
                "94 % of it (perf) are in the kernel, half of that in the packets of two handshakes and two ends. It sleeps three times \
                 a connection, as the bare loop does: nginx does not wait for the server's end, haproxy is later and finds more at \
                 once. Ours are the keepalive options, the timers of a dial and the tasks",
            ),
            Self::BulkRate
            | Self::ListCpu
            | Self::ListRate
            | Self::EchoMedian
            | Self::NoisyTail
            | Self::BaseMemory
            | Self::IdleMemory
            | Self::LeftMemory
            | Self::KeptMemory
            | Self::IdleFiles => None,
        }
    }
}
