//! Memory under churn (O12): connections that come and go leave nothing behind.

use anyhow::Result;
use tokio::{
    net::TcpStream,
    time::{Instant, interval, sleep},
};
use trivet_lab::Lab;

use crate::support::{SECOND, serving};

/// More than the fluctuation of an allocator, but a tenth of the leak if 10,000 connections each leaked a 16 KiB first
/// flight.
const SLACK: u64 = 2 << 20;

/// Whole hours of churn, a day unless `TRIVET_CHURN_HOURS` says otherwise.
const HOURS: u32 = 24;

/// For so many seconds, opens connections that end without sending a byte, and sends whole requests.
async fn churn(lab: &Lab, seconds: u32) -> Result<usize> {
    let attempts = lab.attempts_at("/whoami", 40);
    let began = Instant::now();
    let mut clock = interval(SECOND / 400);
    let mut opened = 0;
    while began.elapsed() < seconds * SECOND {
        clock.tick().await;
        drop(TcpStream::connect(("127.0.0.1", 7443)).await?);
        opened += 1;
    }
    Ok(opened + attempts.finish().await?.attempts().len())
}

#[test]
fn after_thousands_of_connections() -> Result<()> {
    serving(3, async |lab| {
        // Metrics, buffers and the allocator's arenas come first.
        churn(lab, 6).await?;
        sleep(SECOND).await;
        let before = lab.proxy().usage()?.memory;
        let opened = churn(lab, 15).await?;
        sleep(SECOND).await;
        let after = lab.proxy().usage()?.memory;
        println!("{opened} connections: from {before} to {after} bytes");
        assert!(
            after <= before + SLACK,
            "{opened} connections: from {before} to {after} bytes"
        );
        Ok(())
    })
}

#[test]
#[ignore = "a day; `cargo xtask soak` runs it"]
#[allow(clippy::disallowed_methods, reason = "a test has no command line of its own")]
fn after_a_day_of_connections() -> Result<()> {
    let told = std::env::var("TRIVET_CHURN_HOURS").ok();
    let hours = told.map_or(Ok(HOURS), |hours| hours.parse())?;
    serving(3, async move |lab| {
        churn(lab, 60).await?;
        sleep(SECOND).await;
        let before = lab.proxy().usage()?.memory;
        for minute in 1..=hours * 60 {
            let opened = churn(lab, 60).await?;
            let now = lab.proxy().usage()?.memory;
            println!("minute {minute}: {opened} connections, {now} bytes");
            // Meanwhile some are open; the bound without them is asserted at the end.
            assert!(now <= before + 2 * SLACK, "from {before} to {now} bytes");
        }
        sleep(SECOND).await;
        let after = lab.proxy().usage()?.memory;
        assert!(after <= before + SLACK, "from {before} to {after} bytes");
        Ok(())
    })
}
