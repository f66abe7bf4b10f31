//! Golden outputs, and which nodes come first.

use trivet_crds::report::{ReportedHealth, ReportedWarning};

use super::*;
use crate::doctor::tests::{facts, faulty};

fn printed(facts: &Facts, all: bool) -> String {
    let views = views(facts, None).unwrap();
    print::table(Screen::plain(), facts, &views, all)
}

#[test]
fn a_pool_in_order_is_printed() {
    insta::assert_snapshot!(printed(&facts(), false));
}

#[test]
fn a_pool_with_faults_is_printed_with_what_to_do() {
    insta::assert_snapshot!(printed(&faulty(), false));
}

#[test]
fn scripts_get_the_whole_matrix() {
    let facts = faulty();
    let views = views(&facts, Some("default")).unwrap();
    insta::assert_json_snapshot!(print::json(&views));
}

#[test]
fn a_pool_that_no_operator_has_seen_is_printed() {
    let mut facts = facts();
    facts.pools.as_mut().unwrap()[0].status = None;
    facts.reports = Some(Vec::new());
    facts.daemon_sets = Some(Vec::new());
    insta::assert_snapshot!(printed(&facts, false));
}

#[test]
fn the_worst_nodes_come_first() {
    let mut facts = facts();
    facts
        .reports
        .as_mut()
        .unwrap()
        .retain(|report| report.content.node_name != "cp3");
    let reports = facts.reports.as_mut().unwrap();
    for (report, name) in reports.iter_mut().zip(["cp1", "cp2", "w1", "w2"]) {
        assert_eq!(report.content.node_name, name);
        match name {
            "cp2" => report.content.revision -= 1,
            "w1" => report.content.members[0].health = ReportedHealth::Unready,
            "w2" => {
                for member in &mut report.content.members {
                    member.health = ReportedHealth::Down;
                }
                report.content.warnings = vec![ReportedWarning {
                    reason: "CacheUnwritable".to_owned(),
                    message: "full".to_owned(),
                }];
            }
            _ => {}
        }
    }
    let views = views(&facts, None).unwrap();
    let order: Vec<_> = views[0].rows.iter().map(|row| row.node.as_str()).collect();
    assert_eq!(order, ["w2", "cp3", "w1", "cp2", "cp1"]);
    assert_eq!(views[0].rows.iter().filter(|row| row.is_wrong()).count(), 4);
}

#[test]
fn a_large_cluster_is_shown_by_its_worst_nodes_and_a_count() {
    let mut facts = facts();
    let template = facts.reports.as_ref().unwrap()[0].clone();
    let reports = facts.reports.as_mut().unwrap();
    for number in 0..100 {
        let mut report = template.clone();
        report.content.node_name = format!("w1{number:02}");
        report.content.members[2].health = ReportedHealth::Down;
        reports.push(report);
    }
    let text = printed(&facts, false);
    assert!(
        text.contains("and 85 nodes, 80 of them with something wrong; --all shows them"),
        "{text}"
    );
    assert!(!text.contains("w150"), "{text}");
    assert!(printed(&facts, true).contains("w150"));
}

#[test]
fn an_unknown_pool_is_refused_with_the_names_that_there_are() {
    let facts = facts();
    let refusal = views(&facts, Some("defualt")).err().unwrap();
    assert!(refusal.is::<BadUsage>());
    assert!(refusal.to_string().contains("there are: default"), "{refusal}");
}
