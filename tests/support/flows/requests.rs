//! Small requests at a steady rate on one connection.

use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use trivet_instruments::Client;
use trivet_testbed::Host;

use super::flow::{Begun, Seen, tell};
use crate::keep_alive::KeepAlive;

/// Fifty requests a second.
const PERIOD: Duration = Duration::from_millis(20);

/// Starts to ask from a host until told to stop.
pub(super) async fn start(host: &Host, client: Client, stop: CancellationToken) -> Result<Begun> {
    Begun::start(host, move |opened| async move {
        let mut connection = KeepAlive::open(&client).await?;
        connection.ask().await?;
        let server = connection.server.clone();
        tell(opened, &server)?;

        let (mut answers, mut longest_pause, mut asked) = (0_u32, Duration::ZERO, None);
        let until_it_fails = async {
            let mut clock = interval(PERIOD);
            clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                clock.tick().await;
                let begun = *asked.insert(Instant::now());
                let outcome = connection.ask().await;
                asked = None;
                longest_pause = longest_pause.max(begun.elapsed());
                match outcome {
                    Ok(()) => answers += 1,
                    Err(error) => return format!("{error:#}"),
                }
            }
        };
        let broken = stop.run_until_cancelled(until_it_fails).await;
        // An answer that never comes is a pause to the last.
        let unanswered = asked.map(|asked: Instant| asked.elapsed());
        let longest_pause = longest_pause.max(unanswered.unwrap_or_default());
        Ok(Seen {
            carried: format!("{answers} answers by {server}"),
            longest_pause,
            broken,
        })
    })
    .await
}
