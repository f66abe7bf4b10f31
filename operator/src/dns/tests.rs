//! The loop against an API server that is a closure.

use std::sync::{Arc, Mutex};

use kube::runtime::{reflector, watcher};
use serde_json::{Value, json};
use trivet_crds::pool::{ApiserverPool, ApiserverPoolSpec};

use super::*;
use crate::context::tests::context;
use crate::dns::published::KIND_ABSENT;
use crate::dns::wish::{Candidate, Records, Wish};

const SERVICES: &str = "/api/v1/namespaces/trivet-system/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/trivet-system/endpointslices";
const RECORDS: &str = "/apis/externaldns.k8s.io/v1alpha1/namespaces/trivet-system/dnsendpoints";

/// An API server with these kinds alone.
#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    has_records: bool,
    /// A Service of this name is somebody else's.
    foreign: Option<String>,
    version: u64,
    /// Method and path of each request.
    asked: Vec<String>,
}

#[derive(Clone, Default)]
struct Server(Arc<Mutex<State>>);

fn refusal(code: u16, message: &str) -> (u16, String) {
    let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message });
    (code, status.to_string())
}

impl State {
    fn answer(&mut self, method: &str, path: &str, body: &str) -> (u16, String) {
        self.asked.push(format!("{method} {path}"));
        if path.starts_with(RECORDS) && !self.has_records {
            return refusal(404, "the server could not find the requested resource");
        }
        match method {
            "GET" => {
                assert!([SERVICES, SLICES, RECORDS].contains(&path), "{path}");
                let found = self.objects.iter().filter(|(name, _)| name.starts_with(path));
                let items: Vec<_> = found.map(|(_, object)| object.clone()).collect();
                (200, json!({ "metadata": {}, "items": items }).to_string())
            }
            "PATCH" => self.apply(path, body),
            "DELETE" => {
                self.objects.remove(path);
                (
                    200,
                    json!({ "kind": "Status", "apiVersion": "v1", "status": "Success" }).to_string(),
                )
            }
            other => panic!("{other}"),
        }
    }

    fn apply(&mut self, path: &str, body: &str) -> (u16, String) {
        let mut object: Value = serde_json::from_str(body).unwrap();
        let old = self
            .objects
            .get(path)
            .map(|old| old["metadata"]["resourceVersion"].clone());
        let is_foreign = self
            .foreign
            .as_ref()
            .is_some_and(|name| path.ends_with(name.as_str()));
        if is_foreign || old.unwrap_or(json!("1")) != object["metadata"]["resourceVersion"] {
            return refusal(409, "the object has been modified");
        }
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(format!("9{}", self.version));
        object["metadata"]["uid"] = json!(path);
        self.objects.insert(path.to_owned(), object.clone());
        (200, object.to_string())
    }
}

impl Server {
    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.0.lock().unwrap())
    }

    /// The operator, which knows the pool `default` by what a pass has left.
    fn operator(&self, facts: Facts) -> Context {
        let server = self.clone();
        let mut ctx =
            context(move |method, path, body| server.with(|state| state.answer(method, path, body)));
        let (pools, mut writer) = reflector::store();
        let pool = ApiserverPool::new("default", ApiserverPoolSpec::default());
        writer.apply_watcher_event(&watcher::Event::Apply(pool.into()));
        ctx.pools = pools;
        tell(&ctx, facts);
        ctx
    }

    fn written(&self) -> Vec<String> {
        self.with(|state| {
            state
                .objects
                .keys()
                .map(|path| path.rsplit('/').next().unwrap().to_owned())
                .collect()
        })
    }

    /// The addresses that are ready.
    fn ready(&self) -> usize {
        self.with(|state| {
            let slices = state.objects.iter().filter(|(path, _)| path.starts_with(SLICES));
            let endpoints = slices.flat_map(|(_, slice)| slice["endpoints"].as_array().unwrap());
            endpoints
                .filter(|endpoint| endpoint["conditions"]["ready"] == true)
                .count()
        })
    }

    fn requests(&self) -> usize {
        self.with(|state| std::mem::take(&mut state.asked).len())
    }
}

/// A pass has left this.
fn tell(ctx: &Context, facts: Facts) {
    ctx.pool_states
        .change("default", |state| state.dns.facts = Some(facts));
}

fn facts(are_up: [bool; 2], wish: Wish) -> Facts {
    let candidate = |(number, is_up): (u8, bool)| Candidate {
        socket: std::net::SocketAddr::from(([10, 0, 0, number], 6443)),
        member: format!("cp{number}"),
        node_name: String::new(),
        zone: String::new(),
        drains: false,
        is_up: Some(is_up),
    };
    Facts {
        candidates: (1..).zip(are_up).map(candidate).collect(),
        wish: Some(wish),
    }
}

fn both() -> Wish {
    Wish {
        service: Some("apiservers".to_owned()),
        external: Some(Records {
            hostname: "api.example.com".to_owned(),
            ttl_seconds: 30,
        }),
    }
}

fn trouble(ctx: &Context) -> Option<&'static str> {
    let published = ctx.pool_states.of("default").dns.published?;
    published.trouble.map(|trouble| trouble.reason)
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_down_leaves_with_the_next_look_and_nothing_is_read_for_it() {
    let server = Server::default();
    server.with(|state| state.has_records = true);
    let ctx = server.operator(facts([true, true], both()));
    let (mut names, start) = (Names::default(), Instant::now());
    assert!(names.look(&ctx, start).await, "it is news");
    assert_eq!(
        server.written(),
        ["apiservers", "apiservers-ipv4-6443", "trivet-default"]
    );
    assert_eq!((server.ready(), server.requests()), (2, 6));

    assert!(!names.look(&ctx, start + LOOK).await, "nothing is new");
    assert_eq!(server.requests(), 0);

    tell(&ctx, facts([true, false], both()));
    assert!(names.look(&ctx, start + 2 * LOOK).await);
    assert_eq!((server.ready(), server.requests()), (1, 1));
    let targets = ctx
        .pool_states
        .of("default")
        .dns
        .published
        .unwrap()
        .status
        .targets;
    assert_eq!(targets.len(), 2, "the records are damped");
}

#[tokio::test(start_paused = true)]
async fn the_kind_of_external_dns_is_noticed_when_it_is_installed() {
    let server = Server::default();
    let ctx = server.operator(facts([true, true], both()));
    let (mut names, start) = (Names::default(), Instant::now());
    names.look(&ctx, start).await;
    assert_eq!(server.written(), ["apiservers", "apiservers-ipv4-6443"]);
    assert_eq!(trouble(&ctx), Some(KIND_ABSENT));
    server.with(|state| state.has_records = true);
    names.look(&ctx, start + READ).await;
    assert_eq!(
        server.written(),
        ["apiservers", "apiservers-ipv4-6443", "trivet-default"]
    );
    assert_eq!(trouble(&ctx), None);
}

#[tokio::test(start_paused = true)]
async fn an_object_of_somebody_else_is_left_alone_and_named() {
    let server = Server::default();
    server.with(|state| state.foreign = Some("/apiservers".to_owned()));
    let wish = Wish {
        external: None,
        ..both()
    };
    let ctx = server.operator(facts([true, true], wish));
    let (mut names, start) = (Names::default(), Instant::now());
    names.look(&ctx, start).await;
    assert_eq!(trouble(&ctx), None, "it may be a race");
    names.look(&ctx, start + LOOK).await;
    assert_eq!(trouble(&ctx), Some("NameTaken"));
    server.requests();
    for second in 2..10 {
        names.look(&ctx, start + second * LOOK).await;
    }
    assert!(server.requests() <= 6, "it rests");
    server.with(|state| state.foreign = None);
    names.look(&ctx, start + 12 * LOOK).await;
    assert_eq!(trouble(&ctx), None);
}

#[tokio::test(start_paused = true)]
async fn a_pool_without_names_costs_one_read_and_what_is_left_is_removed() {
    let server = Server::default();
    let ctx = server.operator(facts([true, true], both()));
    Names::default().look(&ctx, Instant::now()).await;
    assert_eq!(server.written().len(), 2);
    server.requests();

    tell(&ctx, facts([true, true], Wish::default()));
    let (mut names, start) = (Names::default(), Instant::now());
    names.look(&ctx, start).await;
    assert_eq!(server.written(), Vec::<String>::new());
    assert_eq!(server.requests(), 5, "a read of three kinds and two deletions");
    for second in 1..300 {
        names.look(&ctx, start + second * LOOK).await;
    }
    assert_eq!(server.requests(), 0);
    assert_eq!(ctx.pool_states.of("default").dns.published, None);
}

#[tokio::test(start_paused = true)]
async fn an_operator_that_starts_goes_on_with_the_records_that_are_there() {
    let server = Server::default();
    server.with(|state| state.has_records = true);
    let ctx = server.operator(facts([true, true], both()));
    let start = Instant::now();
    Names::default().look(&ctx, start).await;
    let before = server.with(|state| state.objects.clone());
    let targets =
        |objects: &BTreeMap<String, Value>| objects[&format!("{RECORDS}/trivet-default")]["spec"].clone();

    // The next one sees a member Down at its first look.
    let ctx = server.operator(facts([true, false], both()));
    let mut names = Names::default();
    names.look(&ctx, start).await;
    assert_eq!(server.with(|state| targets(&state.objects)), targets(&before));
    names.look(&ctx, start + damping::OUT_AFTER).await;
    assert_ne!(server.with(|state| targets(&state.objects)), targets(&before));
}
