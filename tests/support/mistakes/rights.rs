//! The operator loses its rights in the middle of its work, and gets them back.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use tokio::time::Instant;
use trivet_instruments::eventually;

use super::Mistakes;
use crate::installation::NAMESPACE;
use crate::rights_revoked::OF_OPERATOR;
use crate::say::say;

/// It asks for its Lease every two seconds.
const NOTICED: Duration = Duration::from_secs(15);

/// Without a renewal it leads for ten seconds.
const STEPS_DOWN: Duration = Duration::from_secs(30);

/// kubelet asks an operator whether it is ready every two seconds, and gives it three attempts.
const SHOWN: Duration = Duration::from_secs(20);

/// The hedge delay of an edit that nobody may obey at first.
const EDITED: u32 = 350;

impl Mistakes<'_> {
    /// An operator without rights says so, changes nothing, and obeys an edit soon after it has them again, in the same process.
    pub(super) async fn rights_revoked(&mut self) -> Result<()> {
        let before = self.in_force().await?;
        let leader = self.installation.leader().await?;
        let restarts = self.restarts(&leader.pod).await?;
        OF_OPERATOR.revoke(self.installation).await?;
        let begun = Instant::now();
        let words = eventually(NOTICED, "the operator says that it is not ready", async || {
            let (code, words) = self.installation.ask_operator(&leader.pod, "/readyz").await?;
            ensure!(code == "503" && words.contains("Lease: "), "{code}: {words}");
            Ok(words)
        })
        .await?;
        let told = begun.elapsed();
        ensure!(words.contains("is forbidden"), "{words}");
        self.edit(json!({ "connection": { "hedgeDelayMilliseconds": EDITED } }))
            .await?;
        let tools = self.installation.tools();
        eventually(SHOWN, "no operator available", async || {
            let available = format!(
                "get deployment trivet-operator --namespace {NAMESPACE} --output=jsonpath={{.status.availableReplicas}}"
            );
            let available = tools.kubectl(&available).await?;
            ensure!(available.is_empty(), "{available} are");
            Ok(())
        })
        .await?;
        eventually(STEPS_DOWN, "an operator that leads no longer", async || {
            let logs = format!("logs --namespace {NAMESPACE} --since=60s {}", leader.pod);
            let log = tools.kubectl(&logs).await?;
            ensure!(log.contains("this operator has lost the Lease"), "{log}");
            ensure!(log.contains("no part in the election"), "{log}");
            Ok(())
        })
        .await?;
        // What the alert TrivetNoLeader looks at.
        let (_, metrics) = self.installation.ask_operator(&leader.pod, "/metrics").await?;
        ensure!(metrics.contains("\ntrivet_operator_leader 0\n"), "{metrics}");
        self.still(&before).await?;

        let lasted = begun.elapsed();
        OF_OPERATOR.give_back(self.installation).await?;
        let given_back = Instant::now();
        self.documents
            .until(STEPS_DOWN, |document| {
                document.connection.hedge_delay_milliseconds == EDITED
            })
            .await?;
        self.explained += 1;
        let obeyed = given_back.elapsed();
        eventually(SHOWN, "an operator that is ready", async || {
            let (code, words) = self.installation.ask_operator(&leader.pod, "/readyz").await?;
            ensure!(code == "200", "{code}: {words}");
            Ok(())
        })
        .await?;
        let now = self.restarts(&leader.pod).await?;
        ensure!(
            now == restarts,
            "{} has had {restarts} restarts, and now {now}",
            leader.pod
        );
        say(format!(
            "the operator's rights revoked for {:.0} s: told after {:.1} s ({words}); the edit of meanwhile obeyed {:.1} s after \
             they were given back",
            lasted.as_secs_f32(),
            told.as_secs_f32(),
            obeyed.as_secs_f32()
        ));
        Ok(())
    }

    async fn restarts(&self, pod: &str) -> Result<String> {
        let restarts = format!(
            "get pod {pod} --namespace {NAMESPACE} --output=jsonpath={{.status.containerStatuses[0].restartCount}}"
        );
        self.installation.tools().kubectl(&restarts).await
    }
}
