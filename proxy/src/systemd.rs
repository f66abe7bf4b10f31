//! What systemd gives to a service that it starts, and what it is told in return: sockets (`sd_listen_fds`(3)), messages
//! (`sd_notify`(3)) and the watchdog (`sd_watchdog_enabled`(3)).
//!
//! A socket that systemd passes stays systemd's. The proxy accepts on it, but never calls `listen` or `shutdown` on it:
//! `shutdown` would end it for systemd too, and the socket unit would fail.

pub mod notifier;
pub mod report;
pub mod sockets;

use std::{ffi::OsString, io, net::SocketAddr, time::Duration};

use self::{notifier::Notifier, sockets::PassedSockets};

/// The most sockets that are taken: one for each address that a document can have.
const MAX_SOCKETS: usize = 32;

/// How systemd runs this process. The default is a process that systemd does not run.
#[derive(Clone, Debug, Default)]
pub struct Service {
    /// The listening sockets that it passed.
    pub sockets: PassedSockets,
    /// Where it hears messages, if it wants any.
    pub notifier: Option<Notifier>,
    /// How long this process may be silent before systemd restarts it, if there is a limit.
    pub watchdog: Option<Duration>,
}

/// Why what systemd passed cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A variable has a value that systemd does not set.
    #[error("{name}={value:?} must be {rule}; start the proxy by its unit, or without this variable")]
    Variable {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: OsString,
        /// What it must be.
        rule: &'static str,
    },
    /// A file descriptor is something else than a listening TCP socket.
    #[error(
        "file descriptor {number} ({name:?}) of systemd must be a listening TCP socket, and {fault}; correct the socket unit"
    )]
    NotAListener {
        /// Its number.
        number: usize,
        /// Its name in `LISTEN_FDNAMES`.
        name: String,
        /// What it is instead.
        fault: String,
    },
    /// Two sockets have one address. One of them would get clients that nobody accepts.
    #[error(
        "systemd passed two sockets with the address {0}; remove one ListenStream= from the socket units"
    )]
    Twice(SocketAddr),
    /// The kernel refuses an option.
    #[error("failed to prepare the socket {name:?} of systemd")]
    Io {
        /// Its name in `LISTEN_FDNAMES`.
        name: String,
        /// Why.
        source: io::Error,
    },
}

impl Service {
    /// Takes what systemd passed. `variable` reads an environment variable, and `pid` is the number of this process. It is
    /// called once, before the process has another thread or has opened another file.
    pub fn take(variable: impl Fn(&str) -> Option<OsString>, pid: u32) -> Result<Self, Error> {
        let notifier = variable("NOTIFY_SOCKET").map(|address| {
            Notifier::new(&address).ok_or(Error::Variable {
                name: "NOTIFY_SOCKET",
                value: address,
                rule: "an absolute path, or @ and a name",
            })
        });
        Ok(Self {
            sockets: PassedSockets::take(&names(&variable, pid)?)?,
            notifier: notifier.transpose()?,
            watchdog: watchdog(&variable, pid)?,
        })
    }

    /// Tells systemd something, if it wants to hear it.
    pub fn notify(&self, message: &str) {
        if let Some(notifier) = &self.notifier
            && let Err(error) = notifier.send(message)
        {
            tracing::warn!(%error, message, "failed to notify systemd");
        }
    }
}

/// The names of the passed sockets, in their order. None are passed if they are meant for another process, such as the
/// parent from which this one has the variables.
fn names(variable: impl Fn(&str) -> Option<OsString>, pid: u32) -> Result<Vec<String>, Error> {
    if number("LISTEN_PID", &variable)? != Some(u64::from(pid)) {
        return Ok(Vec::new());
    }
    let Some(count) = number("LISTEN_FDS", &variable)? else {
        return Ok(Vec::new());
    };
    let count = usize::try_from(count).ok().filter(|count| *count <= MAX_SOCKETS);
    let count = count.ok_or_else(|| Error::Variable {
        name: "LISTEN_FDS",
        value: variable("LISTEN_FDS").unwrap_or_default(),
        rule: "at most 32",
    })?;
    let names = variable("LISTEN_FDNAMES").unwrap_or_default();
    let names = names.to_string_lossy();
    let mut names = names.split(':').map(str::to_owned);
    // systemd itself calls a socket without a name so.
    let name = |()| names.next().unwrap_or_else(|| "unknown".to_owned());
    Ok(std::iter::repeat_n((), count).map(name).collect())
}

fn watchdog(variable: impl Fn(&str) -> Option<OsString>, pid: u32) -> Result<Option<Duration>, Error> {
    let meant_for = number("WATCHDOG_PID", &variable)?;
    let limit = number("WATCHDOG_USEC", &variable)?;
    let is_ours = meant_for.is_none_or(|meant_for| meant_for == u64::from(pid));
    Ok(limit.filter(|_| is_ours).map(Duration::from_micros))
}

fn number(name: &'static str, variable: impl Fn(&str) -> Option<OsString>) -> Result<Option<u64>, Error> {
    let Some(value) = variable(name) else {
        return Ok(None);
    };
    match value.to_str().and_then(|text| text.parse().ok()) {
        Some(number) => Ok(Some(number)),
        None => Err(Error::Variable {
            name,
            value,
            rule: "a number",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PID: u32 = 42;

    fn environment<'a>(variables: &'a [(&str, &str)]) -> impl Fn(&str) -> Option<OsString> + 'a {
        |wanted| {
            let found = variables.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, value)| value.into())
        }
    }

    #[test]
    fn sockets_for_another_process_are_left_alone() {
        let passed = |pid: &str| {
            let variables = [
                ("LISTEN_PID", pid),
                ("LISTEN_FDS", "2"),
                ("LISTEN_FDNAMES", "a:b"),
            ];
            names(environment(&variables), PID).unwrap()
        };
        assert_eq!(passed("42"), ["a", "b"]);
        assert!(passed("41").is_empty());
        let without_pid = [("LISTEN_FDS", "2")];
        assert!(names(environment(&without_pid), PID).unwrap().is_empty());
    }

    #[test]
    fn a_socket_without_a_name_is_called_unknown() {
        let variables = [("LISTEN_PID", "42"), ("LISTEN_FDS", "3"), ("LISTEN_FDNAMES", "a")];
        assert_eq!(
            names(environment(&variables), PID).unwrap(),
            ["a", "unknown", "unknown"]
        );
    }

    #[test]
    fn a_variable_that_systemd_would_not_set_is_named_with_its_rule() {
        for (variables, words) in [
            (&[("LISTEN_PID", "x")][..], "LISTEN_PID=\"x\" must be a number"),
            (
                &[("LISTEN_PID", "42"), ("LISTEN_FDS", "4000000000")],
                "LISTEN_FDS=\"4000000000\" must be at most 32",
            ),
            (
                &[("NOTIFY_SOCKET", "vsock:2:9999")],
                "NOTIFY_SOCKET=\"vsock:2:9999\" must be an absolute path",
            ),
            (
                &[("WATCHDOG_USEC", "-1")],
                "WATCHDOG_USEC=\"-1\" must be a number",
            ),
        ] {
            let error = Service::take(environment(variables), PID)
                .unwrap_err()
                .to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn the_watchdog_of_another_process_is_not_fed() {
        let fed = |variables: &[(&str, &str)]| watchdog(environment(variables), PID).unwrap();
        let limit = ("WATCHDOG_USEC", "3000000");
        assert_eq!(fed(&[limit]), Some(Duration::from_secs(3)));
        assert_eq!(
            fed(&[limit, ("WATCHDOG_PID", "42")]),
            Some(Duration::from_secs(3))
        );
        assert_eq!(fed(&[limit, ("WATCHDOG_PID", "41")]), None);
        assert_eq!(fed(&[]), None);
    }
}
