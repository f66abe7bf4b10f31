//! The last resort: upstreams that get connections only while nothing else is usable.

use std::time::Duration;

/// How long nobody of the current document must have answered before members of earlier ones are tried: a rolling
/// restart or a change of leader is over by then.
pub const LAST_RESORT_AFTER: Duration = Duration::from_secs(5);
