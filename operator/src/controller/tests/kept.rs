//! What passes keep of nodes and pods changes nothing that they see, and so nothing that they decide.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use proptest::prelude::*;
use trivet_crds::report::ProxyReport;

use super::*;
use crate::observe::Observed;
use crate::plan::{Memory, Rejection};

/// What changes between two passes.
#[derive(Clone, Debug)]
enum Step {
    /// A node comes, changes or goes.
    Node(u8, Option<(&'static str, &'static str)>),
    /// A pod comes, changes or goes: its node, the generation of its template, and whether it is Ready.
    Pod(u8, Option<(u8, u8, &'static str)>),
    /// A proxy reports this revision, or its report goes.
    Report(u8, Option<u64>),
    /// Both caches are filled anew with what they have.
    List,
    /// The DaemonSet is edited by hand.
    Scope(&'static str),
    /// Its controller counts so many nodes, and so many of them with the newest template.
    Status(u8, u8),
    /// The owner edits the scope.
    Wanted(Option<&'static str>),
}

fn step() -> impl Strategy<Value = Step> {
    let number = || 1..5_u8;
    let os = prop::sample::select(&["linux", "windows"][..]);
    let ready = || prop::sample::select(&["True", "False"][..]);
    prop_oneof![
        3 => (number(), prop::option::weighted(0.8, (os, ready()))).prop_map(|(node, seen)| Step::Node(node, seen)),
        3 => (number(), prop::option::weighted(0.8, (number(), 1..3_u8, ready())))
            .prop_map(|(pod, seen)| Step::Pod(pod, seen)),
        2 => (number(), prop::option::weighted(0.8, 0..4_u64)).prop_map(|(node, seen)| Step::Report(node, seen)),
        1 => Just(Step::List),
        1 => prop::sample::select(&["linux", "windows"][..]).prop_map(Step::Scope),
        1 => (0..4_u8, 0..4_u8).prop_map(|(desired, updated)| Step::Status(desired, updated)),
        1 => prop::option::of(Just("a")).prop_map(Step::Wanted),
    ]
}

/// A cluster whose operator has made passes before.
struct Cluster {
    server: Server,
    spec: ApiserverPoolSpec,
    ctx: Context,
    nodes: Writer<Node>,
    pods: Writer<Pod>,
    reports: BTreeMap<u8, ProxyReport>,
}

impl Cluster {
    async fn new() -> Self {
        let (server, spec) = (Server::default(), listed_spec());
        let (ctx, nodes, pods) = served(&spec, &server).await;
        Self {
            server,
            spec,
            ctx,
            nodes,
            pods,
            reports: BTreeMap::new(),
        }
    }

    fn happen(&mut self, step: &Step) {
        match step {
            Step::Node(number, seen) => {
                let (os, ready) = seen.unwrap_or_default();
                let node = json!({ "metadata": { "name": format!("w{number}"), "labels": { "kubernetes.io/os": os } },
                    "status": { "allocatable": { "pods": "110" }, "conditions": [{ "type": "Ready", "status": ready }] } });
                self.nodes.apply_watcher_event(&event(node, seen.is_some()));
            }
            Step::Pod(number, seen) => {
                let (node, generation, ready) = seen.unwrap_or_default();
                let mut pod = proxy(&format!("p{number}"), &generation.to_string());
                pod.spec.get_or_insert_default().node_name = Some(format!("w{node}"));
                let mut pod = serde_json::to_value(pod).unwrap();
                pod["status"]["conditions"][0]["status"] = ready.into();
                self.pods.apply_watcher_event(&event(pod, seen.is_some()));
            }
            Step::Report(number, Some(revision)) => {
                let report = json!({
                    "metadata": { "name": format!("default.w{number}") }, "poolName": "default",
                    "nodeName": format!("w{number}"), "revision": revision, "observedTime": Timestamp::now().to_string(),
                });
                let report: ProxyReport = serde_json::from_value(report).unwrap();
                self.ctx.reports.observe(Event::Apply(report.clone()));
                self.reports.insert(*number, report);
            }
            Step::Report(number, None) => {
                if let Some(report) = self.reports.remove(number) {
                    self.ctx.reports.observe(Event::Delete(report));
                }
            }
            Step::List => {
                list(&mut self.nodes, &self.ctx.nodes.state());
                list(&mut self.pods, &self.ctx.pods.state());
            }
            Step::Scope(os) => {
                let selector = json!({ "nodeSelector": { "kubernetes.io/os": os } });
                self.server
                    .edit(SET, &json!({ "spec": { "template": { "spec": selector } } }));
            }
            Step::Status(desired, updated) => {
                let mut status = on_one_node(*updated);
                status["status"]["desiredNumberScheduled"] = (*desired).into();
                self.server.edit(SET, &status);
            }
            Step::Wanted(selector) => {
                let selector = selector.map(|value| ("pool".to_owned(), value.to_owned()));
                self.spec.proxy.node_selector = selector.into_iter().collect();
            }
        }
    }

    /// An operator with the same caches that has made no pass.
    fn fresh(&self) -> Context {
        let fresh = Context {
            nodes: self.ctx.nodes.clone(),
            pods: self.ctx.pods.clone(),
            access: self.ctx.access.clone(),
            ..blind_context(&self.server).0
        };
        fresh.readiness.observe("Pod", &Ok(Event::<Pod>::InitDone));
        fresh.reports.observe(Event::Init);
        for report in self.reports.values() {
            fresh.reports.observe(Event::InitApply(report.clone()));
        }
        fresh.reports.observe(Event::InitDone);
        fresh
    }

    async fn look(&self, ctx: &Context) -> Observed {
        see(&self.spec, ctx).await
    }
}

fn listed_spec() -> ApiserverPoolSpec {
    ApiserverPoolSpec {
        node_bootstrap: trivet_crds::pool::NodeBootstrap::default(),
        ..with_static_pods()
    }
}

async fn see(spec: &ApiserverPoolSpec, ctx: &Context) -> Observed {
    let pool = pool(spec.clone());
    let (daemon_set, writer) = tokio::try_join!(
        Box::pin(proxies::read(ctx, "default")),
        Box::pin(bootstrap::observe(ctx, "default"))
    )
    .unwrap();
    let seen = observe(&pool, ctx, (daemon_set, &writer), Memory::default());
    Box::pin(seen).await.unwrap()
}

fn event<K: serde::de::DeserializeOwned>(object: Value, exists: bool) -> Event<K> {
    let object = serde_json::from_value(object).unwrap();
    if exists {
        Event::Apply(object)
    } else {
        Event::Delete(object)
    }
}

fn list<K>(cache: &mut Writer<K>, objects: &[Arc<K>])
where
    K: reflector::Lookup<DynamicType = ()> + Clone + 'static,
{
    cache.apply_watcher_event(&Event::Init);
    for object in objects {
        cache.apply_watcher_event(&Event::InitApply(K::clone(object)));
    }
    cache.apply_watcher_event(&Event::InitDone);
}

async fn run(steps: &[Step]) {
    let mut cluster = Cluster::new().await;
    for step in steps {
        cluster.happen(step);
        let kept = cluster.look(&cluster.ctx).await;
        let mut fresh = cluster.look(&cluster.fresh()).await;
        // What tells of time and of probes, which an operator does not have from its caches.
        fresh.facts.now = kept.facts.now;
        fresh.facts.unix_seconds = kept.facts.unix_seconds;
        fresh.facts.waves.now = kept.facts.waves.now;
        let (seen, told) = (&mut fresh.facts, &kept.facts);
        seen.healths.clone_from(&told.healths);
        seen.healths_by_last_good.clone_from(&told.healths_by_last_good);
        assert_eq!(
            format!("{:#?}", kept.facts),
            format!("{:#?}", fresh.facts),
            "after {step:?}"
        );
        assert_eq!(kept.proxies.uncounted, fresh.proxies.uncounted);
        assert_eq!(kept.proxies.failures, fresh.proxies.failures);
        let replacement = |seen: &Observed| {
            let found = replacement::observe(&seen.caches, &seen.proxies);
            (found.is_under_way, found.ready.into_keys().collect::<Vec<_>>())
        };
        assert_eq!(replacement(&kept), replacement(&fresh));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_pass_that_keeps_what_it_knew_sees_what_one_from_scratch_sees(
        steps in prop::collection::vec(step(), 1..16),
    ) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().start_paused(true).build().unwrap().block_on(run(&steps));
    }
}

#[tokio::test(start_paused = true)]
async fn pods_that_are_listed_in_the_middle_of_a_pass_let_no_edit_take_their_proxies_away() {
    let (server, mut spec) = (Server::default(), listed_spec());
    let (ctx, _nodes, _pods) = served(&spec, &server).await;
    let (cached, mut pods) = reflector::store();
    let next = Context {
        nodes: ctx.nodes.clone(),
        pods: cached,
        access: ctx.access.clone(),
        ..blind_context(&server).0
    };
    next.reports.observe(Event::InitDone);
    spec.proxy.node_selector.insert("pool".to_owned(), "a".to_owned());
    // It waits for the pods in vain.
    let seen = see(&spec, &next).await;

    pods.apply_watcher_event(&Event::Apply(proxy("a", "1")));
    next.readiness.observe("Pod", &Ok(Event::<Pod>::InitDone));
    assert_eq!(
        seen.caches.nodes_with_proxy(),
        None,
        "to this pass they are unknown"
    );
    assert_eq!(seen.facts.in_place.nodes, None);
    assert!(seen.facts.waves.is_blind);
    let plan = plan(&pool(spec), &seen.facts).unwrap();
    let is_refused = matches!(
        &plan.verdict,
        Verdict::Rejected {
            rejection: Rejection::ScopeWouldShrink { .. },
            ..
        }
    );
    assert!(is_refused, "{:?}", plan.verdict);
}
