//! The writer brings a standby's manifest to a node, and removes the one before it once the new standby is warm.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{ChildStdout, Command, Output, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;
use tokio::net::TcpStream;
use trivet_proxy::handover::rank::Class;

use crate::{
    addresses::free_address,
    support::{
        apiserver::Apiserver,
        eventually,
        node::{Node, node_with},
    },
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_trivet-proxy");

/// The arguments of the writer of pool `default`.
const WRITE: [&str; 5] = [
    "write-manifest",
    "--pool",
    "default",
    "--image",
    "registry.example/trivet-proxy:0.1.0",
];

/// Runs the program beside the proxies of this test.
async fn run(command: Command) -> Output {
    let mut command = command;
    tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

/// Writes the manifest on a node, and waits this long for the standby.
async fn write(node: &Node, directory: &Path, seconds: &str) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(WRITE).arg("--directory").arg(directory);
    command.arg("--handover-dir").arg(node.path("handover"));
    command.args(["--wait-seconds", seconds]);
    run(command).await
}

fn text(output: &Output) -> String {
    let text = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8(text).unwrap()
}

fn succeeded(output: &Output, words: &[&str]) {
    let text = text(output);
    assert!(output.status.success(), "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text}");
    }
}

/// Kubelet runs the command again.
fn failed(output: &Output, words: &[&str]) {
    let text = text(output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text}");
    }
}

fn files(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// What is beside the manifests of pool `default` and none of its business.
const OTHERS: [&str; 3] = [
    "etcd.yaml",
    "trivet-default-12345678-00000001.yaml",
    "trivet-other-00000001.yaml",
];

const OLDER: &str = "trivet-default-00000001.yaml";

fn directory_with_an_older_manifest() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for name in OTHERS.iter().chain([&OLDER]) {
        fs::write(directory.path().join(name), "").unwrap();
    }
    directory
}

/// The manifest that was written, and its hash.
fn written(directory: &Path) -> (String, String) {
    let mut new = files(directory);
    new.retain(|name| name != OLDER && !OTHERS.contains(&name.as_str()));
    let [name] = new.as_slice() else {
        panic!("{new:?}");
    };
    let hash = name.strip_prefix("trivet-default-").unwrap();
    (name.clone(), hash.strip_suffix(".yaml").unwrap().to_owned())
}

async fn serving() -> (Node, Apiserver) {
    let mut node = Node::new().of_generation(1);
    let apiserver = Apiserver::start("cp1", node.authority.server());
    node.write(&node.pool().member(&apiserver));
    node.start().await;
    eventually("ready", async || node.ready().await).await;
    (node, apiserver)
}

/// What kubelet starts from the manifest with this hash.
async fn standby_of(node: &Node, hash: &str) -> Node {
    standby_with_metrics_at(node, hash, None).await
}

async fn standby_with_metrics_at(node: &Node, hash: &str, metrics: Option<SocketAddr>) -> Node {
    let mut standby = node.successor();
    standby.metrics_address = metrics;
    let handover = standby.handover.as_mut().unwrap();
    handover.class = Class::Static;
    handover.generation = 0;
    hash.clone_into(&mut handover.template);
    standby.start().await;
    eventually("the standby is ready", async || standby.ready().await).await;
    standby
}

#[tokio::test]
async fn the_manifest_before_stays_until_the_new_standby_is_warm() {
    let (node, _apiserver) = serving().await;
    let directory = directory_with_an_older_manifest();
    let first = write(&node, directory.path(), "1").await;
    let (name, hash) = written(directory.path());
    failed(
        &first,
        &[
            &format!("wrote {name}"),
            "has not been started by kubelet",
            &format!("the older manifests stay: {OLDER}"),
            "staticPodPath",
        ],
    );
    assert!(directory.path().join(OLDER).exists());

    let _standby = standby_of(&node, &hash).await;
    let second = write(&node, directory.path(), "30").await;
    succeeded(
        &second,
        &[
            &format!("unchanged: {name}"),
            "is warm",
            &format!("removed {OLDER}"),
        ],
    );
    let mut left: Vec<_> = OTHERS.map(str::to_owned).to_vec();
    left.push(name);
    left.sort();
    assert_eq!(files(directory.path()), left);
}

#[tokio::test]
async fn a_node_on_which_no_proxy_serves_keeps_all_manifests() {
    let node = Node::new();
    let directory = directory_with_an_older_manifest();
    let output = write(&node, directory.path(), "1").await;
    failed(&output, &["no process serves there", "the older manifests stay"]);
    assert!(directory.path().join(OLDER).exists());
    written(directory.path());
}

#[tokio::test]
async fn a_manifest_that_is_there_and_alone_is_waited_for_no_more() {
    let node = Node::new();
    let directory = tempfile::tempdir().unwrap();
    write(&node, directory.path(), "0").await;
    let file = directory.path().join(written(directory.path()).0);
    let before = fs::metadata(&file).unwrap().modified().unwrap();
    // A wait would exceed the limit of any test.
    let output = write(&node, directory.path(), "600").await;
    succeeded(&output, &["unchanged: "]);
    assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), before);
}

#[tokio::test]
async fn a_writer_that_is_stopped_keeps_all_manifests() {
    let directory = directory_with_an_older_manifest();
    let mut command = Command::new(PROGRAM);
    command.args(WRITE).arg("--directory").arg(directory.path());
    command.args(["--handover-dir", "/nonexistent", "--wait-seconds", "600"]);
    let child = command.stdout(Stdio::piped()).spawn().unwrap();
    eventually("it is written", async || {
        files(directory.path()).len() > OTHERS.len() + 1 && listens_for_signals(child.id())
    })
    .await;
    terminate(child.id());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(directory.path().join(OLDER).exists());
    written(directory.path());
}

/// The first manifest of a node may be in a directory that its kubelet does not read: no repetition of the command helps.
#[tokio::test]
async fn a_standby_that_does_not_come_is_told_in_the_status_of_the_writer() {
    let (node, _apiserver) = serving().await;
    let directory = tempfile::tempdir().unwrap();
    let told = node.path("termination-log");
    fs::write(
        &told,
        "of the run before, which was longer than this one: ".repeat(20),
    )
    .unwrap();
    let mut command = Command::new(PROGRAM);
    command.args(WRITE).arg("--directory").arg(directory.path());
    command.arg("--handover-dir").arg(node.path("handover"));
    command
        .args(["--wait-seconds", "0", "--termination-log"])
        .arg(&told);
    let output = run(command).await;
    succeeded(&output, &["has not been started by kubelet"]);
    let told = fs::read_to_string(told).unwrap();
    let (name, _hash) = written(directory.path());
    assert!(
        told.starts_with(&format!(
            "after 0 s the standby of {name} has not been started by kubelet; "
        )),
        "{told}"
    );
}

/// Removes the manifests as the writer does on a node, and waits this long for a proxy that stays.
async fn remove(node: &Node, directory: &Path, seconds: &str) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(["remove-manifest", "--pool", "default", "--directory"]);
    command
        .arg(directory)
        .arg("--handover-dir")
        .arg(node.path("handover"));
    command.args(["--wait-seconds", seconds, "--termination-log"]);
    command.arg(node.path("termination-log"));
    run(command).await
}

#[tokio::test]
async fn the_manifests_of_a_pool_are_removed_and_no_others() {
    let (node, _apiserver) = serving().await;
    let directory = directory_with_an_older_manifest();
    let output = remove(&node, directory.path(), "60").await;
    succeeded(&output, &[&format!("removed {OLDER}")]);
    assert_eq!(files(directory.path()), OTHERS);
    // Nothing is removed, so nobody is asked.
    let elsewhere = Node::new();
    let output = remove(&elsewhere, directory.path(), "0").await;
    succeeded(&output, &["no manifest of pool default"]);
}

#[tokio::test]
async fn the_manifest_of_a_standby_that_serves_stays_until_another_proxy_serves() {
    let (mut pod, _apiserver) = serving().await;
    let _standby = standby_of(&pod, "00000001").await;
    let mut next = pod.successor().of_generation(2);
    pod.stop().await;
    let directory = directory_with_an_older_manifest();
    let output = remove(&pod, directory.path(), "1").await;
    let words = [
        "the standby is the proxy that serves on this node",
        "the manifests stay",
    ];
    failed(&output, &words);
    assert!(directory.path().join(OLDER).exists());

    fs::write(pod.path("termination-log"), "").unwrap();
    let output = remove(&pod, directory.path(), "0").await;
    let told = fs::read_to_string(pod.path("termination-log")).unwrap();
    assert!(text(&output).contains(&told) && told.contains(words[0]), "{told}");

    next.start().await;
    let output = remove(&pod, directory.path(), "60").await;
    succeeded(&output, &[&format!("removed {OLDER}")]);
}

#[tokio::test]
async fn a_node_on_which_no_proxy_answers_keeps_its_standby() {
    let node = Node::new();
    let directory = directory_with_an_older_manifest();
    let output = remove(&node, directory.path(), "1").await;
    failed(&output, &["no process serves there", "the manifests stay"]);
    assert!(directory.path().join(OLDER).exists());
}

/// The command that removes what the pool of a node leaves. The directory in which its proxies meet has the pool's name.
fn remove_state(node: &Node, caches: &Path) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(["remove-state", "--pool", "handover", "--run-root"]);
    command.arg(node.path("")).arg("--cache-root").arg(caches);
    command
}

/// Reads lines until one begins so.
async fn until(mut lines: BufReader<ChildStdout>, begins: &'static str) -> BufReader<ChildStdout> {
    let read = tokio::task::spawn_blocking(move || {
        loop {
            let mut line = String::new();
            assert!(
                lines.read_line(&mut line).unwrap() > 0,
                "no line begins with {begins}"
            );
            if line.starts_with(begins) {
                return lines;
            }
        }
    });
    read.await.unwrap()
}

#[tokio::test]
async fn what_a_retired_pool_leaves_goes_once_its_last_proxy_has_ended() {
    let (mut node, _apiserver) = serving().await;
    let caches = tempfile::tempdir().unwrap();
    for pool in ["handover", "other"] {
        fs::create_dir(caches.path().join(pool)).unwrap();
    }
    let mut check = remove_state(&node, caches.path());
    check.arg("--check");
    failed(&run(check).await, &["left: "]);

    let mut remover = remove_state(&node, caches.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(remover.stdout.take().unwrap());
    let lines = until(lines, "waiting: a proxy serves").await;
    assert!(node.path("handover").exists());
    node.stop().await;
    let _lines = until(until(lines, "removed ").await, "removed ").await;
    assert_eq!(files(caches.path()), ["other"]);
    let mut check = remove_state(&node, caches.path());
    check.arg("--check");
    succeeded(&run(check).await, &["nothing is left"]);

    let pid = Pid::from_raw(remover.id().try_into().unwrap());
    kill(pid, Signal::SIGTERM).unwrap();
    let ended = tokio::task::spawn_blocking(move || remover.wait().unwrap());
    assert!(ended.await.unwrap().success());
}

#[tokio::test]
async fn the_standbys_of_a_retired_pool_go_with_their_manifests() {
    let (pod, _apiserver) = serving().await;
    let mut standby = standby_of(&pod, "00000001").await;
    let directory = directory_with_an_older_manifest();
    let remove = |seconds| {
        let mut command = Command::new(PROGRAM);
        command.args(["remove-standby", "--pool", "default", "--directory"]);
        command
            .arg(directory.path())
            .arg("--handover-dir")
            .arg(pod.path("handover"));
        command.args(["--wait-seconds", seconds]);
        run(command)
    };
    failed(
        &remove("0").await,
        &[&format!("removed {OLDER}"), "a standby runs"],
    );
    assert_eq!(files(directory.path()), OTHERS);
    standby.stop().await;
    succeeded(&remove("60").await, &["no standby of pool default is left"]);
}

/// Without the node's disk a standby knows the members by its manifest.
#[tokio::test]
async fn the_manifest_has_the_document_of_the_cluster_and_is_written_without_one_too() {
    let (node, _apiserver) = serving().await;
    let document = fs::read_to_string(node.path("pool.json")).unwrap();
    let other = tempfile::NamedTempFile::new().unwrap();
    let of_other = document.replace("\"pool\": \"default\"", "\"pool\": \"other\"");
    fs::write(other.path(), of_other).unwrap();
    for (document, told) in [
        (node.path("pool.json"), "wrote trivet-default-"),
        (node.path("none"), "no seed: failed to read --document "),
        (node.path(""), "no seed: failed to read --document "),
        (other.path().to_owned(), "no seed: --document "),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new(PROGRAM);
        command.args(WRITE).arg("--directory").arg(directory.path());
        command.arg("--handover-dir").arg(node.path("handover"));
        command.args(["--wait-seconds", "0", "--document"]).arg(&document);
        let output = run(command).await;
        succeeded(&output, &[told, "wrote trivet-default-"]);
        let manifest = fs::read_to_string(directory.path().join(written(directory.path()).0)).unwrap();
        let has_seed = manifest.contains("name: TRIVET_SEED");
        assert_eq!(has_seed, !told.contains("no seed"), "{manifest}");
    }
}

/// Runs the writer on a file system of its own, mounted at `mount` with these options.
async fn write_on(options: &str, before: &str) -> (Output, TempDir) {
    let mount = tempfile::tempdir().unwrap();
    let script = format!(
        "mount -t tmpfs -o {options} tmpfs \"$0\" && {before} && {{ \"$@\" --directory \"$0\"; code=$?; ls -A \"$0\"; exit $code; }}"
    );
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", &script]);
    command.arg(mount.path()).arg(PROGRAM).args(WRITE);
    (run(command).await, mount)
}

fn is_told(output: &Output, directory: &Path, words: &[&str]) {
    let told = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(
        told.contains(&format!("--directory {} (", directory.display())),
        "{told}"
    );
    for word in words {
        assert!(told.contains(word), "{word:?} is not in {told}");
    }
}

#[tokio::test]
async fn a_read_only_directory_is_told_with_the_remedy() {
    let (output, mount) = write_on("ro", "true").await;
    is_told(
        &output,
        mount.path(),
        &["Read-only file system", "must be writable"],
    );
}

#[tokio::test]
async fn a_full_directory_is_told_and_nothing_half_written_stays() {
    let fill = "head -c 65536 /dev/zero > \"$0/etcd.yaml\"";
    let (output, mount) = write_on("size=64k", fill).await;
    is_told(&output, mount.path(), &["No space left", "make room"]);
    // After the word about the seed, of which this node has none, the files.
    let stdout = String::from_utf8(output.stdout).unwrap();
    let files: Vec<_> = stdout.lines().skip(1).collect();
    assert_eq!(files, ["etcd.yaml"], "{stdout}");
}

#[tokio::test]
async fn a_directory_that_is_missing_is_told_and_not_made() {
    let parent = tempfile::tempdir().unwrap();
    let missing = parent.path().join("manifests");
    let output = write(&Node::new(), &missing, "0").await;
    is_told(&output, &missing, &["No such file", "staticPodPath"]);
    assert!(!missing.exists());
}

#[tokio::test]
async fn hold_ends_with_0_by_the_signal_that_kubelet_sends() {
    let mut child = Command::new(PROGRAM).arg("hold").spawn().unwrap();
    eventually("it listens for signals", async || listens_for_signals(child.id())).await;
    assert_eq!(child.try_wait().unwrap(), None);
    terminate(child.id());
    let status = child.wait().unwrap();
    assert_eq!((status.code(), status.signal()), (Some(0), None));
}

#[tokio::test]
async fn status_shows_who_serves_and_who_stands_by() {
    let (node, _apiserver) = serving().await;
    let _standby = standby_of(&node, "0a1b2c3d").await;
    let status = |format: &'static str| {
        let mut command = Command::new(PROGRAM);
        command.args(["status", "-o", format, "--socket"]);
        command.arg(node.path("proxy.sock"));
        command.env("TRIVET_HANDOVER_DIR", node.path("handover"));
        run(command)
    };
    let release = env!("CARGO_PKG_VERSION");
    succeeded(
        &status("table").await,
        &[
            &format!("DaemonSet {release} serves\n"),
            &format!("Static {release} stands by, warm, template 0a1b2c3d\n"),
        ],
    );
    let json: serde_json::Value = serde_json::from_slice(&status("json").await.stdout).unwrap();
    assert_eq!(json["handover"]["holder"]["rank"]["class"], "DaemonSet");
    assert_eq!(json["handover"]["peers"][0]["template"], "0a1b2c3d");
    assert_eq!(json["handover"]["peers"][0]["isWarm"], true);
}

#[tokio::test]
async fn status_of_a_node_without_hand_over_is_complete() {
    let (node, _apiservers) = node_with(1).await;
    let mut command = Command::new(PROGRAM);
    command
        .args(["status", "--socket"])
        .arg(node.path("proxy.sock"))
        .arg("--handover-dir")
        .arg(node.path("handover"));
    succeeded(&run(command).await, &["cp1", "no process serves there"]);
}

/// All processes of a node are told the same address; here each has its own, so that the test sees whose is open.
#[tokio::test]
async fn metrics_are_those_of_the_process_that_serves() {
    let (mut pod, _apiserver) = serving().await;
    let metrics = free_address();
    let serves_metrics = async || TcpStream::connect(metrics).await.is_ok();
    let _standby = standby_with_metrics_at(&pod, "0a1b2c3d", Some(metrics)).await;
    assert!(!serves_metrics().await, "a standby serves no metrics");
    let mut newer = pod.successor().of_generation(2);
    pod.stop().await;
    eventually("the standby serves, and its metrics too", serves_metrics).await;
    newer.start().await;
    eventually("the newer pod serves", async || newer.ready().await).await;
    eventually("the standby has left the port", async || !serves_metrics().await).await;
}

/// Whether the process holds SIGTERM back, and so waits for it.
fn listens_for_signals(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mut blocked = status.lines().filter_map(|line| line.strip_prefix("SigBlk:"));
    let blocked = blocked.find_map(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    blocked.is_some_and(|mask| mask & (1 << (Signal::SIGTERM as i32 - 1)) != 0)
}

fn terminate(pid: u32) {
    kill(Pid::from_raw(pid.try_into().unwrap()), Signal::SIGTERM).unwrap();
}
