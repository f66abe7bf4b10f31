//! The bounds of the fields of a wire document.
//!
//! The pool's schema enforces them for documents of the operator; files that people write have no schema.

use std::fmt::Display;

use super::{Connection, Document, HealthCheck, Listener, MAX_ADDRESSES, MAX_MEMBERS, Member};

/// A value of a document that is outside its bounds.
#[derive(Debug)]
pub(super) struct Violation {
    /// The path of the field.
    pub(super) field: String,
    /// Its value, or the number of its items.
    pub(super) value: String,
    /// The bound that it breaks, and the way out.
    pub(super) rule: &'static str,
}

/// Checks all bounds, and returns the first violation in the order of the document.
pub(super) fn check(document: &Document) -> Result<(), Violation> {
    members(&document.members)?;
    listeners(&document.listeners)?;
    health_check(&document.health_check)?;
    connection(&document.connection)
}

fn members(members: &[Member]) -> Result<(), Violation> {
    hold(
        (1..=MAX_MEMBERS).contains(&members.len()),
        "members",
        list_of(members.len()),
        "must hold 1 to 64 apiservers; list those that the nodes shall use, and no more",
    )?;
    for (index, member) in members.iter().enumerate() {
        let field = |name: &str| format!("members[{index}].{name}");
        hold(
            !members.iter().take(index).any(|other| other.name == member.name),
            field("name"),
            quoted(&member.name),
            "must be unique, and an entry before it has the same; give each apiserver one entry with a name of its own",
        )?;
        hold(
            (1..=MAX_ADDRESSES).contains(&member.addresses.len()),
            field("addresses"),
            list_of(member.addresses.len()),
            "must hold 1 to 4 addresses of one apiserver; make several apiservers several members",
        )?;
        hold(
            member.port != 0,
            field("port"),
            member.port,
            "must not be 0; set it to the apiserver's port, usually 6443",
        )?;
    }
    Ok(())
}

fn listeners(listeners: &[Listener]) -> Result<(), Violation> {
    hold(
        !listeners.is_empty(),
        "listeners",
        list_of(0),
        "must hold at least one entry; add where clients come in, such as 127.0.0.1 with port 7443",
    )?;
    for (index, listener) in listeners.iter().enumerate() {
        let field = |name: &str| format!("listeners[{index}].{name}");
        hold(
            !listeners
                .iter()
                .take(index)
                .any(|other| other.name == listener.name),
            field("name"),
            quoted(&listener.name),
            "must be unique, and an entry before it has the same; rename one",
        )?;
        hold(
            !listener.addresses.is_empty(),
            field("addresses"),
            list_of(0),
            "must hold at least one loopback address; use 127.0.0.1, ::1 or both",
        )?;
        let foreign = listener.addresses.iter().find(|address| !address.is_loopback());
        if let Some(address) = foreign {
            return Err(violation(
                field("addresses"),
                address,
                "must be loopback addresses, so that no other host can use the proxy; use 127.0.0.1, ::1 or both",
            ));
        }
        hold(
            listener.port != 0,
            field("port"),
            listener.port,
            "must not be 0; set it to a port that is free on every node, such as 7443",
        )?;
    }
    Ok(())
}

fn health_check(check: &HealthCheck) -> Result<(), Violation> {
    for (name, value) in [
        ("periodMilliseconds", check.period_milliseconds),
        ("timeoutMilliseconds", check.timeout_milliseconds),
        ("failureThreshold", check.failure_threshold),
        ("successThreshold", check.success_threshold),
    ] {
        positive("healthCheck", name, value)?;
    }
    hold(
        check.timeout_milliseconds <= check.period_milliseconds,
        "healthCheck.timeoutMilliseconds",
        check.timeout_milliseconds,
        "must be at most periodMilliseconds; lower it, or raise the period",
    )
}

fn connection(connection: &Connection) -> Result<(), Violation> {
    for (name, value) in [
        (
            "connectTimeoutMilliseconds",
            connection.connect_timeout_milliseconds,
        ),
        ("hedgeDelayMilliseconds", connection.hedge_delay_milliseconds),
        ("userTimeoutMilliseconds", connection.user_timeout_milliseconds),
        ("keepAliveSeconds", connection.keep_alive_seconds),
        ("maxConnections", connection.max_connections),
    ] {
        positive("connection", name, value)?;
    }
    Ok(())
}

fn positive(section: &str, name: &str, value: u32) -> Result<(), Violation> {
    hold(
        value != 0,
        format_args!("{section}.{name}"),
        value,
        "must not be 0; docs/configuration.md has the default",
    )
}

fn hold(holds: bool, field: impl Display, value: impl Display, rule: &'static str) -> Result<(), Violation> {
    if holds {
        return Ok(());
    }
    Err(violation(field, value, rule))
}

fn violation(field: impl Display, value: impl Display, rule: &'static str) -> Violation {
    Violation {
        field: field.to_string(),
        value: value.to_string(),
        rule,
    }
}

fn list_of(count: usize) -> String {
    format!("a list of {count}")
}

/// A name may hold any character, also line ends, which must not break the log line that quotes it.
fn quoted(name: &str) -> String {
    format!("{name:?}")
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::super::tests::document;
    use super::*;

    /// A change that breaks a bound; the field and the value that the error names; a part of its rule.
    type Case = (fn(&mut Document), &'static str, &'static str, &'static str);

    const CASES: &[Case] = &[
        (|d| d.members.clear(), "members", "a list of 0", "1 to 64"),
        (|d| grow(d, MAX_MEMBERS + 1), "members", "a list of 65", "1 to 64"),
        (
            |d| d.members.push(d.members[0].clone()),
            "members[1].name",
            "\"cp1\"",
            "unique",
        ),
        (
            |d| d.members[0].addresses.clear(),
            "members[0].addresses",
            "a list of 0",
            "1 to 4",
        ),
        (
            |d| d.members[0].addresses = vec![IpAddr::from([10, 0, 0, 1]); 5],
            "members[0].addresses",
            "a list of 5",
            "1 to 4",
        ),
        (|d| d.members[0].port = 0, "members[0].port", "0", "not be 0"),
        (
            |d| d.listeners.clear(),
            "listeners",
            "a list of 0",
            "at least one",
        ),
        (
            |d| d.listeners.push(d.listeners[0].clone()),
            "listeners[1].name",
            "\"apiserver\"",
            "unique",
        ),
        (
            |d| d.listeners[0].addresses.clear(),
            "listeners[0].addresses",
            "a list of 0",
            "at least one",
        ),
        (
            |d| d.listeners[0].addresses[1] = IpAddr::from([10, 0, 0, 1]),
            "listeners[0].addresses",
            "10.0.0.1",
            "loopback",
        ),
        (|d| d.listeners[0].port = 0, "listeners[0].port", "0", "not be 0"),
        (
            |d| d.health_check.period_milliseconds = 0,
            "healthCheck.periodMilliseconds",
            "0",
            "not be 0",
        ),
        (
            |d| d.health_check.timeout_milliseconds = 0,
            "healthCheck.timeoutMilliseconds",
            "0",
            "not be 0",
        ),
        (
            |d| d.health_check.timeout_milliseconds = 1001,
            "healthCheck.timeoutMilliseconds",
            "1001",
            "at most periodMilliseconds",
        ),
        (
            |d| d.health_check.failure_threshold = 0,
            "healthCheck.failureThreshold",
            "0",
            "not be 0",
        ),
        (
            |d| d.health_check.success_threshold = 0,
            "healthCheck.successThreshold",
            "0",
            "not be 0",
        ),
        (
            |d| d.connection.connect_timeout_milliseconds = 0,
            "connection.connectTimeoutMilliseconds",
            "0",
            "not be 0",
        ),
        (
            |d| d.connection.hedge_delay_milliseconds = 0,
            "connection.hedgeDelayMilliseconds",
            "0",
            "not be 0",
        ),
        (
            |d| d.connection.user_timeout_milliseconds = 0,
            "connection.userTimeoutMilliseconds",
            "0",
            "not be 0",
        ),
        (
            |d| d.connection.keep_alive_seconds = 0,
            "connection.keepAliveSeconds",
            "0",
            "not be 0",
        ),
        (
            |d| d.connection.max_connections = 0,
            "connection.maxConnections",
            "0",
            "not be 0",
        ),
    ];

    /// Members with names of their own.
    fn grow(document: &mut Document, count: usize) {
        let member = document.members[0].clone();
        let named = |index| Member {
            name: format!("cp{index}"),
            ..member.clone()
        };
        document.members = (0..count).map(named).collect();
    }

    #[test]
    fn a_bound_that_is_broken_is_told_with_field_value_rule_and_way_out() {
        for (change, field, value, rule) in CASES {
            let mut document = document();
            change(&mut document);
            let text = document.seal().unwrap().to_text().unwrap();
            let error = Document::parse(&text).unwrap_err();
            assert_eq!(error.reason(), "Invalid", "{field}: {error}");
            let told = error.to_string();
            let start = format!("wire document of revision 7: {field} is {value}: ");
            let said = told.strip_prefix(&start).unwrap_or_else(|| panic!("{told}"));
            let (broken, way_out) = said.split_once("; ").unwrap_or_else(|| panic!("{told}"));
            assert!(broken.contains(rule), "{told}");
            assert!(!way_out.is_empty(), "{told}");
        }
    }

    #[test]
    fn what_is_just_within_its_bounds_is_followed() {
        let within: [fn(&mut Document); 4] = [
            |d| grow(d, MAX_MEMBERS),
            |d| d.members[0].addresses = vec![IpAddr::from([10, 0, 0, 1]); MAX_ADDRESSES],
            |d| d.health_check.timeout_milliseconds = d.health_check.period_milliseconds,
            |d| d.connection.drain_timeout_seconds = 0,
        ];
        for change in within {
            let mut document = document();
            change(&mut document);
            let document = document.seal().unwrap();
            assert_eq!(Document::parse(&document.to_text().unwrap()).unwrap(), document);
        }
    }
}
