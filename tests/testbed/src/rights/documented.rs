//! The documents' tables of rights, held to the chart's templates.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::templates;

/// How the heading of a table of rights begins.
const HEADING: &str = "| role | where | what | verbs |";

/// The rows of a document: role, place, thing, verb. Each row says why.
fn documented(document: &str) -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs")
        .join(document);
    let text = fs::read_to_string(path).unwrap();
    let (_, table) = text.split_once(HEADING).unwrap();
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let mut rights = BTreeSet::new();
    for row in rows {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [role, place, things, verbs, why] = cells[..] else {
            panic!("{row}");
        };
        assert!(!why.is_empty(), "{row}");
        let words = |cell: &str| {
            let words = cell.split('`').skip(1).step_by(2);
            words.map(str::to_owned).collect::<Vec<_>>()
        };
        for thing in words(things) {
            for verb in verbs.split(", ") {
                let right = format!("{} | {place} | {thing} | {verb}", role.trim_matches('`'));
                assert!(rights.insert(right), "{row} says again what another row says");
            }
        }
    }
    rights
}

/// The same of the chart's roles of this kind.
fn granted(is_wanted: impl Fn(&str) -> bool) -> BTreeSet<String> {
    let granted = templates::read().unwrap().granted();
    let wanted = granted.iter().filter(|(role, _)| is_wanted(role));
    wanted
        .map(|(role, right)| {
            let place = right.namespace.as_deref().unwrap_or("cluster");
            format!("{role} | {place} | {} | {}", right.on, right.verb)
        })
        .collect()
}

fn is_of_plugin(role: &str) -> bool {
    role.starts_with("trivet-plugin")
}

#[test]
fn operations_has_a_table_of_all_rights_but_those_of_the_plugin() {
    assert_eq!(documented("operations.md"), granted(|role| !is_of_plugin(role)));
}

#[test]
fn the_plugins_page_has_a_table_of_the_rights_of_its_users() {
    assert_eq!(documented("plugin.md"), granted(is_of_plugin));
}
