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
                "nine tenths of it (perf, beside nginx) are in the kernel, in the epoll_wait, recv and send of each message, \
                 which every proxy here makes; a relay in user space can only win in the last tenth",
            ),
            Self::BulkCpu => Some(
                "98 % of it (perf) are in the kernel, in copying and in TCP's own work; a scratch of 512 KiB instead of 256 brings \
                 5 %, and only splice, which copies nothing, could bring much more",
            ),
            Self::EchoAdded => Some(
                "no profile of its own: a message costs the same epoll_wait, recv and send as a small request, nine tenths of \
                 which are in the kernel",
            ),
            Self::ChurnCpu => Some(
                "94 % of it (perf) are in the kernel; it sleeps 2.9 times a connection where haproxy sleeps 1.2 times (context \
                 switches of schedstat), and sets five options and four epoll interests on its two sockets",
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
