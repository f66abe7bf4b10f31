//! Traffic as a sign of life: a path whose clients get replies is slow, not silent, and slowness cuts nothing.

use std::time::Duration;

use tokio::time::Instant;

/// For how long replies excuse a path that answers no probe. An apiserver that is short of CPU answers within it. Past it
/// replies may mislead: a path that drops large packets lets small ones pass, and slow clients take the last bytes of a hung
/// apiserver out of the kernels' buffers for minutes.
const EXCUSED_FOR: Duration = Duration::from_secs(3);

/// The replies of one path, and how long they have excused it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Traffic {
    replied: Option<Instant>,
    excused_since: Option<Instant>,
}

impl Traffic {
    /// A client that had waited got a reply at `at`.
    pub(super) fn reply(&mut self, at: Instant) {
        self.replied = self.replied.max(Some(at));
    }

    /// A probe was answered.
    pub(super) fn answer(&mut self) {
        self.excused_since = None;
    }

    /// Whether a reply shows that the path is alive though it has not answered the probe that was sent at `asked`.
    pub(super) fn excuses(&mut self, asked: Instant, now: Instant) -> bool {
        if self.replied.is_none_or(|at| at < asked) {
            return false;
        }
        let since = *self.excused_since.get_or_insert(asked);
        now.saturating_duration_since(since) < EXCUSED_FOR
    }
}
