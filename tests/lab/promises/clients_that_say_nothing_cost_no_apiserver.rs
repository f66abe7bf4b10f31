//! Clients that send nothing (F25): a TCP check costs no apiserver a connection, and silent clients that hold slots do not
//! keep out other clients.

use std::io::ErrorKind;

use anyhow::{Context, Result};
use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    time::{Instant, sleep, timeout},
};
use trivet_instruments::promptly;
use trivet_lab::Lab;

use crate::support::{SECOND, WARM_UP, assert_none_failed, assert_none_slower, empty, serving};

const PROXY: (&str, u16) = ("127.0.0.1", 7443);

/// Connections that the members have accepted.
async fn accepted(lab: &mut Lab) -> Result<u64> {
    let mut sum = 0;
    for apiserver in &mut lab.apiservers {
        sum += apiserver.counts().await?.connections;
    }
    Ok(sum)
}

#[test]
fn tcp_checks() -> Result<()> {
    serving(3, async |lab| {
        // The proxy's own connections are made by now; its probes keep theirs.
        sleep(WARM_UP).await;
        let (before, finished) = (accepted(lab).await?, lab.proxy().ended("Finished").await);
        for _ in 0..20 {
            drop(TcpStream::connect(PROXY).await?);
        }
        let ended = async || lab.proxy().ended("Finished").await >= finished + 20;
        promptly(5 * SECOND, "the checks have ended", ended).await?;
        let cost = accepted(lab).await? - before;
        assert_eq!(cost, 0, "20 TCP checks cost the members {cost} connections");
        assert!(
            lab.client().who().await?.starts_with("cp"),
            "who speaks is served"
        );
        Ok(())
    })
}

#[test]
fn slot_hogs() -> Result<()> {
    // The fewest that a document may ask for.
    const SLOTS: u32 = 64;
    empty(3, async |lab| {
        lab.start_apiservers(3, SECOND).await?;
        lab.write(&lab.whole_pool().max_connections(SLOTS))?;
        lab.start_proxy()?;
        for index in 0..3 {
            let name = lab.apiservers[index].name().to_owned();
            lab.proxy().comes_to_see(&name, "Up").await?;
        }
        promptly(10 * SECOND, "the proxy listens", async || {
            lab.client().who().await.is_ok()
        })
        .await?;
        let started = Instant::now();
        let mut hogs = Vec::new();
        for _ in 0..SLOTS * 2 {
            hogs.push(TcpStream::connect(PROXY).await?);
        }
        let attempts = lab.attempts();
        sleep(4 * SECOND).await;
        let record = attempts.finish().await?;
        println!("beside {} silent clients: {record}", hogs.len());
        assert_none_failed(&record);
        assert_none_slower(&record, SECOND);
        assert_eq!(lab.proxy().ended("Shed").await, 0);
        // The youngest silent client keeps its slot for the longest time.
        let mut youngest = hogs.pop().context("no hog")?;
        let end = timeout(20 * SECOND, youngest.read(&mut [0])).await?;
        let told = started.elapsed();
        println!("the last silent client was ended after {told:?}: {end:?}");
        assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert!(told <= 11 * SECOND + record.machine(), "{told:?}");
        Ok(())
    })
}
