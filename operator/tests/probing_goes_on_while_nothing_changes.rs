//! The prober's rounds go on whether or not they bring news: a member that changes later must still be noticed.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Uri;
use kube::Config;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use trivet_operator::api::client::Access;
use trivet_operator::prober::Prober;

#[tokio::test(start_paused = true)]
async fn a_round_without_news_is_followed_by_the_next() {
    let mut config = Config::new(Uri::from_static("https://unused"));
    config.root_cert = Some(Vec::new());
    let access = Access::try_new(config).unwrap();
    let (prober, _news) = Prober::new(access);
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
