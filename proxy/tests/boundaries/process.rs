//! A proxy of the node as a process of its own, and what its log says.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, ChildStderr, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::time::Instant;

use crate::{
    fault::{self, Faults},
    node::Node,
    plan::{Boundary, MESSAGES, PAIRS, PAIRS_ABORT, PAIRS_TAKEN, STATUS, Side},
};

/// Which messages are sent and received, what the process is to the others, and which connections it has.
const LOG: &str = "error,trivet_proxy::handover=trace,trivet_proxy::connection=debug";

/// What a log says of one connection.
#[derive(Clone, Debug)]
pub(crate) struct Word {
    /// Its client.
    pub(crate) client: SocketAddr,
    pub(crate) at: Instant,
    /// Why it has ended; none if the process goes on with it.
    pub(crate) ending: Option<String>,
}

/// What a log has said so far.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    /// The state of the process.
    pub(crate) state: String,
    /// Since when the process is in this state.
    pub(crate) since: Instant,
    /// Since when the process holds the listeners.
    pub(crate) holds_since: Option<Instant>,
    /// When it began to close them for good.
    pub(crate) ends_since: Option<Instant>,
    /// Whether it has applied a snapshot.
    pub(crate) is_warm: bool,
    /// Whether another process has said that it takes connections of this one.
    pub(crate) has_given: bool,
    /// What it has said of connections.
    pub(crate) connections: Vec<Word>,
    /// The log.
    pub(crate) lines: Vec<String>,
}

impl Said {
    fn nothing() -> Self {
        Self {
            state: "Seeking".to_owned(),
            since: Instant::now(),
            holds_since: None,
            ends_since: None,
            is_warm: false,
            has_given: false,
            connections: Vec::new(),
            lines: Vec::new(),
        }
    }

    /// Whether it has said that the connection of this client has ended.
    pub(crate) fn has_ended(&self, client: SocketAddr) -> bool {
        let mut words = self.connections.iter().filter(|word| word.client == client);
        words.any(|word| word.ending.is_some())
    }

    fn note(&mut self, line: &str, message: Option<Boundary>) {
        let now = Instant::now();
        if let Some(word) = connection(line, now) {
            return self.connections.push(word);
        }
        if let Some(state) = word_after(line, " to=") {
            state.clone_into(&mut self.state);
            self.since = now;
            match state {
                "Serving" => _ = self.holds_since.get_or_insert(now),
                "Draining" | "Retiring" => _ = self.ends_since.get_or_insert(now),
                _ => {}
            }
        }
        if let Some(Boundary { message, side }) = message {
            match (message, side) {
                ("Lend", Side::Receiver) => _ = self.holds_since.get_or_insert(now),
                ("Warm", Side::Sender) => self.is_warm = true,
                (PAIRS_TAKEN, Side::Receiver) => self.has_given = true,
                _ => {}
            }
        }
        self.lines.push(line.to_owned());
    }
}

/// The messages of a log. Those about connections have the same names as those about the lock.
#[derive(Debug, Default)]
struct Reader {
    /// On which side of the latest `Pairs` the process is.
    pairs: Option<Side>,
}

impl Reader {
    /// The message that a line of the log is about.
    fn message(&mut self, line: &str) -> Option<Boundary> {
        let (message, side) = match word_after(line, " sent record=") {
            Some(message) => (message, Side::Sender),
            None => (word_after(line, " received record=")?, Side::Receiver),
        };
        let mut known = MESSAGES.into_iter().chain([STATUS]);
        let known = known.find(|known| *known == message)?;
        if known == PAIRS {
            self.pairs = Some(side);
        }
        // The giver of connections sends no more than them: it has no part in the hand-over of the lock any more. Who serves
        // takes no lock.
        let message =
            match (self.pairs, known, side) {
                (Some(Side::Sender), "Taken", Side::Receiver)
                | (Some(Side::Receiver), "Taken", Side::Sender) => PAIRS_TAKEN,
                (Some(Side::Sender), "Abort", Side::Sender)
                | (Some(Side::Receiver), "Abort", Side::Receiver) => PAIRS_ABORT,
                _ => known,
            };
        Some(Boundary { message, side })
    }
}

/// What a line says of a connection.
fn connection(line: &str, at: Instant) -> Option<Word> {
    let (_, rest) = line.split_once(" trivet_proxy::connection::record: ")?;
    let client = value_of(rest, " client=")?.parse().unwrap();
    let ending = value_of(rest, " reason=").map(|reason| reason.trim_matches('"').to_owned());
    Some(Word { client, at, ending })
}

fn word_after<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(key)?;
    rest.split(|letter: char| !letter.is_alphanumeric()).next()
}

fn value_of<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(key)?;
    rest.split(' ').next()
}

/// A running proxy.
pub(crate) struct Process {
    pub(crate) name: &'static str,
    child: Child,
    said: Arc<Mutex<Said>>,
}

impl Process {
    pub(crate) fn start(
        node: &Node,
        name: &'static str,
        class: &str,
        generation: u64,
        faults: &Arc<Faults>,
    ) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_trivet-proxy"))
            .args(["run", "--log-level", LOG, "--node-name", "w1", "--config"])
            .arg(node.path("pool.json"))
            .arg("--cache-dir")
            .arg(node.path(name))
            .arg("--socket")
            .arg(node.path(&format!("{name}.sock")))
            .env("TRIVET_HANDOVER_DIR", node.path("handover"))
            .env("TRIVET_CLASS", class)
            .env("TRIVET_TEMPLATE_GENERATION", generation.to_string())
            // It is this test's, and the program has another of the same name.
            .env_remove("TRIVET_SEED")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = Arc::new(Mutex::new(Said::nothing()));
        let (log, pid) = (child.stderr.take().unwrap(), pid(&child));
        let (heard, faults) = (Arc::clone(&said), Arc::clone(faults));
        thread::spawn(move || listen(log, name, pid, &heard, &faults));
        Self { name, child, said }
    }

    pub(crate) fn pid(&self) -> Pid {
        pid(&self.child)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// What its log has said so far.
    pub(crate) fn said(&self) -> Said {
        self.said.lock().unwrap().clone()
    }

    /// Its state, and for how long it has been in it.
    pub(crate) fn state(&self) -> (String, Duration) {
        let said = self.said.lock().unwrap();
        (said.state.clone(), said.since.elapsed())
    }

    pub(crate) fn is_warm(&self) -> bool {
        self.said.lock().unwrap().is_warm
    }

    /// Whether it has ended, by itself or by a signal.
    pub(crate) fn has_exited(&self) -> bool {
        fault::state(self.pid()) == 'Z'
    }

    /// How many of its files are this one.
    pub(crate) fn files(&self, path: &Path) -> usize {
        let Ok(files) = std::fs::read_dir(format!("/proc/{}/fd", self.pid())) else {
            return 0;
        };
        files
            .filter_map(|file| std::fs::read_link(file.ok()?.path()).ok())
            .filter(|target| target == path)
            .count()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended.
        drop(self.child.kill());
        self.child.wait().unwrap();
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().try_into().unwrap())
}

/// Reads the log to its end.
fn listen(log: ChildStderr, name: &'static str, pid: Pid, said: &Mutex<Said>, faults: &Arc<Faults>) {
    let mut reader = Reader::default();
    for line in BufReader::new(log).lines() {
        let Ok(line) = line else {
            return;
        };
        let message = reader.message(&line);
        // First, because the fault must follow the message at once.
        if let Some(message) = message {
            faults.logged(name, pid, message);
        }
        said.lock().unwrap().note(&line, message);
    }
}
