//! A node was off while all members were replaced (F15): an earlier document on its disk may name one that runs, or an endpoint
//! of the document be one; else the proxy says so once.

use anyhow::Result;
use tokio::time::{Instant, sleep};
use trivet_instruments::promptly;
use trivet_lab::{Authority, Dates, Fault, Lab, Place};

use crate::support::{SECOND, assert_all_reset, empty};

#[test]
fn usable_within_15_s() -> Result<()> {
    empty(4, async |lab| {
        lab.start_apiservers(4, SECOND).await?;
        lab.write(
            &lab.pool()
                .revision(1)
                .member(Place::Member(1))
                .member(Place::Member(2)),
        )?;
        lab.start_proxy()?;
        lab.proxy().comes_to_remember("cp2").await?;
        // Two later documents, neither of which names the member that will run.
        lab.write(
            &lab.pool()
                .revision(2)
                .member(Place::Member(1))
                .member(Place::Member(3)),
        )?;
        lab.proxy().comes_to_remember("cp3").await?;
        lab.write(
            &lab.pool()
                .revision(3)
                .member(Place::Member(3))
                .member(Place::Member(4)),
        )?;
        lab.proxy().comes_to_remember("cp4").await?;
        lab.take_proxy()?.kill().await?;
        lab.take_document_away()?;
        for index in [0, 2, 3] {
            lab.apiservers[index].kill().await?;
        }
        is_used_after_a_start(lab, "cp2").await
    })
}

/// Starts the proxy with what is on its disk, and waits for a client that this apiserver serves.
async fn is_used_after_a_start(lab: &mut Lab, apiserver: &str) -> Result<()> {
    lab.start_proxy()?;
    let started = Instant::now();
    let client = lab.client();
    let usable = async || client.who().await.is_ok_and(|name| name == apiserver);
    let at = promptly(15 * SECOND, &format!("{apiserver} is used"), usable).await?;
    println!("usable after {:?}", at - started);
    Ok(())
}

#[test]
fn an_endpoint_is_usable_within_15_s_and_a_stranger_never() -> Result<()> {
    empty(3, async |lab| {
        lab.start_apiservers(3, SECOND).await?;
        let other = Authority::new()?.sign(lab.disk(), "other", Dates::Good)?;
        lab.apiservers[1].show(other).await?;
        let pool = lab.pool().member(Place::Member(1));
        lab.write(&pool.endpoint(Place::Member(2)).endpoint(Place::Member(3)))?;
        lab.start_proxy()?;
        lab.proxy().comes_to_remember("cp1").await?;
        lab.take_proxy()?.kill().await?;
        lab.take_document_away()?;
        // Its silence is noticed later than a refusal.
        lab.strike(Place::Member(1), Fault::Blackhole).await?;
        is_used_after_a_start(lab, "cp3").await?;
        let attempts = lab.attempts();
        sleep(2 * SECOND).await;
        let record = attempts.finish().await?;
        println!("{record}");
        assert_eq!(record.answered_by("cp3"), record.attempts().len());
        assert_eq!(
            lab.apiservers[1].counts().await?.requests,
            0,
            "a stranger got a client"
        );
        Ok(())
    })
}

#[test]
fn where_nothing_is_left_clients_are_reset_and_one_line_says_so() -> Result<()> {
    empty(4, async |lab| {
        lab.start_apiservers(4, SECOND).await?;
        lab.write(&lab.pool().revision(1).member(Place::Member(1)))?;
        lab.start_proxy()?;
        lab.proxy().comes_to_remember("cp1").await?;
        let pool = lab.pool().revision(2).member(Place::Member(2));
        lab.write(&pool.member(Place::Member(3)).endpoint(Place::Member(4)))?;
        for member in ["cp2", "cp3"] {
            lab.proxy().comes_to_remember(member).await?;
        }
        lab.take_proxy()?.kill().await?;
        lab.take_document_away()?;
        lab.apiservers[0].kill().await?;
        for index in 2..=4 {
            lab.strike(Place::Member(index), Fault::Blackhole).await?;
        }
        lab.start_proxy()?;
        let line = "trivet_proxy_warning{reason=\"NoMemberAnswers\"}";
        let told = async || lab.proxy().metric(line).await == Some(1);
        promptly(15 * SECOND, "it is told", told).await?;
        let told = Instant::now();
        let attempts = lab.attempts_at("/whoami", 10);
        sleep(10 * SECOND).await;
        let record = attempts.finish().await?.since(told);
        println!("{record}");
        assert_all_reset(&record, 2 * SECOND);

        let log = lab.proxy_log();
        let lines: Vec<_> = log
            .lines()
            .filter(|line| line.contains("NoMemberAnswers"))
            .collect();
        assert_eq!(lines.len(), 1, "{lines:?}");
        for tried in [
            "cp1 ",
            "cp2 ",
            "cp3 ",
            "endpoint-10.77.0.14 ",
            "point its kubelet at one of them",
        ] {
            assert!(lines[0].contains(tried), "{tried} is not in {}", lines[0]);
        }
        Ok(())
    })
}
