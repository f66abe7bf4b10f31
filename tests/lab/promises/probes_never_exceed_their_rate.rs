//! Probes during a partial outage (O14): each member gets no more than at rest, and one request of a kind at a time.

use anyhow::Result;
use tokio::time::{Instant, sleep};
use trivet_lab::{
    Fault, Place,
    behaviour::{Counts, Readiness},
};

use crate::support::{SECOND, WARM_UP, serving};

const LOOK_ON: u32 = 12;

/// One a second with jitter of a tenth, one extra probe of a suspect member every ten seconds, and one at each end.
fn most_questions(seconds: f64) -> f64 {
    seconds / 0.9 + seconds / 10.0 + 2.0
}

#[test]
fn nor_are_two_of_a_kind_in_flight() -> Result<()> {
    serving(4, async |lab| {
        let attempts = lab.attempts();
        sleep(WARM_UP).await;
        lab.apiservers[1].kill().await?;
        lab.strike(Place::Member(3), Fault::Blackhole).await?;
        lab.apiservers[3]
            .behave(|behaviour| behaviour.readiness = Readiness::without_etcd())
            .await?;
        let struck = Instant::now();
        let (well, late) = (
            lab.apiservers[0].counts().await?,
            lab.apiservers[3].counts().await?,
        );
        sleep(LOOK_ON * SECOND).await;
        let (well, late) = (
            since(well, lab.apiservers[0].counts().await?),
            since(late, lab.apiservers[3].counts().await?),
        );
        let most = most_questions(struck.elapsed().as_secs_f64());
        println!("at most {most:.1}; the one that is well: {well:?}; the late one: {late:?}");
        drop(attempts.finish().await?);
        for counts in [well, late] {
            assert!(f64::from(u32::try_from(counts.readyz)?) <= most, "{counts:?}");
            assert!(f64::from(u32::try_from(counts.livez)?) <= most, "{counts:?}");
            assert!(
                counts.readyz_at_once <= 1 && counts.livez_at_once <= 1,
                "{counts:?}"
            );
        }
        assert!(
            late.livez > 0 && well.readyz >= 8,
            "nobody was probed: {well:?}, {late:?}"
        );
        Ok(())
    })
}

fn since(before: Counts, after: Counts) -> Counts {
    Counts {
        readyz: after.readyz - before.readyz,
        livez: after.livez - before.livez,
        requests: after.requests - before.requests,
        ..after
    }
}
