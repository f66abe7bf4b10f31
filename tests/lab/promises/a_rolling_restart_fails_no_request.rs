//! All members restart, one after another, each with a shutdown delay of five seconds (F5).

use anyhow::Result;
use tokio::time::{Instant, sleep};

use crate::support::{SECOND, WARM_UP, assert_none_failed, serving};

#[test]
fn nor_cuts_what_the_apiserver_has_not_ended() -> Result<()> {
    serving(3, async |lab| {
        let began = Instant::now();
        let attempts = lab.attempts();
        // Each is under way for three seconds, some of them when the listener closes.
        let long = lab.attempts_at("/slow", 2);
        let watches = lab.watches(6).await;
        sleep(WARM_UP).await;
        for index in 0..3 {
            lab.apiservers[index].drain().await?;
            lab.apiservers[index].restart().await?;
            let name = lab.apiservers[index].name().to_owned();
            lab.proxy().comes_to_see(&name, "Up").await?;
        }
        sleep(SECOND).await;
        let (record, long) = (attempts.finish().await?, long.finish().await?);
        println!("{record}\nlong ones: {long}");
        assert_none_failed(&record);
        assert_none_failed(&long);
        let ended = watches.ended_since(began);
        assert!(
            ended.len() >= 6,
            "every watch loses its apiserver once: {}",
            ended.len()
        );
        for stay in ended {
            assert!(matches!(stay.end, Some((_, Ok(())))), "{stay:?}");
        }
        Ok(())
    })
}
