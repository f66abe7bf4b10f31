//! A newer valid document is followed without disturbing clients; any other document is rejected.

use std::{
    collections::BTreeSet,
    fs,
    io::ErrorKind,
    net::SocketAddr,
    sync::{Arc, mpsc},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    join,
    net::TcpStream,
    runtime::Builder,
    sync::watch,
    task::spawn_blocking,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use trivet_proxy::{
    balance::place::Place,
    document::{Documents, OfferResult, cache::Cache, keeper::Keeper, stale},
    source::Source,
    upstream::Upstreams,
};

use crate::support::{
    apiserver::{Apiserver, Mode},
    authority::Authority,
    eventually,
    node::{Node, Pool, all, node_with},
};

#[tokio::test]
async fn a_member_that_is_added_is_used() {
    let (node, mut apiservers) = node_with(1).await;
    apiservers.push(Apiserver::start("cp2", node.authority.server()));
    node.write(&apiservers.iter().fold(node.pool().revision(2), Pool::member));
    node.follows(2).await;
    node.sees(&apiservers[1], "Up").await;
    eventually("cp2 serves", async || node.who().await.unwrap() == "cp2").await;
}

#[tokio::test]
async fn a_member_that_is_removed_gets_nothing_new_and_loses_its_connections_in_time() {
    let (node, apiservers) = node_with(2).await;
    let mut leaving = node.client_on(&apiservers[0]).await;
    let mut staying = node.client_on(&apiservers[1]).await;
    node.write(&node.pool().revision(2).member(&apiservers[1]));
    node.follows(2).await;
    for _ in 0..10 {
        assert_eq!(node.who().await.unwrap(), "cp2");
    }
    leaving.end().await;
    assert_eq!(staying.who().await.unwrap(), "cp2");
    let line = "trivet_proxy_upstream_state{member=\"cp1\",state=\"Up\"}";
    eventually("cp1 is forgotten", async || node.metric(line).await.is_none()).await;
    assert_eq!(
        node.metric("trivet_proxy_connections_ended_total{reason=\"MemberDrained\"}")
            .await,
        Some(1)
    );
}

#[tokio::test]
async fn a_draining_member_is_watched_until_it_is_active_again() {
    let (node, apiservers) = node_with(2).await;
    node.write(
        &node
            .pool()
            .revision(2)
            .draining(&apiservers[0])
            .member(&apiservers[1]),
    );
    node.follows(2).await;
    for _ in 0..10 {
        assert_eq!(node.who().await.unwrap(), "cp2");
    }
    node.sees(&apiservers[0], "Up").await;
    node.write(
        &node
            .pool()
            .revision(3)
            .member(&apiservers[0])
            .member(&apiservers[1]),
    );
    node.follows(3).await;
    eventually("cp1 serves again", async || node.who().await.unwrap() == "cp1").await;
}

#[tokio::test]
async fn an_unchanged_member_keeps_its_connections_and_its_health() {
    let (node, apiservers) = node_with(2).await;
    let mut client = node.client_on(&apiservers[0]).await;
    for revision in 2..12 {
        node.write(
            &apiservers
                .iter()
                .fold(node.pool().revision(revision), Pool::member),
        );
        node.follows(revision).await;
        let line = "trivet_proxy_upstream_state{member=\"cp1\",state=\"Up\"}";
        assert_eq!(node.metric(line).await, Some(1));
    }
    assert_eq!(client.who().await.unwrap(), "cp1");
}

#[tokio::test]
async fn an_older_or_a_broken_document_changes_nothing() {
    let (node, apiservers) = node_with(2).await;
    let pool = |revision| {
        apiservers
            .iter()
            .fold(node.pool().revision(revision), Pool::member)
    };
    node.write(&pool(5));
    node.follows(5).await;
    for (refused, reason) in [
        (node.pool().revision(4).member(&apiservers[0]).text(), "Older"),
        (node.pool().revision(6).text(), "Invalid"),
        (pool(7).text().replace("cp1", "cp9"), "HashMismatch"),
        (pool(8).with_authorities("none").text(), "UnusableTls"),
        ("torn".to_owned(), "Malformed"),
    ] {
        node.write_text(&refused);
        let line = format!("trivet_proxy_documents_refused_total{{source=\"File\",reason=\"{reason}\"}}");
        eventually(&line, async || node.metric(&line).await == Some(1)).await;
    }
    assert_eq!(node.metric("trivet_proxy_document_revision").await, Some(5));
    assert!(node.who().await.is_ok());
}

#[tokio::test]
async fn a_revision_far_in_the_future_does_not_block_later_documents() {
    let (node, apiservers) = node_with(1).await;
    for implausible in [1 << 39, 1 << 40, u64::MAX] {
        node.write(&node.pool().revision(implausible).member(&apiservers[0]));
        let line = "trivet_proxy_documents_refused_total{source=\"File\",reason=\"Invalid\"}";
        eventually(line, async || node.metric(line).await >= Some(1)).await;
        assert_eq!(node.metric("trivet_proxy_document_revision").await, Some(1));
    }
    node.write(&node.pool().revision(2).member(&apiservers[0]));
    node.follows(2).await;
}

#[tokio::test]
async fn a_proxy_starts_from_its_disk_alone() {
    let (mut node, apiservers) = node_with(2).await;
    let proven = node.path("cache/proven.json");
    eventually("both are remembered", async || {
        fs::read_to_string(&proven).is_ok_and(|text| text.contains("cp1") && text.contains("cp2"))
    })
    .await;
    node.stop().await;
    fs::remove_file(node.path("pool.json")).unwrap();
    // The newest generation is torn; the one before it is good.
    fs::write(node.path("cache/document-00000000000000000009.json"), "{\"apiVer").unwrap();
    node.start().await;
    node.follows(1).await;
    // It is remembered as proven, so it is used before its first probe.
    assert!(node.who().await.is_ok());
    assert_eq!(apiservers.iter().map(Apiserver::served).sum::<usize>(), 1);
}

/// The proven members on the node's disk.
fn remembered(node: &Node) -> String {
    fs::read_to_string(node.path("cache/proven.json")).unwrap_or_default()
}

#[tokio::test]
async fn a_member_is_remembered_as_proven_until_five_later_documents_know_more() {
    let (node, apiservers) = node_with(2).await;
    eventually("both are remembered", async || {
        let proven = remembered(&node);
        proven.contains("cp1") && proven.contains("cp2")
    })
    .await;
    for revision in 2..=12 {
        node.write(&node.pool().revision(revision).member(&apiservers[0]));
        node.follows(revision).await;
    }
    let with_another = async |number: u8| {
        let address = SocketAddr::from(([192, 0, 2, number], 6443));
        let pool = node.pool().revision(number.into()).member(&apiservers[0]);
        node.write(&pool.impatient_with(address));
        node.follows(number.into()).await;
    };
    for number in 13..=17 {
        with_another(number).await;
        assert!(remembered(&node).contains("cp2"), "revision {number}");
    }
    with_another(18).await;
    eventually("cp2 is forgotten", async || !remembered(&node).contains("cp2")).await;
    assert!(remembered(&node).contains("cp1"));

    node.write(&apiservers.iter().fold(node.pool().revision(19), Pool::member));
    node.sees(&apiservers[1], "Up").await;
    eventually("cp2 proves itself again", async || {
        remembered(&node).contains("cp2")
    })
    .await;
}

/// The text of a document as a later release may write it. Without a hash, which this release cannot know.
fn of_a_later_release(pool: &Pool) -> String {
    let mut value: Value = serde_json::from_str(&pool.text()).unwrap();
    let fields = value.as_object_mut().unwrap();
    fields.remove("hash");
    fields.insert("later".to_owned(), json!({ "of": ["a", "later", "release"] }));
    value["members"][0]["weight"] = 3.into();
    value["listeners"][0]["backlog"] = 4096.into();
    value.to_string()
}

#[tokio::test]
async fn a_document_keeps_the_fields_of_a_later_release_on_the_disk_and_on_its_way_to_a_successor() {
    let mut node = Node::new().of_generation(1);
    let apiserver = Apiserver::start("cp1", node.authority.server());
    let text = of_a_later_release(&node.pool().member(&apiserver));
    node.write_text(&text);
    node.start().await;
    let file = "cache/document-00000000000000000001.json";
    let kept = |node: &Node| fs::read_to_string(node.path(file)).unwrap_or_default();
    eventually("it is on the disk", async || kept(&node) == text).await;
    node.sees(&apiserver, "Up").await;

    // A process of this release that has got it from the one that serves, and keeps it.
    let mut successor = node.successor_without_document();
    successor.start().await;
    successor.follows(1).await;
    eventually("it was handed over whole", async || kept(&successor) == text).await;
    successor.stop().await;
    node.stop().await;

    // It is read back, and served from the disk.
    fs::remove_file(node.path("pool.json")).unwrap();
    node.start().await;
    node.follows(1).await;
    assert!(node.who().await.is_ok());
    assert_eq!(kept(&node), text);
}

#[tokio::test]
async fn only_the_very_address_that_proved_itself_is_remembered() {
    let mut node = Node::new();
    let apiservers = ["cp1", "cp2", "cp3"].map(|name| Apiserver::start(name, node.authority.server()));
    for apiserver in &apiservers {
        apiserver.set(Mode::Hung);
    }
    let entry =
        |name: &str, address: SocketAddr| format!("{{\"name\":\"{name}\",\"addresses\":[\"{address}\"]}}");
    let [first, second, third] = [&apiservers[0], &apiservers[1], &apiservers[2]].map(|known| known.address);
    let entries = [
        entry("cp1", first),
        // Another port or IP address: another server may have answered there.
        entry("cp2", SocketAddr::new(second.ip(), 1)),
        entry("cp3", SocketAddr::from(([192, 0, 2, 1], third.port()))),
        entry("gone", SocketAddr::from(([192, 0, 2, 2], 6443))),
    ];
    fs::create_dir(node.path("cache")).unwrap();
    fs::write(node.path("cache/proven.json"), format!("[{}]", entries.join(","))).unwrap();
    node.write(&apiservers.iter().fold(node.pool(), Pool::member));
    node.start().await;
    node.follows(1).await;
    let status = node.status().await;
    let proven: Vec<_> = status
        .upstreams
        .iter()
        .map(|upstream| (upstream.member.as_str(), upstream.proven))
        .collect();
    assert_eq!(proven, [("cp1", true), ("cp2", false), ("cp3", false)]);
    eventually("the others are forgotten", async || {
        let left = remembered(&node);
        left.contains("cp1") && !["cp2", "cp3", "gone"].iter().any(|name| left.contains(name))
    })
    .await;
}

/// A node whose disk fails, and whose proxy has followed two documents and proven its member.
async fn node_with_a_broken_disk() -> (Node, Apiserver) {
    let mut node = Node::new();
    let apiserver = Apiserver::start("cp1", node.authority.server());
    // Permissions would not stop root.
    fs::write(node.path("cache"), "in the way").unwrap();
    node.write(&node.pool().member(&apiserver));
    node.start().await;
    node.sees(&apiserver, "Up").await;
    assert_eq!(node.who().await.unwrap(), "cp1");
    node.write(&node.pool().revision(2).member(&apiserver));
    node.follows(2).await;
    (node, apiserver)
}

fn newest_on_the_disk(node: &Node) -> Option<String> {
    fs::read_to_string(node.path("cache/document-00000000000000000002.json")).ok()
}

#[tokio::test]
async fn a_disk_that_works_again_soon_holds_what_it_missed() {
    let (node, apiserver) = node_with_a_broken_disk().await;
    assert_eq!(warnings(&node).await, ["CacheUnreadable", "CacheUnwritable"]);
    fs::remove_file(node.path("cache")).unwrap();
    eventually("both files are there", async || {
        newest_on_the_disk(&node).is_some() && remembered(&node).contains("cp1")
    })
    .await;
    assert_eq!(
        newest_on_the_disk(&node).unwrap(),
        node.pool().revision(2).member(&apiserver).text()
    );
    eventually("all is well", async || warnings(&node).await.is_empty()).await;
}

#[tokio::test]
async fn what_the_disk_missed_is_on_it_when_the_proxy_has_ended() {
    let (mut node, _apiserver) = node_with_a_broken_disk().await;
    fs::remove_file(node.path("cache")).unwrap();
    node.stop().await;
    assert!(newest_on_the_disk(&node).is_some());
    assert!(remembered(&node).contains("cp1"));
}

#[test]
fn a_disk_that_hangs_blocks_neither_clients_nor_the_end() {
    // Disk access runs on blocking threads; this runtime has one.
    let runtime = Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build()
        .unwrap();
    let (disk_works, hang) = mpsc::channel::<()>();
    runtime.block_on(async {
        let mut node = Node::new();
        let apiserver = Apiserver::start("cp1", node.authority.server());
        node.write(&node.pool().member(&apiserver));
        // The start reads the document; afterwards the thread is stuck.
        let stuck = async { drop(spawn_blocking(move || hang.iter().for_each(drop))) };
        let started = async { join!(node.start(), stuck) };
        timeout(Duration::from_secs(10), started).await.unwrap();
        node.sees(&apiserver, "Up").await;
        assert_eq!(node.who().await.unwrap(), "cp1");
        timeout(Duration::from_secs(10), node.stop()).await.unwrap();
        assert!(!node.path("cache").exists(), "the disk did not hang");
    });
    drop(disk_works);
}

#[tokio::test]
async fn what_a_crash_left_half_written_is_gone_after_the_next_start() {
    let mut node = Node::new();
    let left = node.path("cache/.proven.json.0123456789abcdef.tmp");
    fs::create_dir(node.path("cache")).unwrap();
    fs::write(&left, "[").unwrap();
    node.start().await;
    eventually("it is gone", async || !left.exists()).await;
}

#[tokio::test]
async fn the_disk_never_takes_a_proxy_back() {
    let (mut node, apiservers) = node_with(1).await;
    node.write(&node.pool().revision(8).member(&apiservers[0]));
    node.follows(8).await;
    let kept = node.path("cache/document-00000000000000000008.json");
    eventually("kept", async || kept.exists()).await;
    node.stop().await;
    node.write(&node.pool().revision(3).member(&apiservers[0]));
    node.start().await;
    node.follows(8).await;
}

/// The reasons of the warnings in the proxy's status.
async fn warnings(node: &Node) -> Vec<String> {
    let warnings = node.status().await.warnings.into_iter();
    warnings.map(|warning| warning.reason).collect()
}

#[tokio::test]
async fn a_host_with_the_cache_of_another_cluster_is_ready_within_30_seconds() {
    let mut node = Node::new();
    let apiserver = Apiserver::start("cp1", node.authority.server());
    // The old cluster had a master at the same address, and its revisions are higher. Its five documents fill the cache.
    let old = node.pool().with_authorities(&Authority::new().bundle);
    fs::create_dir(node.path("cache")).unwrap();
    for revision in 16..=20 {
        let file = node.path(&format!("cache/document-{revision:020}.json"));
        fs::write(file, old.clone().revision(revision).member(&apiserver).text()).unwrap();
    }
    let new = node.pool().revision(1).member(&apiserver);
    node.write(&new);
    node.start().await;
    node.follows(20).await;
    eventually("it is told", async || warnings(&node).await == ["OtherAuthority"]).await;
    let ready = async { eventually("ready", async || node.ready().await).await };
    timeout(Duration::from_secs(30), ready).await.unwrap();
    node.follows(1).await;
    assert_eq!(node.who().await.unwrap(), "cp1");
    eventually("it is told no longer", async || warnings(&node).await.is_empty()).await;

    // The next start needs no file, and does not go back.
    let kept = node.path("cache/document-00000000000000000001.json");
    eventually("kept alone", async || {
        kept.exists() && fs::read_dir(node.path("cache")).unwrap().count() == 2
    })
    .await;
    node.stop().await;
    fs::remove_file(node.path("pool.json")).unwrap();
    node.start().await;
    node.follows(1).await;
}

/// A document of a cluster with this authority.
fn document_of(authority: &Authority, revision: u64) -> String {
    let pool = Pool::new(authority, 7443).revision(revision);
    pool.impatient_with("192.0.2.1:6443".parse().unwrap()).text()
}

#[tokio::test]
async fn the_disk_goes_over_to_the_new_cluster_also_where_its_first_document_is_never_written() {
    let (old, new) = (Authority::new(), Authority::new());
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::new(directory.path().to_owned());
    for revision in 16..=20 {
        cache.store(revision, &document_of(&old, revision)).unwrap();
    }
    let documents = Documents::new(Some(cache.clone()), Arc::default(), Arc::default());
    documents.offer_cached();
    assert_eq!(documents.revision(), Some(20));
    let offer = |revision| documents.offer(&document_of(&new, revision), Source::Watch);
    assert_eq!(offer(1), OfferResult::Stale);
    let stale = documents.subscribe_stale().borrow().clone();
    documents.follow_stale(&stale[0], &documents.in_force().unwrap());
    assert_eq!(offer(2), OfferResult::Followed);

    // The keeper of a slow disk sees only the later of the two.
    let stop = CancellationToken::new();
    let (_proven, proven) = watch::channel(BTreeSet::new());
    let keeper = Keeper::new(cache.clone(), documents.subscribe(), proven, Arc::default());
    let keeping = tokio::spawn(keeper.run(stop.clone()));
    let texts = |revisions: &[u64]| -> Vec<_> {
        let texts = revisions.iter().map(|revision| document_of(&new, *revision));
        texts.collect()
    };
    eventually("the new cluster alone", async || {
        cache.texts().unwrap() == texts(&[2])
    })
    .await;

    // From then on the generations count as usual.
    assert_eq!(offer(3), OfferResult::Followed);
    stop.cancel();
    keeping.await.unwrap();
    assert_eq!(cache.texts().unwrap(), texts(&[3, 2]));
}

#[tokio::test]
async fn an_older_document_whose_authority_both_know_does_not_replace_the_newer_one() {
    let (signing, further) = (Authority::new(), Authority::new());
    let apiserver = Apiserver::start("cp1", signing.server());
    let pool = |revision| Pool::new(&signing, 7443).revision(revision).member(&apiserver);
    let newer = pool(2).with_authorities(&format!("{}{}", signing.bundle, further.bundle));
    let documents = Arc::new(Documents::new(None, Arc::default(), Arc::default()));
    assert_eq!(
        documents.offer(&newer.text(), Source::Watch),
        OfferResult::Followed
    );
    assert_eq!(documents.offer(&pool(1).text(), Source::File), OfferResult::Stale);

    // Without a probe it looks as if the newer document's authorities verified no member, as after a refused one.
    let place = Place {
        node: "w1".to_owned(),
        zone: String::new(),
    };
    let upstreams = Upstreams::new(place, Arc::default(), None, watch::Sender::default());
    let resolving = stale::resolve(Arc::clone(&documents), upstreams, Arc::default());
    let _resolving = AbortOnDropHandle::new(tokio::spawn(resolving));
    // A first attempt asks under both documents, and a second one follows only where the first changed nothing.
    eventually("two attempts", async || apiserver.tokens().len() >= 3).await;
    assert_eq!(documents.revision(), Some(2));
}

#[test]
fn only_the_api_tells_that_a_document_came_back_from_a_backup() {
    let (own, other) = (Authority::new(), Authority::new());
    let documents = Documents::new(None, Arc::default(), Arc::default());
    let offer = |authority, revision, source| documents.offer(&document_of(authority, revision), source);
    assert_eq!(documents.older_in_api(), None);
    offer(&own, 20, Source::Watch);
    offer(&own, 7, Source::File);
    offer(&other, 8, Source::Watch);
    assert_eq!(documents.older_in_api(), None, "a lag, and another cluster");
    offer(&own, 9, Source::Watch);
    assert_eq!(documents.older_in_api(), Some(9));
    offer(&own, 21, Source::Watch);
    assert_eq!(documents.older_in_api(), None);
}

#[test]
fn no_revision_is_told_before_a_source_of_this_cluster_has_an_authority_like_it() {
    let (own, other) = (Authority::new(), Authority::new());
    let of_disk = || {
        let documents = Documents::new(None, Arc::default(), Arc::default());
        documents.offer(&document_of(&other, 20), Source::Handover);
        documents
    };
    let documents = of_disk();
    assert_eq!(
        documents.witnessed_revision(),
        None,
        "nothing of the API is known"
    );
    documents.offer(&document_of(&own, 7), Source::File);
    assert_eq!(documents.witnessed_revision(), None, "the mount contests it");
    documents.offer("no document", Source::Watch);
    assert_eq!(documents.witnessed_revision(), None, "the watch has told nothing");
    documents.offer(&document_of(&own, 8), Source::Watch);
    assert_eq!(documents.witnessed_revision(), None, "the watch contests it");
    documents.offer(&document_of(&own, 21), Source::Watch);
    assert_eq!(documents.witnessed_revision(), Some(21));

    // The operator must exceed what came back from a backup, whatever lags behind.
    let documents = of_disk();
    documents.offer(&document_of(&own, 7), Source::File);
    documents.offer(&document_of(&other, 9), Source::Watch);
    assert_eq!(documents.witnessed_revision(), Some(20));

    let documents = of_disk();
    documents.offer(&document_of(&other, 20), Source::File);
    assert_eq!(documents.witnessed_revision(), Some(20), "the mount has it too");
}

#[test]
fn a_document_that_was_replaced_for_its_authority_does_not_come_back() {
    let of = document_of;
    let (old, new) = (Authority::new(), Authority::new());
    let documents = Documents::new(None, Arc::default(), Arc::default());
    let offer = |text: &str| documents.offer(text, Source::Watch);
    assert_eq!(offer(&of(&old, 20)), OfferResult::Followed);
    assert_eq!(offer(&of(&new, 1)), OfferResult::Stale);
    let stale = documents.subscribe_stale().borrow().clone();
    documents.follow_stale(&stale[0], &documents.in_force().unwrap());
    assert_eq!(documents.revision(), Some(1));
    assert!(documents.earlier_paths().is_empty());
    assert_eq!(offer(&of(&old, 20)), OfferResult::Stale);
    assert_eq!(documents.revision(), Some(1));
    assert_eq!(offer(&of(&new, 21)), OfferResult::Followed);
    assert!(documents.subscribe_stale().borrow().is_empty());
}

#[tokio::test]
async fn another_document_of_the_same_revision_is_told() {
    let (node, apiservers) = node_with(2).await;
    node.write(&node.pool().member(&apiservers[0]));
    eventually("it is told", async || warnings(&node).await == ["SameRevision"]).await;
    assert!(node.who().await.is_ok());
    node.write(&node.pool().revision(2).member(&apiservers[0]));
    node.follows(2).await;
    eventually("it is told no longer", async || warnings(&node).await.is_empty()).await;
}

#[tokio::test]
async fn a_proxy_without_a_document_waits_for_one() {
    let mut node = Node::new();
    node.start().await;
    assert!(!node.ready().await);
    assert!(!node.started().await);
    let apiserver = Apiserver::start("cp1", node.authority.server());
    node.write(&node.pool().member(&apiserver));
    node.sees(&apiserver, "Up").await;
    eventually("ready", async || node.ready().await).await;
    assert!(node.started().await);
}

#[tokio::test]
async fn readiness_stays_through_an_outage() {
    let (node, apiservers) = node_with(2).await;
    eventually("ready", async || node.ready().await).await;
    all(&apiservers, Mode::Killed);
    for apiserver in &apiservers {
        node.sees(apiserver, "Unready").await;
    }
    assert!(node.ready().await);
}

#[tokio::test]
async fn an_address_that_the_document_drops_is_closed_for_good() {
    dropped_address_is_closed(Node::new()).await;
}

#[tokio::test]
async fn an_address_that_the_document_drops_is_closed_where_proxies_hand_over() {
    dropped_address_is_closed(Node::new().of_generation(1)).await;
}

async fn dropped_address_is_closed(mut node: Node) {
    let apiserver = Apiserver::start("cp1", node.authority.server());
    let pool = node.pool().member(&apiserver);
    let dropped = SocketAddr::new("127.0.0.2".parse().unwrap(), node.proxy.port());
    node.write(&pool.clone().also_listening_on(dropped.ip()));
    node.start().await;
    eventually("both are open", async || {
        TcpStream::connect(dropped).await.is_ok() && node.who().await.is_ok()
    })
    .await;
    node.write(&pool.revision(2));
    node.follows(2).await;
    eventually("it is closed", async || {
        TcpStream::connect(dropped).await.is_err()
    })
    .await;
    // Whatever the proxy tries again, it tries within this time.
    for _ in 0..30 {
        sleep(Duration::from_millis(50)).await;
        let refused = TcpStream::connect(dropped).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    }
    assert_eq!(node.who().await.unwrap(), "cp1");
}
