//! Pools for people and for scripts.

use serde::Serialize;
use serde_json::{Map, Value, json};
use trivet_crds::pool::MemberHealth;
use trivet_crds::report::ReportedHealth;
use trivet_operator::report::status::conditions;

use super::matrix::{Rank, Row};
use super::view::{MemberView, PoolView};
use crate::doctor;
use crate::doctor::members::health;
use crate::output::table::{Cell, columns};
use crate::output::text::{counted, span};
use crate::output::{Screen, Tone};
use crate::read::Facts;

/// Rows that are shown without `--all`: one screen.
const ROWS: usize = 20;

/// The indent of tables.
const INDENT: &str = "  ";

/// All pools, for people.
pub(super) fn table(screen: Screen, facts: &Facts, views: &[PoolView<'_>], all: bool) -> String {
    let mut text = String::new();
    if views.is_empty() {
        text.push_str("There is no ApiserverPool.\n\n");
    }
    for view in views {
        text.push_str(&heading(screen, view));
        text.push_str(&conditions(screen, view));
        text.push_str(&members(screen, view));
        text.push_str(&nodes(screen, view, all));
        if view.findings.is_empty() {
            text.push_str("Nothing is wrong with it.\n\n");
        } else {
            text.push_str(&title(screen, "What is wrong or worth knowing"));
            text.push_str(&doctor::print::list(screen, &view.findings));
        }
    }
    text + &doctor::print::list(screen, &doctor::unread(facts))
}

fn title(screen: Screen, text: &str) -> String {
    format!("{}\n", screen.paint(Tone::Strong, text))
}

fn heading(screen: Screen, view: &PoolView<'_>) -> String {
    let status = &view.status;
    let seen = match status.observed_generation {
        Some(seen) if seen >= view.generation => "followed".to_owned(),
        Some(seen) => format!("the operator has seen {seen}"),
        None => "no operator has seen it".to_owned(),
    };
    let revision = status
        .config_revision
        .map_or_else(|| "none".to_owned(), |revision| revision.to_string());
    format!(
        "{}\n{INDENT}members {}, proxies {}, revision {revision}, generation {} ({seen})\n{INDENT}endpoints {}\n\n",
        screen.paint(Tone::Strong, &format!("Pool {}", view.name)),
        or_dash(&status.members_summary),
        or_dash(&status.proxies_summary),
        view.generation,
        or_dash(&status.endpoints.join(", ")),
    )
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

fn conditions(screen: Screen, view: &PoolView<'_>) -> String {
    // One that the pool's operator does not know is shown as unknown.
    let rows = conditions::ALL.map(|type_| {
        let Some(condition) = view.condition(type_) else {
            return vec![type_.into(), "unknown".into(), Cell::default()];
        };
        let tone = match condition.status.as_str() {
            "True" => Tone::Good,
            "False" if type_ == "CertificateMatches" || type_ == "MembersDrained" => Tone::Doubtful,
            "False" => Tone::Bad,
            _ => Tone::Doubtful,
        };
        vec![
            type_.into(),
            Cell::new(tone, condition.status.as_str()),
            format!("{}: {}", condition.reason, condition.message).into(),
        ]
    });
    columns(screen, INDENT, &rows) + "\n"
}

fn members(screen: Screen, view: &PoolView<'_>) -> String {
    let head = [
        "MEMBER",
        "STATE",
        "HEALTH",
        "REACHED BY",
        "CONNECTIONS",
        "SOURCE",
        "ADDRESSES",
    ];
    let mut rows = vec![head.map(Cell::from).to_vec()];
    rows.extend(view.members.iter().map(member));
    columns(screen, INDENT, &rows) + "\n"
}

fn member(member: &MemberView<'_>) -> Vec<Cell> {
    let status = member.status;
    let tone = match status.health {
        MemberHealth::Up => Tone::Good,
        MemberHealth::Unready | MemberHealth::Unknown => Tone::Doubtful,
        MemberHealth::Down => Tone::Bad,
    };
    let reached = if member.reachable < member.reporting {
        Tone::Doubtful
    } else {
        Tone::Plain
    };
    vec![
        status.name.as_str().into(),
        format!("{:?}", status.state).into(),
        Cell::new(tone, format!("{:?}", status.health)),
        Cell::new(reached, format!("{}/{}", member.reachable, member.reporting)),
        member.connections.to_string().into(),
        format!("{:?}", status.source).into(),
        format!("{} port {}", status.addresses.join(" "), status.port).into(),
    ]
}

fn nodes(screen: Screen, view: &PoolView<'_>, all: bool) -> String {
    let members = view.columns();
    let mut head = vec![
        "NODE".into(),
        "DOCUMENT".into(),
        "STANDBY".into(),
        "CLIENTS".into(),
    ];
    head.extend(members.iter().map(|name| Cell::from(*name)));
    head.push("REPORTED".into());
    let shown = if all { view.rows.len() } else { ROWS };
    let mut rows = vec![head];
    rows.extend(view.rows.iter().take(shown).map(|row| node(row, &members)));
    let hidden = view.rows.iter().skip(shown);
    let wrong = hidden.clone().filter(|row| row.is_wrong()).count();
    let more = match hidden.count() {
        0 => String::new(),
        more => format!(
            "{INDENT}and {}, {wrong} of them with something wrong; --all shows them\n",
            counted(more, "node")
        ),
    };
    columns(screen, INDENT, &rows) + &more + "\n"
}

fn node(row: &Row<'_>, members: &[&str]) -> Vec<Cell> {
    let tone = match row.rank {
        Rank::ReachesNobody | Rank::Silent => Tone::Bad,
        Rank::Troubled | Rank::ReachesSome | Rank::Behind => Tone::Doubtful,
        Rank::Whole => Tone::Plain,
    };
    let document = match row.is_synced {
        Some(true) => Cell::new(Tone::Good, "newest"),
        Some(false) => Cell::new(Tone::Doubtful, "older"),
        None => "-".into(),
    };
    let said = |text: Option<String>| Cell::from(text.unwrap_or_else(|| "-".to_owned()));
    let mut cells = vec![
        Cell::new(tone, row.node.as_str()),
        document,
        said(
            row.report
                .map(|report| report.content.standby.as_str().to_owned()),
        ),
        said(row.report.map(|report| report.content.connections.to_string())),
    ];
    cells.extend(members.iter().map(|name| {
        let Some(member) = row.member(name) else {
            return "-".into();
        };
        let tone = match member.health {
            ReportedHealth::Up => Tone::Good,
            ReportedHealth::Unready => Tone::Doubtful,
            ReportedHealth::Down => Tone::Bad,
        };
        Cell::new(tone, format!("{} {}", health(member.health), member.connections))
    }));
    cells.push(match row.age {
        Some(age) => format!("{} ago", span(age)).into(),
        None => Cell::new(Tone::Bad, "never"),
    });
    cells
}

/// All pools, for scripts.
pub(super) fn json(views: &[PoolView<'_>]) -> impl Serialize {
    let pools: Vec<_> = views.iter().map(pool).collect();
    json!({ "pools": pools })
}

fn pool(view: &PoolView<'_>) -> Value {
    let conditions: Map<_, _> = conditions::ALL
        .iter()
        .map(|type_| {
            let condition = view.condition(type_);
            let field = |get: fn(&k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition) -> &str| {
                condition.map_or("", get)
            };
            let value = json!({
                "status": condition.map_or("Unknown", |condition| &condition.status),
                "reason": field(|condition| &condition.reason),
                "message": field(|condition| &condition.message),
            });
            ((*type_).to_owned(), value)
        })
        .collect();
    let members: Vec<_> = view.members.iter().map(member_json).collect();
    let nodes: Vec<_> = view.rows.iter().map(node_json).collect();
    let findings: Vec<_> = view.findings.iter().map(doctor::Finding::entry).collect();
    json!({
        "name": view.name,
        "generation": view.generation,
        "observedGeneration": view.status.observed_generation,
        "configRevision": view.status.config_revision,
        "endpoints": view.status.endpoints,
        "conditions": conditions,
        "members": members,
        "nodes": nodes,
        "findings": findings,
    })
}

fn member_json(member: &MemberView<'_>) -> Value {
    let status = member.status;
    json!({
        "name": status.name,
        "state": status.state,
        "health": status.health,
        "message": status.message,
        "source": status.source,
        "addresses": status.addresses,
        "port": status.port,
        "reachableNodes": member.reachable,
        "reportingNodes": member.reporting,
        "connections": member.connections,
    })
}

fn node_json(row: &Row<'_>) -> Value {
    let members = row
        .report
        .map(|report| report.content.members.as_slice())
        .unwrap_or_default();
    let members: Vec<_> = members
        .iter()
        .map(|member| {
            json!({
                "name": member.name,
                "address": member.address,
                "health": member.health,
                "connections": member.connections,
                "lastError": member.last_error,
            })
        })
        .collect();
    json!({
        "node": row.node,
        "wrong": row.is_wrong(),
        "reports": row.report.is_some(),
        "ageSeconds": row.age,
        "synced": row.is_synced,
        "standby": row.report.map(|report| report.content.standby),
        "connections": row.report.map(|report| report.content.connections),
        "members": members,
    })
}
