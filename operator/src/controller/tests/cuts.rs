//! An operator that is killed at any call of a change: the next one ends where an operator ends that was not killed.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::context::tests::{RESET, client};
use crate::leader::tests::leader_in;

/// What is under way when the operator is killed.
#[derive(Clone, Copy, Debug)]
enum Change {
    /// The pool is new.
    Created,
    /// A member is added.
    Members,
    /// The proxies get a new template.
    Template,
    /// Standbys are placed.
    Standbys,
    /// All three in one edit.
    All,
    /// A new template reaches its first node.
    FirstNode,
    /// A new template has failed there, and the last good one comes back.
    RollBack,
}

/// A pool with a change that no operator has seen yet.
struct Scene {
    server: Server,
    spec: ApiserverPoolSpec,
    /// The caches.
    ctx: Context,
    /// What was in force.
    before: Option<(u64, String)>,
    _caches: (Writer<Node>, Option<Writer<Pod>>),
}

impl Scene {
    async fn before(change: Change) -> Self {
        let server = Server::default();
        let mut spec = with_static_pods();
        let static_pods = std::mem::take(&mut spec.node_bootstrap);
        if matches!(change, Change::Created) {
            let (ctx, mut nodes) = blind_context(&server);
            nodes.apply_watcher_event(&Event::Apply(master(1)));
            return Self {
                server,
                spec,
                ctx,
                before: None,
                _caches: (nodes, None),
            };
        }
        let (ctx, nodes, mut pods) = served(&spec, &server).await;
        if matches!(change, Change::Members | Change::All) {
            let member = json!({ "name": "cp2", "addresses": ["192.0.2.2"] });
            spec.members.push(serde_json::from_value(member).unwrap());
        }
        if matches!(
            change,
            Change::Template | Change::All | Change::FirstNode | Change::RollBack
        ) {
            spec.proxy.image = Some("registry.example.com/proxy:2".to_owned());
        }
        if matches!(change, Change::Standbys | Change::All) {
            spec.node_bootstrap = static_pods;
        }
        if matches!(change, Change::FirstNode | Change::RollBack) {
            reconcile_once(&spec, &ctx).await;
            pods.apply_watcher_event(&Event::Apply(new_proxy(&server, "False", 0)));
        }
        if matches!(change, Change::RollBack) {
            reconcile_once(&spec, &ctx).await;
            pods.apply_watcher_event(&Event::Apply(new_proxy(&server, "False", 2)));
        }
        server.writes();
        let before = Some((server.document().revision, server.template()));
        Self {
            server,
            spec,
            ctx,
            before,
            _caches: (nodes, Some(pods)),
        }
    }

    /// An operator with the caches of the last one, and nothing else of it.
    fn operator(
        &self,
        term: i32,
        answer: impl Fn(&str, &str, &str) -> (u16, String) + Clone + Send + 'static,
    ) -> Context {
        let ctx = Context {
            client: client(answer),
            nodes: self.ctx.nodes.clone(),
            pods: self.ctx.pods.clone(),
            access: self.ctx.access.clone(),
            leadership: Arc::new(leader_in(term)),
            ..blind_context(&self.server).0
        };
        ctx.readiness.observe("Pod", &Ok(Event::<Pod>::InitDone));
        ctx.reports.observe(Event::InitDone);
        ctx
    }

    /// One pass, and what the DaemonSet controller does then: the pods of the writer run, and those of a new template of the
    /// proxies wait behind its gate.
    async fn pass(&self, ctx: &Context) -> Result<Duration, Error> {
        let work = ctx.leadership.enter(Instant::now()).unwrap();
        let outcome = Box::pin(pass_in(&work.term, &pool(self.spec.clone()).into(), ctx)).await;
        let Some((_, template)) = &self.before else {
            return outcome;
        };
        let is_new = self.server.template() != *template;
        self.server.edit(SET, &on_one_node(u8::from(!is_new)));
        if self.server.objects.lock().unwrap().contains_key(WRITER) {
            self.server.edit(WRITER, &on_one_node(1));
        }
        outcome
    }

    /// An operator works until there is nothing left to write. Returns what it leaves.
    async fn finish(&self, history: &History) -> End {
        let (server, told) = (self.server.clone(), history.clone());
        let ctx = self.operator(9, move |method, path, body| {
            told.answer(&server, method, path, body)
        });
        for _ in 0..8 {
            self.server.writes();
            self.pass(&ctx).await.unwrap();
            if self.server.writes().is_empty() {
                return self.end(history);
            }
        }
        panic!("it writes again and again");
    }

    fn end(&self, history: &History) -> End {
        let objects = self.server.objects.lock().unwrap();
        let objects = objects
            .iter()
            .map(|(path, object)| (path.clone(), comparable(object)));
        End {
            objects: objects.collect(),
            templates: history.templates(),
        }
    }
}

/// What an operator leaves.
struct End {
    objects: BTreeMap<String, Value>,
    /// The templates that the DaemonSet had one after the other.
    templates: Vec<String>,
}

impl End {
    /// Fails with the first line in which the two differ.
    fn is(&self, expected: &Self, at: &str) {
        assert_eq!(self.templates, expected.templates, "{at}");
        let paths = |end: &Self| end.objects.keys().cloned().collect::<Vec<_>>();
        assert_eq!(paths(self), paths(expected), "{at}");
        for (path, object) in &self.objects {
            let (left, right) = (pretty(object), pretty(&expected.objects[path]));
            let lines = left.lines().zip(right.lines());
            let differing: Vec<_> = lines.filter(|(left, right)| left != right).collect();
            assert!(differing.is_empty(), "{at}: {path}: {differing:?}");
            assert_eq!(left.len(), right.len(), "{at}: {path}");
        }
    }
}

fn pretty(object: &Value) -> String {
    serde_json::to_string_pretty(object).unwrap()
}

/// An object without what differs between two runs: versions, terms, times, and the authority of the test.
fn comparable(object: &Value) -> Value {
    let mut object = object.clone();
    for field in ["resourceVersion", "uid"] {
        object["metadata"][field] = Value::Null;
    }
    object["metadata"]["annotations"][LEADER_TERM] = Value::Null;
    if let Some(record) = object["metadata"]["annotations"][ROLLOUT].as_str() {
        let mut record: Value = serde_json::from_str(record).unwrap();
        for time in ["since", "readySince"] {
            if !record[time].is_null() {
                record[time] = "a time".into();
            }
        }
        object["metadata"]["annotations"][ROLLOUT] = record;
    }
    if let Some(text) = object["data"][wire::KEY].as_str() {
        let mut document: Value = serde_json::from_str(text).unwrap();
        for field in ["revision", "hash", "tls"] {
            document[field] = Value::Null;
        }
        object["data"][wire::KEY] = document;
    }
    object
}

/// What was in force, one after the other.
#[derive(Clone, Default)]
struct History {
    documents: Arc<Mutex<Vec<(u64, String)>>>,
    templates: Arc<Mutex<Vec<String>>>,
}

impl History {
    /// Lets the server answer, and notes what is in force then.
    fn answer(&self, server: &Server, method: &str, path: &str, body: &str) -> (u16, String) {
        let answer = server.answer(method, path, body);
        if method != "GET" && path == MAP {
            let document = server.document();
            let mut documents = self.documents.lock().unwrap();
            documents.push((document.revision, document.to_text().unwrap()));
            documents.dedup();
        }
        if method != "GET" && path == SET {
            let mut templates = self.templates.lock().unwrap();
            templates.push(server.template());
            templates.dedup();
        }
        answer
    }

    fn templates(&self) -> Vec<String> {
        self.templates.lock().unwrap().clone()
    }

    /// Every other document has a higher revision.
    fn only_grows(&self, before: Option<u64>) {
        let mut last = before.unwrap_or_default();
        for (revision, text) in &*self.documents.lock().unwrap() {
            assert!(
                *revision > last || before == Some(*revision),
                "{last}, then {revision}: {text}"
            );
            last = *revision;
        }
    }
}

/// Whether the API server has obeyed the last call of the operator that is killed.
const OBEYED: [bool; 2] = [false, true];

async fn whoever_is_killed_the_next_one_ends_the_same(change: Change) {
    let whole = History::default();
    let expected = Scene::before(change).await.finish(&whole).await;
    let mut cuts = 0;
    for is_obeyed in OBEYED {
        for last in 0.. {
            let scene = Scene::before(change).await;
            let history = History::default();
            let (server, told) = (scene.server.clone(), history.clone());
            let calls = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&calls);
            let killed = scene.operator(1, move |method, path, body| {
                let number = counted.fetch_add(1, Ordering::SeqCst);
                if number < last {
                    return told.answer(&server, method, path, body);
                }
                if number == last && is_obeyed {
                    told.answer(&server, method, path, body);
                }
                (RESET, String::new())
            });
            // Where it was killed does not matter to anybody but the next one.
            scene.pass(&killed).await.ok();
            let end = scene.finish(&history).await;
            let at = format!("{change:?}, killed at call {last}, which was obeyed: {is_obeyed}");
            end.is(&expected, &at);
            history.only_grows(scene.before.as_ref().map(|(revision, _)| *revision));
            if calls.load(Ordering::SeqCst) <= last {
                break;
            }
            cuts += 1;
        }
    }
    println!("{change:?}: killed at {cuts} calls");
    assert!(cuts >= 2 * 6, "only {cuts} calls: the change makes more");
    assert!(!expected.templates.is_empty() || !matches!(change, Change::Template | Change::All));
}

#[tokio::test(start_paused = true)]
async fn an_operator_killed_at_any_call_of_a_creation_leaves_nothing_undone() {
    whoever_is_killed_the_next_one_ends_the_same(Change::Created).await;
}

#[tokio::test(start_paused = true)]
async fn an_operator_killed_at_any_call_of_an_edit_of_members_leaves_nothing_undone() {
    whoever_is_killed_the_next_one_ends_the_same(Change::Members).await;
}

#[tokio::test(start_paused = true)]
async fn an_operator_killed_at_any_call_of_an_edit_of_the_template_begins_no_second_rollout() {
    whoever_is_killed_the_next_one_ends_the_same(Change::Template).await;
}

#[tokio::test(start_paused = true)]
async fn an_operator_killed_as_it_places_standbys_leaves_nothing_undone() {
    whoever_is_killed_the_next_one_ends_the_same(Change::Standbys).await;
}

#[tokio::test(start_paused = true)]
async fn an_operator_killed_in_an_edit_of_everything_begins_no_second_rollout() {
    whoever_is_killed_the_next_one_ends_the_same(Change::All).await;
}

#[tokio::test(start_paused = true)]
async fn an_operator_killed_as_it_opens_the_gate_leaves_it_as_wide_as_another() {
    whoever_is_killed_the_next_one_ends_the_same(Change::FirstNode).await;
}

#[tokio::test(start_paused = true)]
async fn an_operator_killed_in_a_roll_back_rolls_back_once() {
    whoever_is_killed_the_next_one_ends_the_same(Change::RollBack).await;
}
