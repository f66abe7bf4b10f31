//! The seed: a document that the process is started with, so that a node has one before it has a disk, an apiserver or a
//! cluster. `trivet-proxy manifest` puts it into the manifest of a static pod.

use std::fmt;

/// The text of the seed.
#[derive(Clone, PartialEq, Eq)]
pub struct Seed(String);

impl Seed {
    /// A seed with this text, which is checked when it is offered: a seed that cannot be followed is rejected like the
    /// document of any other source, because the node may have another one.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.0
    }
}

/// Without the text, which would fill the log.
impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}
