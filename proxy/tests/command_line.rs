//! The command line names the wrong flag, its value and the rule.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test says by its panic what is wrong, its helpers too"
)]

use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_trivet-proxy"))
        .args(arguments)
        .env_clear()
        .output()
        .unwrap()
}

fn refused(arguments: &[&str], words: &[&str]) {
    let output = run(arguments);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(64), "{arguments:?}: {text}");
    for word in words {
        assert!(text.contains(word), "{arguments:?} does not say {word:?}: {text}");
    }
}

#[test]
fn a_wrong_flag_ends_with_64_and_names_flag_value_and_rule() {
    refused(
        &["run", "--watch", "nonsense"],
        &["--watch", "nonsense", "NAMESPACE/NAME"],
    );
    refused(
        &["run", "--watch", "Upper/case"],
        &["--watch", "Upper/case", "lower-case"],
    );
    refused(
        &["run", "--metrics-address", "7444"],
        &["--metrics-address", "7444"],
    );
    refused(
        &["run", "--config", "x", "--log-level", "a=b=c"],
        &["--log-level", "a=b=c"],
    );
    refused(
        &["run", "--config", "x", "--log-format", "xml"],
        &["--log-format", "xml", "json"],
    );
    refused(&["run"], &["--config", "--cache-dir", "--seed"]);
    refused(
        &["probe", "sick", "--socket", "x"],
        &["sick", "startup", "ready", "live"],
    );
    refused(&["status", "-o", "yaml"], &["--output", "yaml", "table", "json"]);
    refused(&["explain"], &["MEMBER"]);
    refused(&["no-such-command"], &["no-such-command"]);
}

const MANIFEST: [&str; 3] = ["manifest", "--image", "registry.example/trivet-proxy:0.1.0"];
const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/pool.json");

/// A file with an authority.
fn authority(directory: &tempfile::TempDir) -> String {
    let example = trivet_crds::wire::Document::parse(include_str!("../../examples/pool.json")).unwrap();
    let file = directory.path().join("ca.crt");
    std::fs::write(&file, example.tls.ca_bundle).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn the_manifest_of_flags_names_what_is_wrong_with_them() {
    let directory = tempfile::tempdir().unwrap();
    let ca = authority(&directory);
    let with = |rest: &[&'static str]| [&MANIFEST[..], rest].concat();
    refused(&with(&[]), &["--member", "--ca-file"]);
    refused(
        &["manifest", "--image", "proxy:latest", "--document", EXAMPLE],
        &["--image", "proxy:latest", "other than latest"],
    );
    refused(
        &with(&["--document", EXAMPLE, "--pool", "other"]),
        &["--document", "--pool"],
    );
    refused(
        &with(&["--document", "/nonexistent/pool.json"]),
        &["--document", "/nonexistent/pool.json"],
    );
    refused(
        &with(&["--member", "cp1"]),
        &["--member", "cp1", "resolves no names"],
    );
    for (flags, words) in [
        (["--pool", "../x"], ["--pool", "../x", "ApiserverPool"]),
        (["--namespace", "A"], ["--namespace", "A", "namespace"]),
        (["--listen", "7443"], ["--listen", "7443", "address"]),
        (
            ["--listen", "10.0.0.1:7443"],
            ["listeners[0]", "10.0.0.1", "loopback"],
        ),
        (["--tls-server-name", ""], ["tls.serverName", "\"\"", "1 to 253"]),
    ] {
        let valid = ["--member", "10.0.0.11", "--ca-file", &ca];
        refused(&[&MANIFEST[..], &valid, &flags].concat(), &words);
    }
    let file = ["--member", "10.0.0.11", "--ca-file", EXAMPLE];
    refused(&[&MANIFEST[..], &file].concat(), &["tls.caBundle", "PEM"]);
}

#[test]
fn the_manifest_is_printed_from_flags_and_from_a_document_with_the_name_of_its_file() {
    let directory = tempfile::tempdir().unwrap();
    let ca = authority(&directory);
    let flags = ["--member", "10.0.0.11", "--ca-file", &ca];
    for rest in [&flags[..], &["--document", EXAMPLE]] {
        let printed = |more: &[&str]| {
            let output = run(&[&MANIFEST[..], rest, more].concat());
            assert_eq!(output.status.code(), Some(0), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        let name = printed(&["--print", "name"]);
        let manifest = printed(&[]);
        assert!(manifest.contains(&format!("\n  name: {name}")), "{manifest}");
        assert!(
            manifest.contains(&format!("File: {}.yaml\n", name.trim())),
            "{manifest}"
        );
        assert!(printed(&["--platform", "talos"]).contains("\nmachine:\n  pods:\n"));
    }
}

#[test]
fn an_empty_zone_is_accepted() {
    // As kubelet sets it for a pod without the label.
    let empty = Command::new(env!("CARGO_BIN_EXE_trivet-proxy"))
        .args(["run", "--config", "x", "--log-level", "a=b=c"])
        .env_clear()
        .env("NODE_ZONE", "")
        .output()
        .unwrap();
    let text = String::from_utf8(empty.stderr).unwrap();
    assert!(text.contains("--log-level \"a=b=c\""), "{text}");
    refused(
        &["run", "--config", "x", "--zone", "", "--log-level", "a=b=c"],
        &["--log-level \"a=b=c\""],
    );
}

#[test]
fn a_socket_path_that_is_another_file_ends_with_64_and_keeps_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("precious");
    std::fs::write(&file, "data").unwrap();
    refused(
        &["run", "--config", "x", "--socket", file.to_str().unwrap()],
        &["--socket", "precious", "must be the path of a unix socket"],
    );
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "data");
}

#[test]
fn a_broken_document_ends_with_64_and_names_its_field() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pool.json");
    std::fs::write(&file, "{\"apiVersion\":\"trivet.dev/wire/v1alpha1\"}").unwrap();
    refused(
        &["check", file.to_str().unwrap()],
        &["pool.json", "Malformed", "missing field"],
    );
}

#[test]
fn a_probe_without_a_proxy_ends_with_1_and_says_why() {
    let output = run(&["probe", "ready", "--socket", "/nonexistent/proxy.sock"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("/nonexistent/proxy.sock")
    );
}

#[test]
fn a_question_without_a_proxy_ends_with_1_and_says_where_to_ask() {
    for arguments in [&["status"][..], &["explain", "cp1"]] {
        let output = run(&[arguments, &["--socket", "/nonexistent/proxy.sock"]].concat());
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("--socket /nonexistent/proxy.sock"), "{text}");
        assert!(text.contains("kubectl -n trivet-system exec POD"), "{text}");
    }
}

#[test]
fn the_example_document_is_valid() {
    let output = run(&["check", EXAMPLE]);
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert_eq!(text.trim(), "ok: pool \"default\", revision 1, 3 members");
}

#[test]
fn the_example_unit_runs_the_proxy_with_flags_that_exist() {
    let unit = include_str!("../../examples/trivet-proxy.service").replace("\\\n", " ");
    let command = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart="))
        .unwrap();
    let mut arguments: Vec<_> = command.split_whitespace().skip(1).collect();
    // Checked only after every other flag has been parsed, so nothing starts.
    arguments.extend(["--log-level", "a=b=c"]);
    refused(&arguments, &["--log-level \"a=b=c\""]);
}

#[test]
fn the_example_socket_has_the_listeners_of_the_example_document() {
    let unit = include_str!("../../examples/trivet-proxy.socket");
    let streams: Vec<_> = unit
        .lines()
        .filter_map(|line| line.strip_prefix("ListenStream="))
        .collect();
    let document = include_str!("../../examples/pool.json");
    let document = trivet_crds::wire::Document::parse(document).unwrap();
    let listener = &document.listeners[0];
    let wanted: Vec<_> = listener.sockets().map(|address| address.to_string()).collect();
    assert_eq!(streams, wanted);
    assert!(unit.contains(&format!("FileDescriptorName={}\n", listener.name)));
}

#[test]
fn help_exits_with_0_and_explains() {
    for arguments in [
        &["--help"][..],
        &["run", "--help"],
        &["probe", "--help"],
        &["check", "--help"],
        &["status", "--help"],
        &["explain", "--help"],
        &["manifest", "--help"],
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(output.stdout.len() > 200, "{arguments:?}");
    }
}
