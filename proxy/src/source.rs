//! What brings a document to the proxy.

/// What brought a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// The file named on the command line, in a cluster the mounted ConfigMap.
    File,
    /// This node's disk.
    Cache,
    /// The ConfigMap, through the API.
    Watch,
    /// What the process was started with, for its first start on a node. Every other source comes before it.
    Seed,
    /// The process of this node that serves.
    Handover,
}

impl Source {
    /// All of them, in the order of the metric.
    pub const ALL: [Self; 5] = [Self::File, Self::Cache, Self::Watch, Self::Seed, Self::Handover];

    /// The word for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "File",
            Self::Cache => "Cache",
            Self::Watch => "Watch",
            Self::Seed => "Seed",
            Self::Handover => "Handover",
        }
    }
}
