//! Faults at the boundaries of the hand-over's messages: a process of the node is killed, stopped or left without files
//! at the moment at which it sends or receives a message, while clients connect.
//!
//! Each run is drawn from a seed: real processes of one node (one that serves, a standby, a newcomer), what makes them
//! hand over, a message, a side and a fault. The processes log the messages, and the test acts on the line. A delay of up
//! to two milliseconds makes the fault hit both sides of the boundary.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test says by its panic what is wrong, its helpers too"
)]

#[path = "../support/addresses.rs"]
mod addresses;
mod apiserver;
#[allow(dead_code, reason = "other tests need more certificates")]
#[path = "../promises/support/authority.rs"]
mod authority;
mod clients;
mod established;
mod fault;
mod node;
mod plan;
mod process;
#[allow(dead_code, reason = "other tests draw more")]
#[path = "../simulation/random.rs"]
mod random;
mod run;
mod verdict;

use std::{collections::BTreeMap, time::Duration};

use futures::{StreamExt, stream};
use tokio::{runtime::Builder, time::Instant};

use self::{
    apiserver::Apiserver,
    plan::Plan,
    run::{KeptSeen, Seen, run},
};

/// How many runs share the machine: most of a run is waiting.
const AT_A_TIME: usize = 8;

/// Runs with hundreds of connections.
const LARGE_AT_A_TIME: usize = 4;

#[test]
fn a_fault_at_any_message_costs_no_connection_and_leaves_one_holder() {
    search(0..200, AT_A_TIME, Plan::of);
}

#[test]
#[ignore = "minutes: the runs of `TRIVET_SEEDS` seeds, 4,000 unless told otherwise"]
fn a_fault_at_any_message_in_thousands_of_runs() {
    search(
        200..200 + parameter("TRIVET_SEEDS").unwrap_or(4000),
        AT_A_TIME,
        Plan::of,
    );
}

#[test]
fn a_fault_while_hundreds_of_connections_are_handed_over_ends_only_those_it_may() {
    search(2..8, LARGE_AT_A_TIME, Plan::within_pairs);
}

#[test]
#[ignore = "minutes: the runs of `TRIVET_SEEDS` seeds, 1,000 unless told otherwise"]
fn a_fault_while_hundreds_of_connections_are_handed_over_in_thousands_of_runs() {
    let seeds = 8..8 + parameter("TRIVET_SEEDS").unwrap_or(1000);
    search(seeds, LARGE_AT_A_TIME, Plan::within_pairs);
}

#[test]
#[ignore = "the one run of `TRIVET_SEED`"]
fn one_run() {
    let seed = parameter("TRIVET_SEED").unwrap();
    search(seed..seed + 1, 1, Plan::of);
}

#[test]
#[ignore = "the one run of `TRIVET_SEED`"]
fn one_run_with_hundreds_of_connections() {
    let seed = parameter("TRIVET_SEED").unwrap();
    search(seed..seed + 1, 1, Plan::within_pairs);
}

#[allow(clippy::disallowed_methods, reason = "a test has no command line of its own")]
fn parameter(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// Makes the runs of these seeds, and names each that breaks a promise.
fn search(seeds: std::ops::Range<u64>, at_a_time: usize, planned: impl Fn(u64) -> Plan) {
    let begun = Instant::now();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let (failed, seen) = runtime.block_on(async {
        let apiserver = Apiserver::start();
        let runs = stream::iter(seeds).map(|seed| {
            let (apiserver, plan) = (&apiserver, planned(seed));
            async move {
                let outcome = run(&plan, apiserver).await;
                (seed, plan, outcome)
            }
        });
        let mut runs = runs.buffer_unordered(at_a_time);
        let (mut failed, mut seen) = (Vec::new(), Vec::new());
        while let Some((seed, plan, outcome)) = runs.next().await {
            match outcome {
                Ok(run) => seen.push((plan, run)),
                Err(broken) => {
                    let test = if plan.kept.count > 100 {
                        "one_run_with_hundreds"
                    } else {
                        "one_run"
                    };
                    let replay = format!("cargo test -p trivet-proxy --test boundaries {test}");
                    println!("seed {seed}: {broken}\n{plan:?}");
                    println!("  again: TRIVET_SEED={seed} {replay} -- --ignored --nocapture\n");
                    failed.push(seed);
                }
            }
        }
        (failed, seen)
    });
    report(&seen, begun.elapsed());
    assert!(
        failed.is_empty(),
        "{} runs break a promise: {failed:?}",
        failed.len()
    );
}

/// How often each boundary was hit, and the slowest connection.
fn report(seen: &[(Plan, Seen)], took: Duration) {
    let mut hits: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for (plan, run) in seen {
        let (hit, planned) = hits.entry(plan.fault.at.message).or_default();
        *hit += usize::from(run.has_hit);
        *planned += 1;
    }
    let slowest = seen.iter().map(|(_, run)| run.slowest).max();
    let connections: usize = seen.iter().map(|(_, run)| run.connections).sum();
    println!(
        "{} runs in {took:.1?}, {connections} connections, the slowest {slowest:?}; hits of planned: {hits:?}",
        seen.len()
    );
    let kept = seen.iter().map(|(_, run)| run.kept);
    let all = kept.fold(KeptSeen::default(), KeptSeen::and);
    println!("kept open: {all:?}");
}
