//! Files and memory that run away, and a proxy that falls silent.

use super::*;

/// The report of a proxy with 20 connections.
fn report(template: &str) -> Reported {
    Reported {
        template: template.to_owned(),
        open_files: 140,
        memory_mebibytes: 9,
        connections: 20,
        is_current: true,
        ..Reported::default()
    }
}

fn leaking_files() -> Reported {
    Reported {
        open_files: 4000,
        ..report("b")
    }
}

fn out_of_files() -> Reported {
    Reported {
        is_out_of_files: true,
        ..leaking_files()
    }
}

fn leaking_memory() -> Reported {
    Reported {
        memory_mebibytes: 200,
        ..report("b")
    }
}

/// A cluster whose first node soaks and has reported this; the others have reports of the template before.
fn soaking(first: Reported) -> Cluster {
    let mut cluster = Cluster::with_first_ready(4);
    for name in ["w2", "w3", "w4"] {
        cluster.node(name).report = Some(report("a"));
    }
    cluster.node("w1").report = Some(first);
    cluster
}

/// What a cluster with this report halts for at once, if it does.
fn halted(first: Reported) -> Option<String> {
    halted_within(&mut soaking(first))
}

fn halted_within(cluster: &mut Cluster) -> Option<String> {
    cluster.pass().phase.halt().map(|halt| halt.cause.clone())
}

#[test]
fn a_proxy_that_has_used_up_its_files_is_taken_back_at_once() {
    assert_eq!(
        halted(out_of_files()).unwrap(),
        "the files of its new proxy run out: 4000 are open for 20 connections"
    );
    let with_a_low_limit = Reported {
        open_files: 1000,
        ..out_of_files()
    };
    assert!(halted(with_a_low_limit).is_some());
}

#[test]
fn a_proxy_whose_connections_use_up_its_files_is_good() {
    let connections = Reported {
        open_files: 20_000,
        connections: 9_400,
        ..out_of_files()
    };
    assert_eq!(halted(connections.clone()), None);
    assert!(soaking(connections).wait(SOAK_SECONDS).target.gate.is_open());
}

#[test]
fn files_that_have_not_run_out_are_a_doubt_that_must_last() {
    let mut cluster = soaking(leaking_files());
    assert!(cluster.wait(SOAK_SECONDS + 60).phase.halt().is_none());
    assert!(halt_of(&cluster.wait(5)).cause.contains("to close files"));
}

#[test]
fn memory_beyond_what_connections_explain_and_others_use_is_a_doubt_that_must_last() {
    let mut cluster = soaking(leaking_memory());
    assert!(cluster.wait(SOAK_SECONDS + 60).phase.halt().is_none());
    assert_eq!(
        halt_of(&cluster.wait(5)).cause,
        "waited too long for its new proxy to give memory back: it has 200 MiB for 20 connections, and others at most 9 MiB"
    );
}

#[test]
fn memory_that_its_connections_explain_or_others_use_too_is_good() {
    let goes_on = |change: &dyn Fn(&mut Cluster)| {
        let mut cluster = soaking(leaking_memory());
        change(&mut cluster);
        cluster.wait(SOAK_SECONDS).target.gate.is_open()
    };
    let first = |change: fn(&mut Reported)| {
        move |cluster: &mut Cluster| change(cluster.node("w1").report.as_mut().unwrap())
    };
    assert!(!goes_on(&|_| ()));
    assert!(goes_on(&first(|report| report.connections = 9_000)));
    assert!(goes_on(&first(|report| report.earlier_mebibytes = 100)));
    assert!(goes_on(&first(|report| report.memory_mebibytes = 0)));
    assert!(goes_on(&|cluster| {
        cluster.node("w3").report.as_mut().unwrap().memory_mebibytes = 120;
    }));
}

#[test]
fn memory_that_half_fills_the_limit_of_the_pod_is_taken_back_at_once() {
    let with_limit = |limit, usual| {
        let mut cluster = soaking(leaking_memory());
        cluster.facts.memory_limit_mebibytes = limit;
        for name in ["w2", "w3", "w4"] {
            cluster.node(name).report.as_mut().unwrap().memory_mebibytes = usual;
        }
        halted_within(&mut cluster)
    };
    assert_eq!(
        with_limit(Some(256), 9).unwrap(),
        "the memory of its new proxy runs away: it has 200 MiB for 20 connections, and others at most 9 MiB"
    );
    assert_eq!(with_limit(None, 9), None);
    assert_eq!(with_limit(Some(1024), 9), None);
    assert_eq!(with_limit(Some(256), 0), None, "nothing to compare it with");
}

/// A cluster after the soak, with these reports, whose proxies of the new template are ready.
fn with_reports(reports: [Reported; 4]) -> Cluster {
    let mut cluster = Cluster::with_rest(4);
    for (node, report) in cluster.facts.nodes.iter_mut().zip(reports) {
        if report.template == "b" {
            node.newcomer = Some(ready());
        }
        node.report = Some(report);
    }
    cluster
}

#[test]
fn after_the_soak_one_leak_is_no_sign_and_two_are_unless_old_proxies_leak_too() {
    let halted = |reports| halted_within(&mut with_reports(reports));
    let old = || Reported {
        template: "a".to_owned(),
        ..leaking_files()
    };
    assert_eq!(
        halted([leaking_files(), report("b"), report("a"), report("a")]),
        None
    );
    assert_eq!(
        halted([out_of_files(), report("b"), report("a"), report("a")]),
        None
    );
    assert_eq!(
        halted([leaking_files(), leaking_memory(), report("b"), report("a")]).unwrap(),
        "the files of its new proxy run out: 4000 are open for 20 connections (so on w1, w2)"
    );
    assert_eq!(
        halted([leaking_files(), leaking_files(), report("b"), old()]),
        None
    );
}

#[test]
fn the_silence_of_a_new_proxy_is_a_doubt_where_most_others_report() {
    let after = |are_current: [bool; 3], seconds| {
        let mut cluster = soaking(report("a"));
        for (name, is_current) in ["w2", "w3", "w4"].into_iter().zip(are_current) {
            cluster.node(name).report.as_mut().unwrap().is_current = is_current;
        }
        cluster.wait(SOAK_SECONDS + seconds)
    };
    assert!(after([true; 3], 60).phase.halt().is_none());
    assert_eq!(
        halt_of(&after([true; 3], 65)).cause,
        "waited too long for the report of its new proxy"
    );
    assert!(
        after([true, false, false], 35).target.gate.is_open(),
        "nobody can write"
    );
}
