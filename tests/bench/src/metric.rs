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
                 proxy here makes. A thread without timers, whose waits set none in the kernel, saved 2 % and cost 11 % of \
                 connect, byte, close; mimalloc instead of musl's allocator saved nothing",
            ),
            Self::BulkCpu => Some(
                "98 % of it (perf) are in the kernel, in copying and in TCP's own work. Slices of 2 MiB cost 8 % less, but small \
                 requests waited 2.7 times as long (p99 beside lists): only splice, which copies nothing, is left",
            ),
            Self::EchoAdded => Some(
                "96 % of it (perf) are in the kernel, as of nginx's: a message costs an epoll_wait, a recv, a send and, as all \
                 share a CPU, a switch; how many switches the scheduler makes differs between peers and runs (0.7 to 1.3 a round \
                 trip)",
            ),
            Self::ChurnCpu => Some(
                "94 % of it (perf) are in the kernel, half of that in the packets of two handshakes and two ends. It sleeps three \
                 times a connection, as the bare loop does: nginx does not wait for the server's end, haproxy comes later and \
                 finds more at once. Beyond the bare loop there are four options for keepalive (2 µs), user space (6 % \
                 of it, perf), two epoll_ctl, a getsockopt and a recv in vain",
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
