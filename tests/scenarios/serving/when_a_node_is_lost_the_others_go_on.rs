//! Neither a node that is lost with an operator nor one whose disk is full holds up a rollout on the others, of the proxies or of
//! the operators. Both are named, the template is neither halted nor taken back, no client is refused, and an operator that is
//! killed ten times meanwhile changes nothing. The two nodes get the template once they are repaired. Until the API knows of the
//! loss nothing changes, and the operator of a pool at rest writes nothing.
//!
//! The last scenario by its name: nobody waits until the rollout is undone.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use trivet_crds::data_plane_name;
use trivet_crds::wire::{GatePolicy, RolloutTarget};
use trivet_instruments::{Attempts, eventually};
use trivet_testbed::Component;
use trivet_tests::attempts::{self, LOOPBACKS};
use trivet_tests::audit;
use trivet_tests::documents::Documents;
use trivet_tests::installation::{Installation, NAMESPACE, POOL, condition};
use trivet_tests::node_fault::{NodeFault, lift_all};
use trivet_tests::operators::PROGRAM;
use trivet_tests::rollout::is_of;
use trivet_tests::say::say;

/// The node whose kubelet dies, and with it an operator that does not lead.
const LOST: &str = "w2";

/// One of these gets a full disk: one where no operator leads.
const MAY_BE_FULL: [&str; 2] = ["cp2", "cp3"];

/// The operator is killed so often.
const KILLS: usize = 10;

/// The user of the operator.
const OPERATOR: &str = "system:serviceaccount:trivet-system:trivet-operator";

/// The operator's resync, which is half a minute, and some seconds.
const RESYNCED: Duration = Duration::from_secs(33);

/// The lost node and the full one may be those on which the DaemonSet controller begins. A silent node is NotReady after
/// 50 s, and the machine may be busy.
const FIRST: Duration = Duration::from_secs(100);

/// The operator's next passes.
const TOLD: Duration = Duration::from_secs(30);

/// New connections a second on each node.
const RATE: u32 = 10;

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_node_and_a_full_one_are_named_and_a_rollout_reaches_the_others() -> Result<()> {
    let installation = Installation::serving().await?.told().await?;
    installation.operator_waits_on(LOST).await?;
    installation
        .disturb(|cluster| {
            cluster.kill(LOST, Component::Kubelet.program())?;
            cluster.kill(LOST, PROGRAM)
        })
        .await?;
    let outcome = all(&installation).await;
    installation
        .disturb(|cluster| {
            cluster.hosts().iter().try_for_each(lift_all)?;
            cluster.start_component(LOST, Component::Kubelet)
        })
        .await?;
    installation.uncordon_all().await?;
    outcome
}

async fn all(installation: &Installation) -> Result<()> {
    rests(installation).await?;

    let leader = installation.leader().await?.node;
    let full = MAY_BE_FULL.into_iter().find(|node| *node != leader);
    let full = full.context("the operator runs everywhere")?;
    // The next operators must be able to start.
    installation.cordon(&[LOST.to_owned(), full.to_owned()]).await?;
    installation
        .disturb(move |cluster| NodeFault::NoRoomForContainers.inject(&cluster.host(full)?))
        .await?;
    operators_roll(installation).await?;
    let clients = Clients::start(installation)?;
    let rollout = Rollout::begin(installation).await?;
    rollout.kill_operators().await?;
    rollout.reaches_all_but(full).await?;
    clients.lost_nothing().await?;
    rollout.reaches_them_once_they_are_repaired(full).await
}

/// A pool at rest makes the operator write nothing, a lost node included of which the API does not know.
async fn rests(installation: &Installation) -> Result<()> {
    installation.operator_works().await?;
    let (from, start) = (Timestamp::now(), Instant::now());
    while start.elapsed() < RESYNCED {
        let status = installation.pool_status().await?;
        let found = condition(&status, "Ready")?;
        ensure!(found.status == "True", "the pool left Ready: {found:?}");
        sleep(Duration::from_secs(1)).await;
    }
    let nodes = Api::<Node>::all(installation.kubernetes("cp1").await?);
    let until = not_ready_since(&nodes.get(LOST).await?)?.unwrap_or_else(Timestamp::now);
    let rest = until.duration_since(from);
    ensure!(
        rest >= SignedDuration::from_secs(30),
        "the pool was at rest for {rest:#} only"
    );
    let writes = audit::writes_by(OPERATOR, from..until, &installation.cluster().masters())?;
    ensure!(
        writes.is_empty(),
        "a settled pool makes the operator write: {writes:?}"
    );
    say(format!("the operator wrote nothing for {} s", rest.as_secs()));
    Ok(())
}

/// The operators are replaced although a node with one of them is lost: its pod cannot end, and nobody waits for it.
async fn operators_roll(installation: &Installation) -> Result<()> {
    let (tools, begun) = (installation.tools(), Instant::now());
    let before = installation.operators("cp1").await?;
    let lost = before.iter().find(|operator| operator.node == LOST);
    let lost = lost.with_context(|| format!("no operator is on {LOST}: {before:?}"))?;
    for command in [
        format!("rollout restart deployment trivet-operator --namespace {NAMESPACE}"),
        format!("rollout status deployment trivet-operator --namespace {NAMESPACE} --timeout=60s"),
    ] {
        tools.kubectl(&command).await?;
    }
    let took = begun.elapsed().as_secs_f32();
    let pods = Api::<Pod>::namespaced(installation.kubernetes("cp1").await?, NAMESPACE);
    let pod = pods.get(&lost.pod).await?;
    ensure!(
        pod.metadata.deletion_timestamp.is_some(),
        "{} on {LOST} is not replaced",
        lost.pod
    );
    installation.operator_works().await?;
    say(format!(
        "the operators' Deployment rolled in {took:.0} s while {LOST} was lost with one of them"
    ));
    Ok(())
}

/// A good template on its way.
struct Rollout<'a> {
    installation: &'a Installation,
    begun: Instant,
    from: Timestamp,
    template: String,
    /// How many templates the DaemonSet had before.
    generation: i64,
}

impl<'a> Rollout<'a> {
    /// Asks for the template, and kills the operator that is about to begin.
    async fn begin(installation: &'a Installation) -> Result<Self> {
        let before = installation.template().await?;
        let generation = template_generation(&daemon_set(installation).await?)?;
        let (begun, from) = (Instant::now(), Timestamp::now());
        installation
            .edit_pool(json!({ "proxy": { "logLevel": "debug" } }))
            .await?;
        installation.kill_operator().await?;
        let template = installation.other_template(&before).await?;
        Ok(Self {
            installation,
            begun,
            from,
            template,
            generation,
        })
    }

    /// Kills operators from the moment when the gate opens on the first node, while that soaks, and while the others get the
    /// template.
    async fn kill_operators(&self) -> Result<()> {
        let mut documents = Documents::watch(self.installation.kubernetes("cp1").await?);
        let mut seen = BTreeSet::new();
        for number in 2..=KILLS {
            if number > 2 {
                self.installation.operator_works().await?;
            }
            let published = documents
                .until(FIRST, |document| {
                    let RolloutTarget { template, gate } = &document.rollout;
                    *template == self.template && (number > 2 || gate.policy != GatePolicy::Closed)
                })
                .await?;
            let policy = published.document.rollout.gate.policy;
            self.installation.kill_operator().await?;
            seen.insert(format!("{policy:?}"));
            say(format!(
                "kill {number} of the operator: {:.0} s after the edit, the gate is {policy:?}",
                self.begun.elapsed().as_secs_f32()
            ));
        }
        let both = ["Nodes", "Open"].iter().all(|policy| seen.contains(*policy));
        ensure!(both, "it was killed only while the gate was {seen:?}");
        Ok(())
    }

    /// All but two nodes have the template, and the pool names those and says why.
    async fn reaches_all_but(&self, full: &str) -> Result<()> {
        let nodes = self.installation.hosts().into_iter();
        let nodes: Vec<_> = nodes
            .map(|host| host.name().to_string())
            .filter(|node| node != LOST && node != full)
            .collect();
        self.installation
            .rolled_out(&nodes, is_of(&self.template))
            .await?;
        let took = self.begun.elapsed().as_secs_f32();
        let stuck = format!("these cannot start it and are not waited for: {full}");
        let told = eventually(TOLD, "both nodes named", async || {
            let status = self.installation.pool_status().await?;
            let progressing = condition(&status, "Progressing")?;
            ensure!(progressing.status == "True", "{progressing:?}");
            ensure!(progressing.message.contains(&stuck), "{progressing:?}");
            let available = condition(&status, "ProxiesAvailable")?;
            let words = [full, "no space left on device", "w2 (not Ready)"];
            let is_named = words.iter().all(|word| available.message.contains(word));
            ensure!(available.status == "False" && is_named, "{available:?}");
            Ok(format!("{}\n{}", progressing.message, available.message))
        })
        .await?;
        say(format!(
            "the template is on {nodes:?} {took:.0} s after the edit: {told}"
        ));
        self.began_once().await
    }

    /// The DaemonSet has had this template and no other since, and it is no failed one.
    async fn began_once(&self) -> Result<()> {
        let set = daemon_set(self.installation).await?;
        let generation = template_generation(&set)?;
        ensure!(
            generation == self.generation + 1,
            "the DaemonSet had {} templates",
            generation - self.generation
        );
        let record = set.annotations().get("trivet.dev/rollout");
        let record = record.context("the operator has noted nothing")?;
        // That of an earlier scenario may still be noted.
        let record: Value = serde_json::from_str(record)?;
        let failed = record.pointer("/halted/template").and_then(Value::as_str);
        ensure!(failed != Some(&self.template), "{record}");
        let events = Api::<Event>::namespaced(self.installation.kubernetes("cp1").await?, "default");
        for (reason, most) in [("RolloutStarted", 1), ("RolloutHalted", 0)] {
            let events = events
                .list(&ListParams::default().fields(&format!("reason={reason}")))
                .await?;
            let is_of_now = |event: &&Event| {
                let created = event.creation_timestamp();
                created.is_some_and(|created| created.0 >= self.from)
            };
            let count = events.iter().filter(is_of_now).count();
            ensure!(count <= most, "{count} events {reason}: {events:?}");
        }
        Ok(())
    }

    /// The node with room gets the template at once, and the pool is Ready but for the lost one, which it names.
    async fn reaches_them_once_they_are_repaired(&self, full: &'static str) -> Result<()> {
        let begun = Instant::now();
        self.installation
            .disturb(move |cluster| lift_all(&cluster.host(full)?))
            .await?;
        self.installation.pool_ready().await?;
        let status = self.installation.pool_status().await?;
        let message = &condition(&status, "Ready")?.message;
        let took = begun.elapsed().as_secs_f32();
        say(format!(
            "{full} has its proxy {took:.0} s after there is room, {}: {message}",
            status.proxies_summary
        ));
        ensure!(
            status.proxies_summary == "4/4",
            "PROXIES is {}",
            status.proxies_summary
        );
        ensure!(message.contains("w2 (not Ready)"), "w2 is not named: {message}");

        let begun = Instant::now();
        self.installation
            .disturb(|cluster| cluster.start_component(LOST, Component::Kubelet))
            .await?;
        self.installation
            .rolled_out(&[LOST.to_owned()], is_of(&self.template))
            .await?;
        let took = begun.elapsed().as_secs_f32();
        say(format!("w2 has it {took:.0} s after its kubelet is back"));
        Ok(())
    }
}

/// Clients of every node; the lost node's proxy serves on.
struct Clients(Vec<(String, Attempts)>);

impl Clients {
    fn start(installation: &Installation) -> Result<Self> {
        let client = installation.client()?;
        let started = installation.hosts().into_iter().map(|host| {
            let attempts = attempts::start(&host, &client, LOOPBACKS[0], RATE);
            (host.name().to_string(), attempts)
        });
        Ok(Self(started.collect()))
    }

    async fn lost_nothing(self) -> Result<()> {
        for (node, attempts) in self.0 {
            let record = attempts.finish().await?;
            record.all_succeeded(&node)?;
            say(format!(
                "{node}: 0 of {} new connections failed, slowest {:.2} s",
                record.attempts().len(),
                record.slowest().as_secs_f32()
            ));
        }
        Ok(())
    }
}

async fn daemon_set(installation: &Installation) -> Result<DaemonSet> {
    let sets = Api::<DaemonSet>::namespaced(installation.kubernetes("cp1").await?, NAMESPACE);
    Ok(sets.get(&data_plane_name(POOL)).await?)
}

/// It grows with each change of the template.
fn template_generation(set: &DaemonSet) -> Result<i64> {
    let generation = set.annotations().get("deprecated.daemonset.template.generation");
    Ok(generation.context("the DaemonSet counts no templates")?.parse()?)
}

/// Since when a node is not Ready, by the API; none if it is Ready.
fn not_ready_since(node: &Node) -> Result<Option<Timestamp>> {
    let conditions = node
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let mut ready = conditions.filter(|condition| condition.type_ == "Ready");
    let ready = ready.next().context("the node has no condition Ready")?;
    if ready.status == "True" {
        return Ok(None);
    }
    let since = ready.last_transition_time.as_ref();
    Ok(Some(since.context("it is not Ready since no time")?.0))
}
