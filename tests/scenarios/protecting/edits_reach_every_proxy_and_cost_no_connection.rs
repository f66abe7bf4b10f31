//! Members come and go while clients connect: every proxy follows within two seconds, none restarts, no
//! connection fails. A master joins while the operator rejects the spec. A paused pool stays as it is. Masters are found by
//! EndpointSlices as well. Conditions and events say what happens.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::Instant;
use trivet_crds::pool::{MemberHealth, MemberSource, MemberStatus};
use trivet_crds::wire::{Document, MemberState};
use trivet_instruments::eventually;
use trivet_testbed::Host;
use trivet_tests::attempts::{self, LOOPBACKS};
use trivet_tests::documents::Documents;
use trivet_tests::installation::{Installation, POOL, condition};
use trivet_tests::observe::Observer;
use trivet_tests::pods::assert_untouched;
use trivet_tests::proxies::{all_follow, metrics};
use trivet_tests::say::say;

/// New connections a second from each of two nodes.
const RATE: u32 = 50;

/// From the change of the ConfigMap to every proxy's metrics.
const IN_STEP: Duration = Duration::from_secs(2);

/// From an edit to the ConfigMap; no promise, only the limit of this test: a machine may be busy, and the next operator may have
/// to start.
const WRITTEN: Duration = Duration::from_secs(90);

/// Two good probes, one a second, and some slack for a busy machine.
const PROVEN: Duration = Duration::from_secs(15);

/// From an edit until the last node has reported that it follows.
const SYNCED: &str = "90s";

/// A joining master takes half a minute.
const JOINED: Duration = Duration::from_secs(150);

/// A scenario that edits the pool and counts what it cost.
struct Edits {
    installation: Installation,
    documents: Documents,
    /// The nodes that are there from the first edit to the last.
    hosts: Vec<Host>,
    lags: Vec<(String, Duration)>,
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_edits_reach_every_proxy_and_no_connection_fails() -> Result<()> {
    let installation = Installation::protecting().await?.told().await?;
    let (hosts, workers) = (installation.hosts(), installation.workers());
    let documents = Documents::watch(installation.kubernetes("cp1").await?);
    let mut edits = Edits {
        installation,
        documents,
        hosts,
        lags: Vec::new(),
    };
    edits.shorten_removal().await?;
    let before = edits.installation.proxies("cp1").await?;
    let observer = Observer::start(edits.installation.kubernetes("cp1").await?).await?;
    let client = edits.installation.client()?;
    let attempts: Vec<_> = workers
        .iter()
        .zip(LOOPBACKS)
        .map(|(worker, loopback)| attempts::start(worker, &client, loopback, RATE))
        .collect();

    let outcome = edits.all().await;

    // Counted also when an edit failed: what it cost is part of the answer.
    let now = edits.installation.proxies("cp1").await?;
    let history = observer.finish();
    for (worker, attempts) in workers.iter().zip(attempts) {
        let record = attempts.finish().await?;
        let (name, failed, slow) = (worker.name().to_string(), record.failed(), record.slow());
        say(format!(
            "{name}: {} of {} connections failed, {} slower than 1 s, oldest Lease {:.1} s",
            failed.len(),
            record.attempts().len(),
            slow.len(),
            history.worst_lease_gap(&name).as_secs_f32()
        ));
        let shown = failed.iter().take(5).chain(slow.first()).chain(slow.last());
        shown.for_each(|attempt| say(format!("  {attempt}")));
        record.all_succeeded(&name)?;
        ensure!(
            history.worst_lease_gap(&name) <= Duration::from_secs(15),
            "{name}'s Lease was late"
        );
        ensure!(history.left_ready(&name).is_none(), "{name} left Ready");
    }
    outcome?;
    assert_untouched(&before, &now)?;
    assert!(
        edits.lags.len() >= 20,
        "only {} edits were made",
        edits.lags.len()
    );
    for (edit, lag) in &edits.lags {
        assert!(*lag <= IN_STEP, "{edit}: the last proxy followed after {lag:?}");
    }
    Ok(())
}

impl Edits {
    async fn all(&mut self) -> Result<()> {
        for round in 1..=5 {
            if round == 3 {
                self.kill_the_operator().await?;
            }
            self.member_comes_and_goes().await?;
        }
        self.set_aside_and_back().await?;
        self.waited_for(300).await?;
        self.nothing_while_paused(350).await?;
        self.names_are_missing().await?;
        self.found_by_endpoints().await?;
        let since = Timestamp::now();
        self.master_comes_and_goes().await?;
        self.events_tell(since).await?;
        let worst = self.lags.iter().max_by_key(|(_, lag)| *lag);
        let (edit, lag) = worst.context("no edit was made")?;
        say(format!(
            "{} edits; the slowest to reach every proxy took {} ms ({edit})",
            self.lags.len(),
            lag.as_millis()
        ));
        Ok(())
    }

    /// The wire document does not show it, so it counts as no edit.
    async fn shorten_removal(&self) -> Result<()> {
        self.patch(json!({ "discovery": { "removalDelaySeconds": 5 } }))
            .await
    }

    /// The same apiserver as cp2's by another address, so that it answers as a further one would.
    async fn member_comes_and_goes(&mut self) -> Result<()> {
        let address = self.installation.cluster().host("cp2")?.ipv6();
        let entry =
            |state: &str| json!({ "members": [{ "name": "extra", "addresses": [address], "state": state }] });
        self.edit("extra added", entry("Active"), |document| {
            state(document, "extra") == Some(MemberState::Active)
        })
        .await?;
        self.used("extra").await?;
        self.edit("extra draining", entry("Draining"), |document| {
            state(document, "extra") == Some(MemberState::Draining)
        })
        .await?;
        self.edit("extra removed", json!({ "members": [] }), |document| {
            state(document, "extra").is_none()
        })
        .await
    }

    /// An entry without addresses overrides the discovered member of its name.
    async fn set_aside_and_back(&mut self) -> Result<()> {
        let aside = json!({ "members": [{ "name": "cp3", "state": "Draining" }] });
        self.edit("cp3 draining", aside, |document| {
            state(document, "cp3") == Some(MemberState::Draining)
        })
        .await?;
        self.edit("cp3 active", json!({ "members": [] }), |document| {
            state(document, "cp3") == Some(MemberState::Active)
        })
        .await
    }

    /// `kubectl wait` for ConfigSynced returns once every proxy follows the edit that was made before.
    async fn waited_for(&mut self, hedge_delay: u32) -> Result<()> {
        let spec = json!({ "connection": { "hedgeDelayMilliseconds": hedge_delay } });
        let wanted = |document: &Document| document.connection.hedge_delay_milliseconds == hedge_delay;
        self.patch(spec).await?;
        let begun = Instant::now();
        let tools = self.installation.tools();
        let wait = format!("wait --for=condition=ConfigSynced asp/{POOL} --timeout={SYNCED}");
        let hosts = self.hosts.clone();
        let synced = async {
            tools.kubectl(&wait).await?;
            let took = begun.elapsed();
            let all = try_join_all(hosts.iter().map(metrics)).await?;
            anyhow::Ok((took, all))
        };
        let follow = async {
            let published = self.documents.until(WRITTEN, wanted).await?;
            let revision = published.document.revision;
            let last = all_follow(&hosts, revision, IN_STEP * 5).await?;
            let lag = last.duration_since(published.at);
            anyhow::Ok((revision, Duration::try_from(lag).unwrap_or_default()))
        };
        let ((took, all), (revision, lag)) = tokio::try_join!(synced, follow)?;
        let behind = all.iter().filter(|metrics| metrics.revision() < Some(revision));
        ensure!(behind.count() == 0, "ConfigSynced is True before all follow");
        say(format!(
            "`kubectl wait` for ConfigSynced returned after {:.1} s",
            took.as_secs_f32()
        ));
        self.note("a longer hedge delay", lag);
        Ok(())
    }

    /// An edit of a paused pool is seen, and obeyed only once the pool is managed again.
    async fn nothing_while_paused(&mut self, hedge_delay: u32) -> Result<()> {
        let before = self.installation.config_revision().await?;
        let connection = json!({ "hedgeDelayMilliseconds": hedge_delay });
        self.patch(json!({ "management": "Paused", "connection": connection }))
            .await?;
        let pools = self.installation.pools("cp1").await?;
        eventually(WRITTEN, "the pool paused", async || {
            let pool = pools.get(POOL).await?;
            let status = pool.status.unwrap_or_default();
            let accepted = condition(&status, "Accepted")?;
            ensure!(
                accepted.reason == "Paused" && accepted.observed_generation >= pool.metadata.generation,
                "{accepted:?}"
            );
            Ok(())
        })
        .await?;
        let now = self.documents.until(WRITTEN, |_| true).await?;
        let (now, paused) = (now.document.revision, self.installation.config_revision().await?);
        ensure!(
            now == before && paused == before,
            "a paused pool went from revision {before} to {now}, and tells {paused}"
        );
        self.edit("managed again", json!({ "management": null }), |document| {
            document.connection.hedge_delay_milliseconds == hedge_delay
        })
        .await
    }

    /// The endpoints of `default/kubernetes` instead of the nodes, and back: the same apiservers by the same names, because each
    /// endpoint is at the address of one node.
    async fn found_by_endpoints(&self) -> Result<()> {
        let nodes: BTreeSet<_> = self.installation.masters().into_iter().collect();
        for (policy, source) in [
            (json!("EndpointSlices"), MemberSource::EndpointSlice),
            (Value::Null, MemberSource::Node),
        ] {
            let discovery = json!({ "policy": policy });
            self.patch(json!({ "discovery": discovery })).await?;
            eventually(PROVEN, &format!("all masters by {source:?}"), async || {
                let members = self.installation.pool_status().await?.members;
                let names: BTreeSet<_> = members.iter().map(|member| member.name.clone()).collect();
                let is_it =
                    |member: &MemberStatus| member.source == source && member.health == MemberHealth::Up;
                ensure!(names == nodes && members.iter().all(is_it), "{members:?}");
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// Certificates as kubeadm makes them do not cover the listeners: the condition names both ways out, and is no part of Ready.
    async fn names_are_missing(&self) -> Result<()> {
        let words = [
            "cp1 (lacks ",
            "127.0.0.1",
            "tls-server-name: kubernetes",
            "certSANs",
        ];
        eventually(PROVEN, "the condition CertificateMatches", async || {
            let status = self.installation.pool_status().await?;
            let matches = condition(&status, "CertificateMatches")?;
            ensure!(
                matches.status == "False"
                    && matches.reason == "NamesMissing"
                    && words.iter().all(|word| matches.message.contains(word)),
                "{matches:?}"
            );
            Ok(())
        })
        .await
    }

    /// Events say which members came and went, and `kubectl describe` shows them.
    async fn events_tell(&self, since: Timestamp) -> Result<()> {
        let expected = [
            ("MemberAdded", "cp4 is a member since"),
            ("MemberRemoved", "cp4 is no longer a member since"),
        ];
        for (reason, words) in expected {
            self.installation.told_by_event(reason, words, since).await?;
        }
        let events = self.installation.described_events(POOL).await?;
        for (reason, words) in expected {
            let is_it = |line: &str| line.contains(reason) && line.contains(words);
            ensure!(events.lines().any(is_it), "{reason} is not in {events}");
        }
        Ok(())
    }

    /// The proxies are watched from the start: a master takes longer to join than they to follow. It joins while a typo in
    /// the proxies' scope is rejected.
    async fn master_comes_and_goes(&mut self) -> Result<()> {
        self.patch(json!({ "proxy": { "nodeSelector": { "kubernetes.io/oss": "linux" } } }))
            .await?;
        let joined = |document: &Document| state(document, "cp4") == Some(MemberState::Active);
        let follow = in_step(&mut self.documents, &self.hosts, JOINED, joined);
        let (added, lag) = tokio::join!(self.installation.add_master("cp4"), follow);
        added?;
        self.note("cp4 joined", lag?);
        self.used("cp4").await?;
        self.is_rejected("ScopeWouldShrink").await?;
        self.patch(json!({ "proxy": { "nodeSelector": null } })).await?;

        // As the documentation tells administrators: an apiserver that ends loses the requests that it is serving.
        let aside = json!({ "members": [{ "name": "cp4", "state": "Draining" }] });
        let draining = |document: &Document| state(document, "cp4") == Some(MemberState::Draining);
        self.edit("cp4 draining", aside, draining).await?;
        let gone = |document: &Document| state(document, "cp4").is_none();
        let follow = in_step(&mut self.documents, &self.hosts, JOINED, gone);
        let (removed, lag) = tokio::join!(self.installation.remove_master("cp4"), follow);
        removed?;
        self.note("cp4 removed", lag?);
        Ok(())
    }

    async fn is_rejected(&self, reason: &str) -> Result<()> {
        let pool = self.installation.pools("cp1").await?.get(POOL).await?;
        let status = pool.status.unwrap_or_default();
        let accepted = condition(&status, "Accepted")?;
        ensure!(
            accepted.status == "False"
                && accepted.reason == reason
                && accepted.observed_generation == pool.metadata.generation
                && accepted
                    .message
                    .contains("new masters that answer are still added"),
            "{accepted:?}"
        );
        Ok(())
    }

    /// Another one leads then; edits that are made meanwhile wait for it, connections do not.
    async fn kill_the_operator(&self) -> Result<()> {
        let leader = self.installation.leader().await?;
        self.installation.kill_operator().await?;
        say(format!(
            "{}, which led, was killed on {}",
            leader.pod, leader.node
        ));
        Ok(())
    }

    async fn edit(&mut self, what: &str, spec: Value, published: impl Fn(&Document) -> bool) -> Result<()> {
        self.patch(spec).await.with_context(|| what.to_owned())?;
        let lag = in_step(&mut self.documents, &self.hosts, WRITTEN, published).await;
        self.note(what, lag.with_context(|| what.to_owned())?);
        Ok(())
    }

    async fn patch(&self, spec: Value) -> Result<()> {
        let pools = self.installation.pools("cp1").await?;
        pools
            .patch(
                POOL,
                &PatchParams::default(),
                &Patch::Merge(json!({ "spec": spec })),
            )
            .await?;
        Ok(())
    }

    fn note(&mut self, what: &str, lag: Duration) {
        let now = Timestamp::now().strftime("%T");
        say(format!(
            "{what}: on every proxy after {} ms, at {now}",
            lag.as_millis()
        ));
        self.lags.push((what.to_owned(), lag));
    }

    /// Waits until every proxy has proven a member, so that its going has something to lose.
    async fn used(&self, member: &str) -> Result<()> {
        for host in &self.hosts {
            eventually(PROVEN, &format!("{member} Up on {}", host.name()), async || {
                let states = metrics(host).await?.states();
                ensure!(
                    states.get(member).is_some_and(|state| state == "Up"),
                    "{states:?}"
                );
                Ok(())
            })
            .await?;
        }
        Ok(())
    }
}

/// Waits for the ConfigMap, then for every proxy; returns how far the last one was behind.
async fn in_step(
    documents: &mut Documents,
    hosts: &[Host],
    within: Duration,
    wanted: impl Fn(&Document) -> bool,
) -> Result<Duration> {
    let published = documents.until(within, wanted).await?;
    let revision = published.document.revision;
    let last = all_follow(hosts, revision, IN_STEP * 5).await?;
    Ok(Duration::try_from(last.duration_since(published.at)).unwrap_or_default())
}

fn state(document: &Document, member: &str) -> Option<MemberState> {
    document
        .members
        .iter()
        .find(|found| found.name == member)
        .map(|found| found.state)
}
