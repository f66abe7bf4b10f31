//! A proxy that starts while no member runs (O8): it resets kubelet's connections within two seconds. Kubelet then starts
//! its static pods, perhaps among them the etcd and the apiserver that repair the cluster.

use anyhow::Result;
use tokio::time::{Instant, sleep};
use trivet_lab::{Fault, Lab, Place};

use crate::support::{SECOND, assert_all_reset, empty};

fn starts_in_the_dark(kill: impl AsyncFnOnce(&mut Lab) -> Result<()> + Send + 'static) -> Result<()> {
    empty(3, async move |lab| {
        lab.start_apiservers(3, SECOND).await?;
        lab.serve().await?;
        // The node's disk has the document and the proofs; then the power fails.
        lab.take_proxy()?.kill().await?;
        kill(lab).await?;
        lab.start_proxy()?;
        let line = "trivet_proxy_listener_bound{listener=\"127.0.0.1:7443\"}";
        let bound = async || lab.proxy().metric(line).await == Some(1);
        trivet_instruments::promptly(10 * SECOND, "the proxy listens", bound).await?;
        let listening = Instant::now();
        let attempts = lab.attempts_at("/whoami", 10);
        sleep(4 * SECOND).await;
        let record = attempts.finish().await?.since(listening);
        println!("{record}");
        assert_all_reset(&record, 2 * SECOND);
        Ok(())
    })
}

#[test]
fn where_all_refuse() -> Result<()> {
    starts_in_the_dark(async |lab| {
        for apiserver in &mut lab.apiservers {
            apiserver.kill().await?;
        }
        Ok(())
    })
}

#[test]
fn where_all_are_silent() -> Result<()> {
    starts_in_the_dark(async |lab| {
        for index in 1..=3 {
            lab.strike(Place::Member(index), Fault::Blackhole).await?;
        }
        Ok(())
    })
}
