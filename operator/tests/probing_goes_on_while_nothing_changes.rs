//! The prober's rounds go on whether or not they bring news: a member that changes later must still be noticed.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use trivet_operator::prober::Prober;

#[tokio::test(start_paused = true)]
async fn a_round_without_news_is_followed_by_the_next() {
    let (prober, _news) = Prober::new();
    let rounds = AtomicUsize::new(0);
    let shutdown = CancellationToken::new();
    let count = || {
        rounds.fetch_add(1, Ordering::Relaxed);
    };
    tokio::select! {
        () = prober.run(shutdown.clone(), count) => {}
        () = sleep(Duration::from_secs(60)) => {}
    }
    assert!(rounds.load(Ordering::Relaxed) > 10, "{rounds:?}");
}
