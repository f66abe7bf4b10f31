//! Searches for an input that makes a target fail.

use std::{cell::Cell, fs, path::PathBuf, time::Duration};

use proptest::{
    prelude::*,
    sample::Index,
    test_runner::{Config, TestRunner},
};
use tokio::time::Instant;

/// How long each target searches in a usual test run.
const TIME: Duration = Duration::from_secs(5);

/// Feeds `target` with its corpus, `real` inputs, mutations of both, and random bytes, until the time is up.
pub(crate) fn fuzz(name: &str, real: &[Vec<u8>], target: impl Fn(&[u8])) {
    let mut known: Vec<_> = real.to_vec();
    for file in fs::read_dir(corpus(name)).unwrap() {
        known.push(fs::read(file.unwrap().path()).unwrap());
    }
    assert!(known.len() > real.len(), "no corpus");
    for input in &known {
        target(input);
    }
    let deadline = Instant::now() + seconds().map_or(TIME, Duration::from_secs);
    let config = Config {
        cases: 64,
        failure_persistence: None,
        ..Config::default()
    };
    let tried = Cell::new(0);
    while Instant::now() < deadline {
        let searched = TestRunner::new(config.clone()).run(&inputs(known.clone()), |input| {
            target(&input);
            tried.set(tried.get() + 1);
            Ok(())
        });
        searched.unwrap_or_else(|failure| panic!("{name}: {failure}"));
    }
    let tried = tried.get();
    println!("{name}: {tried} inputs");
}

fn inputs(known: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec(any::<(u8, Index, u8)>(), 1..9);
    let near = (any::<Index>(), changes)
        .prop_map(move |(which, changes)| changed(&known[which.index(known.len())], &changes));
    prop_oneof![9 => near, 1 => prop::collection::vec(any::<u8>(), 0..600)]
}

/// The input with these changes: a byte is replaced, inserted or removed, or the end is cut off.
fn changed(input: &[u8], changes: &[(u8, Index, u8)]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for (kind, at, value) in changes {
        let at = at.index(bytes.len() + 1);
        match (kind % 16, bytes.get_mut(at)) {
            (0, _) => bytes.truncate(at),
            (1, _) => bytes.insert(at, *value),
            (2, Some(_)) => drop(bytes.remove(at)),
            // A digit stays a digit and a letter a letter, so that more inputs pass the first checks.
            (3..8, Some(byte)) if byte.is_ascii_digit() => *byte = b'0' + value % 10,
            (3..8, Some(byte)) if byte.is_ascii_lowercase() => *byte = b'a' + value % 26,
            (_, Some(byte)) => *byte = *value,
            (_, None) => bytes.push(*value),
        }
    }
    bytes
}

#[allow(clippy::disallowed_methods, reason = "a test has no command line of its own")]
fn seconds() -> Option<u64> {
    std::env::var("TRIVET_FUZZ_SECONDS")
        .ok()
        .map(|text| text.parse().unwrap())
}

fn corpus(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fuzz/corpus")
        .join(target)
}

/// Writes an input to the corpus.
pub(crate) fn keep(target: &str, name: &str, bytes: &[u8]) {
    fs::create_dir_all(corpus(target)).unwrap();
    fs::write(corpus(target).join(name), bytes).unwrap();
}
