//! Whether this process has a file left. Without one it accepts nobody, and its warning says so.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, MissedTickBehavior, interval};
use trivet_crds::report::FILES_EXHAUSTED;

use crate::{
    listener::Listeners,
    net::spare,
    warnings::{Topic, Warnings},
};

/// The pause between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// For how long there must be files before the warning ends: clients that come and go free one now and then.
const LEFT_FOR: Duration = Duration::from_secs(30);

/// Looks without end. `limit` is that of the process.
pub async fn watch(listeners: Arc<Listeners>, warnings: Arc<Warnings>, limit: u64) {
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last: Option<Instant> = None;
    loop {
        looks.tick().await;
        if !spare::fill() || listeners.sockets().is_exhausted() {
            last = Some(Instant::now());
            let message = format!(
                "all {limit} files that this proxy may open are open, and no client is accepted: see which they are in /proc/PID/fd; raise the limit if they are connections"
            );
            warnings.raise(Topic::Files, FILES_EXHAUSTED, message);
        } else if last.is_none_or(|last| last.elapsed() >= LEFT_FOR) {
            warnings.clear(Topic::Files);
        }
    }
}
