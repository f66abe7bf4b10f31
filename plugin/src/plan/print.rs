//! A difference for people.

use super::difference::{Change, Difference, MemberChange};
use crate::output::table::{Cell, columns};
use crate::output::text::{counted, wrapped};
use crate::output::{Screen, Tone};

/// The indent of details.
const INDENT: &str = "  ";

pub(super) fn table(screen: Screen, difference: &Difference) -> String {
    let mut text = heading(screen, difference);
    let changes: Vec<_> = difference.members.iter().map(member).collect();
    text.push_str(&section(screen, "Members", &changes));
    let settings = difference.settings.iter();
    let settings: Vec<_> = settings
        .map(|setting| {
            vec![
                Cell::from(setting.field.as_str()),
                format!("{} → {}", setting.from, setting.to).into(),
            ]
        })
        .collect();
    text.push_str(&section(
        screen,
        "Settings of the proxies, without a restart",
        &settings,
    ));
    for (title, nodes) in [
        ("Nodes that get a proxy", &difference.nodes_added),
        ("Nodes that lose their proxy", &difference.nodes_removed),
    ] {
        if !nodes.is_empty() {
            text.push_str(&paragraph(screen, title, &nodes.join(", ")));
        }
    }
    if let Some(rollout) = &difference.rollout {
        let begins = format!("{}: {}", counted(rollout.nodes, "node"), rollout.begins);
        text.push_str(&paragraph(screen, "Rollout of the proxies", &begins));
    }
    if let Some(standbys) = difference.standbys {
        text.push_str(&paragraph(screen, "Standbys", standbys));
    }
    for (title, lines) in [
        ("Kept by the shrink guard", &difference.kept),
        ("Notes", &difference.notes),
    ] {
        if !lines.is_empty() {
            text.push_str(&paragraph(screen, title, &lines.join("; ")));
        }
    }
    text
}

fn heading(screen: Screen, difference: &Difference) -> String {
    let pool = screen.paint(Tone::Strong, &format!("Pool {}", difference.pool));
    if let Some(refusal) = &difference.refused {
        let refused = screen.paint(Tone::Bad, "refused");
        let head = format!("{pool}: {refused} by {} ({})\n", refusal.by, refusal.reason);
        return head + &wrapped(INDENT, &refusal.message);
    }
    let what = match (difference.exists, difference.is_empty()) {
        (false, _) => "would be new",
        (true, true) => "nothing changes on the nodes",
        (true, false) if difference.writes_document => "would be obeyed; proxies follow within two seconds",
        (true, false) => "would be obeyed",
    };
    format!("{pool}: {what}\n")
}

fn member(change: &MemberChange) -> Vec<Cell> {
    let (tone, word, told) = match change.change {
        Change::Added => (Tone::Good, "added", change.to.clone()),
        Change::Removed => (
            Tone::Bad,
            "removed",
            format!("{}; its connections are closed gradually", change.from),
        ),
        Change::Drained => (
            Tone::Doubtful,
            "drains",
            "no new connection while another answers; the old ones are closed gradually".to_owned(),
        ),
        Change::Disabled => (
            Tone::Bad,
            "disabled",
            "no new connection; the old ones are closed gradually".to_owned(),
        ),
        Change::Activated => (Tone::Good, "active", "gets new connections".to_owned()),
        Change::Moved => (
            Tone::Doubtful,
            "moved",
            format!("{} → {}", change.from, change.to),
        ),
    };
    vec![change.name.as_str().into(), Cell::new(tone, word), told.into()]
}

fn section(screen: Screen, title: &str, rows: &[Vec<Cell>]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    format!(
        "\n{}\n{}",
        screen.paint(Tone::Strong, title),
        columns(screen, INDENT, rows)
    )
}

fn paragraph(screen: Screen, title: &str, text: &str) -> String {
    format!(
        "\n{}\n{}",
        screen.paint(Tone::Strong, title),
        wrapped(INDENT, text)
    )
}
