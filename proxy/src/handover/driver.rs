//! The hand-over at work: tells the machine what happens on sockets, lock and clock, and does what it says.

mod error;
mod links;
mod records;
mod samples;
mod spares;
mod succession;
mod warmth;

use std::{
    collections::BTreeMap,
    future::pending,
    path::PathBuf,
    sync::{Arc, Weak},
    time::Duration,
};

use serde_json::Map;
use tokio::{
    sync::{mpsc, watch},
    task::yield_now,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
};
use tracing::{debug, info};
use trivet_crds::report::StandbyState;

pub use self::warmth::Warmth;
use self::{error::Error, links::Links, spares::Spares, succession::Succession};
use super::{
    channel::Channel,
    directory::{BoundSocket, Directory, Presence},
    lent::LentListener,
    lock::Lock,
    machine::{Action, ChannelId, Event, Machine, State, Timer},
    pairs::{MAX_PAIRS, takings::Takings},
    rank::{Class, Rank},
    record::{Listener, Message, Peer},
    stall::{SAMPLE_INTERVAL, Stall},
};
use crate::{
    cause,
    clock::event_loop::Lapses,
    listener::{Listeners, sockets::Part},
    warnings::{Topic, Warnings},
};

/// The pause after a peer that could not be accepted: this process may have no file left for it.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long the tasks of the listeners may take to close their sockets: they only have to be polled.
const CLOSE_LIMIT: Duration = Duration::from_millis(100);

/// How a process takes part.
#[derive(Clone, Debug)]
pub struct Config {
    /// The directory in which the processes of this pool meet.
    pub directory: PathBuf,
    /// The pool.
    pub pool: String,
    /// How this process was started.
    pub class: Class,
    /// The hash of its template; empty where there is none.
    pub template: String,
    /// The generation of its DaemonSet; 0 where there is none.
    pub generation: u64,
}

/// What the process is to the others, for its readiness and for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its state.
    pub state: State,
    /// Whether it is ready, as far as the hand-over goes.
    pub is_ready: bool,
}

/// How a process ends.
#[derive(Debug)]
pub struct End {
    /// Whether no process goes on with the listeners.
    pub is_last: bool,
    /// Kept by the last process until its listeners are closed: one that starts meanwhile could not bind them.
    pub lock: Option<Lock>,
    /// Connections of other processes of which it is not decided yet whether this one goes on with them.
    pub takings: Takings,
}

/// Does what the machine says.
#[derive(Debug)]
pub struct Driver {
    path: PathBuf,
    directory: Option<Directory>,
    machine: Machine,
    lock: Option<Lock>,
    socket: Option<BoundSocket>,
    links: Links,
    timers: BTreeMap<Timer, Instant>,
    listeners: Arc<Listeners>,
    warmth: Warmth,
    warnings: Arc<Warnings>,
    stall: Stall,
    lapses: Lapses,
    succession: Succession,
    pings: u64,
    /// Whether a message could not get its descriptors, so that its content must be sent again.
    lends_again: bool,
    /// The hand-overs of other processes' connections to this one.
    takings: Takings,
    /// The sockets that this process does not hold any more, as far as their tasks still do.
    dropped: Vec<Weak<LentListener>>,
    /// The channels that end once those are closed.
    ending: Vec<ChannelId>,
    standing: watch::Sender<Standing>,
    spares: Spares,
    end: Option<End>,
}

impl Driver {
    /// A process that has not begun to look for others.
    pub fn new(config: Config, listeners: Arc<Listeners>, warmth: Warmth, warnings: Arc<Warnings>) -> Self {
        let own = Peer {
            id: format!("{:016x}", rand::random::<u64>()),
            release: env!("CARGO_PKG_VERSION").to_owned(),
            rank: Rank {
                class: config.class,
                matches_document: warmth.names(&config.template),
                generation: config.generation,
            },
            template: config.template,
            is_leaving: false,
            is_warm: false,
            has_listeners: false,
            pairs: MAX_PAIRS as u64,
            knows_extra_listeners: true,
            other: Map::new(),
        };
        let machine = Machine::new(own, config.pool);
        let standing = Standing {
            state: machine.state(),
            is_ready: false,
        };
        Self {
            path: config.directory,
            directory: None,
            machine,
            lock: None,
            socket: None,
            links: Links::default(),
            timers: BTreeMap::new(),
            lapses: listeners.upstreams().clock().lapses(),
            listeners,
            warmth,
            warnings,
            stall: Stall::new(Instant::now()),
            succession: Succession::default(),
            pings: 0,
            lends_again: false,
            takings: Takings::default(),
            dropped: Vec::new(),
            ending: Vec::new(),
            standing: watch::Sender::new(standing),
            spares: Spares::default(),
            end: None,
        }
    }

    /// What this process is to the others, and each later change.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// Whether a standby of this node can take over, and each later change.
    pub fn standby(&self) -> watch::Receiver<StandbyState> {
        self.spares.subscribe()
    }

    /// Takes part until the machine says that the process ends. `inbox` brings what happens in the rest of the process.
    pub async fn run(mut self, mut inbox: mpsc::Receiver<Event>) -> End {
        let mut samples = interval(SAMPLE_INTERVAL);
        samples.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut changes = self.listeners.sockets().changes();
        self.tell_target();
        self.tell(Event::Started);
        loop {
            if let Some(end) = self.end.take() {
                self.links.write();
                return end;
            }
            let mut told = Vec::new();
            tokio::select! {
                event = inbox.recv() => told.extend(event),
                peer = accept(self.socket.as_ref()) => {
                    self.links.add(peer);
                }
                () = self.links.ready() => {}
                () = self.takings.next_ended() => {}
                () = elapsed(&self.timers) => {}
                _ = samples.tick() => told.extend(self.sample()),
                _ = changes.changed() => told.extend(self.listening()),
                snapshot = self.warmth.changed() => told.push(Event::SnapshotReady(snapshot)),
            }
            // Before any timer is set anew.
            self.catch_up();
            while let Ok(event) = inbox.try_recv() {
                told.push(event);
            }
            self.links.write();
            self.read_all();
            for event in told {
                self.tell(event);
            }
            for channel in self.links.take_faulty() {
                self.tell(Event::Broken(channel));
            }
            self.tell_target();
            self.tell_elapsed();
            self.tell(Event::AllRead);
            self.end_channels().await;
            self.publish();
        }
    }

    fn tell(&mut self, event: Event) {
        for action in self.machine.observe(event) {
            if let Some(outcome) = self.perform(action) {
                self.tell(outcome);
            }
        }
    }

    fn perform(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Connect => return Some(self.connect()),
            Action::TryLock => return Some(self.try_lock()),
            // The last process keeps it until its listeners are closed.
            Action::DropLock if self.machine.state() == State::Draining => {}
            Action::DropLock => self.lock = None,
            Action::Bind => return self.bind(),
            Action::BindPath => self.bind_path(),
            Action::ClosePath => self.socket = None,
            Action::Accept => self.accept(),
            Action::StopAccepting => self.listeners.sockets().play(Part::StandBy),
            Action::DropListeners => self.drop_listeners(),
            Action::Send(channel, message) => match self.descriptors(&message) {
                Ok(descriptors) => self.links.send(channel, message, descriptors),
                Err(error) => {
                    debug!(%error, ?message, "failed to hand a message to another process of this node");
                    self.lends_again = true;
                }
            },
            Action::Confirm(channel, take) => {
                let is_sent = self.links.send_now(channel, &Message::Taken { take });
                return Some(if is_sent {
                    Event::Confirmed
                } else {
                    Event::Unconfirmed
                });
            }
            Action::CloseForReading(channel) => {
                for read in self.links.shut_receive(channel) {
                    self.tell_read(channel, read);
                }
                return Some(Event::Emptied(channel));
            }
            Action::Close(channel) if self.dropped.is_empty() => self.links.close(channel),
            Action::Close(channel) => self.ending.push(channel),
            Action::Set(timer, after) => {
                self.timers.insert(timer, Instant::now() + after);
            }
            Action::Clear(timer) => {
                self.timers.remove(&timer);
            }
            Action::Drain { is_last } => {
                let lock = self.lock.take().filter(|_| is_last);
                let takings = std::mem::take(&mut self.takings);
                self.end = Some(End {
                    is_last,
                    lock,
                    takings,
                });
            }
        }
        None
    }

    /// What the document in force asks of this node is another once it names another template or moves its gate.
    fn tell_target(&mut self) {
        let rank = Rank {
            matches_document: self.warmth.names(self.machine.template()),
            ..self.machine.rank()
        };
        let closed = self.warmth.closed_template();
        if rank != self.machine.rank() || closed.as_deref() != self.machine.closed_template() {
            self.tell(Event::Retargeted { rank, closed });
        }
    }

    fn drop_listeners(&mut self) {
        let sockets = self.listeners.sockets();
        if sockets.is_shared() {
            // It has served alone: no other process has these.
            self.listeners.admit_waiting();
            sockets.share(false);
        }
        self.dropped.extend(sockets.all().values().map(Arc::downgrade));
        sockets.play(Part::StandBy);
        sockets.replace(Vec::new());
    }

    /// A holder that waits for the port binds it when a channel ends, so the sockets must be closed before.
    async fn end_channels(&mut self) {
        let dropped = std::mem::take(&mut self.dropped);
        let deadline = Instant::now() + CLOSE_LIMIT;
        while dropped.iter().any(|socket| socket.strong_count() > 0) && Instant::now() < deadline {
            yield_now().await;
        }
        for channel in std::mem::take(&mut self.ending) {
            self.links.close(channel);
        }
    }

    /// One that assists binds nothing.
    fn accept(&self) {
        if self.machine.state() == State::Assisting {
            self.listeners.sockets().play(Part::Assist);
        } else {
            self.listeners.serve();
        }
    }

    fn connect(&mut self) -> Event {
        let connected = self.directory().and_then(|directory| Ok(directory.connect()?));
        match connected {
            Ok(Some(channel)) => {
                self.stall = Stall::new(Instant::now());
                self.warnings.clear(Topic::Handover);
                Event::Connected(self.links.add(channel))
            }
            Ok(None) => Event::Unreachable,
            Err(error) if error.passes() => Event::Unreachable,
            Err(error) => self.unavailable(&error),
        }
    }

    /// A process without listeners and without a document that names some could do nothing with the lock: it would only
    /// keep it from one that has a document. It looks for a holder, from which it gets both.
    fn try_lock(&mut self) -> Event {
        if !self.warmth.has_document() && self.listeners.sockets().all().is_empty() {
            return Event::LockHeld;
        }
        let locked = self.directory().and_then(|directory| Ok(directory.try_lock()?));
        match locked {
            Ok(Some(lock)) => {
                self.lock = Some(lock);
                Event::Locked
            }
            Ok(None) => Event::LockHeld,
            Err(error) if error.passes() => Event::LockHeld,
            Err(error) => self.unavailable(&error),
        }
    }

    /// The directory, opened again where another is in its place.
    fn directory(&mut self) -> Result<&Directory, Error> {
        let is_current = self
            .directory
            .as_ref()
            .is_some_and(|directory| matches!(directory.presence(), Ok(Presence::Current)));
        if !is_current {
            self.directory = None;
        }
        match &mut self.directory {
            Some(directory) => Ok(directory),
            none => Ok(none.insert(Directory::open(&self.path)?)),
        }
    }

    fn unavailable(&self, error: &Error) -> Event {
        let directory = self.path.display();
        let cause = cause::chain(error);
        let message = format!("{directory}: this proxy serves alone and shares its ports: {cause}");
        self.warnings
            .raise(Topic::Handover, "HandoverUnavailable", message);
        self.listeners.sockets().share(true);
        Event::Unavailable
    }

    /// There is no outcome while there is no document: the listeners tell when they are bound.
    fn bind(&mut self) -> Option<Event> {
        self.listeners.bind();
        let held = self.held();
        if serves_apiservers(&held) {
            Some(Event::Bound(held))
        } else if self.listeners.addresses().is_empty() {
            None
        } else {
            Some(Event::PortTaken)
        }
    }

    fn bind_path(&mut self) {
        let bound = self.directory().and_then(|directory| Ok(directory.bind()?));
        match bound {
            Ok(socket) => {
                self.socket = Some(socket);
                self.listeners.sockets().share(false);
                self.warnings.clear(Topic::Handover);
            }
            // The next sample finds the path lost, and it is bound again.
            Err(error) => {
                let directory = self.path.display();
                let cause = cause::chain(&error);
                let message = format!(
                    "{directory}: no other proxy of this node can stand by or take over, trying again: {cause}"
                );
                self.warnings
                    .raise(Topic::Handover, "HandoverPathUnwritable", message);
            }
        }
    }

    /// The sockets have changed. One that had none to serve on serves now.
    fn listening(&self) -> Option<Event> {
        let held = self.held();
        if held == self.machine.listeners() {
            return None;
        }
        match self.machine.state() {
            State::Binding if serves_apiservers(&held) => Some(Event::Bound(held)),
            State::Binding => None,
            _ => Some(Event::Listening(held)),
        }
    }

    /// Leaves out the time in which this process stood still: what others have said since is read, but where the whole machine
    /// did, they have said nothing yet. How long this process may leave is no limit on others.
    fn catch_up(&mut self) {
        let time = self.lapses.since(self.listeners.upstreams().clock());
        let of_others = self
            .timers
            .iter_mut()
            .filter(|(timer, _)| **timer != Timer::Leave);
        for (_, at) in of_others {
            *at += time;
        }
    }

    fn tell_elapsed(&mut self) {
        let now = Instant::now();
        let elapsed: Vec<_> = self
            .timers
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(timer, _)| *timer)
            .collect();
        for timer in elapsed {
            // An earlier one may have cleared it or set it anew.
            if self.timers.get(&timer).is_some_and(|at| *at <= now) {
                self.timers.remove(&timer);
                self.tell(Event::Elapsed(timer));
            }
        }
    }

    fn publish(&mut self) {
        self.spares.publish(self.machine.guests(), self.warmth.serial());
        let standing = Standing {
            state: self.machine.state(),
            is_ready: self.machine.is_ready(),
        };
        self.standing.send_if_modified(|before| {
            let is_new = *before != standing;
            if before.state != standing.state {
                info!(from = ?before.state, to = ?standing.state, "hand-over: this process's part changed");
            }
            *before = standing;
            is_new
        });
    }
}

/// Whether clients of the apiservers can be served with these listeners: the others are none without them.
fn serves_apiservers(held: &[Listener]) -> bool {
    held.iter().any(Listener::is_of_apiservers)
}

/// Waits for the next peer.
async fn accept(socket: Option<&BoundSocket>) -> Channel {
    let Some(socket) = socket else {
        return pending().await;
    };
    loop {
        match socket.accept().await {
            Ok(channel) => return channel,
            Err(error) => debug!(
                cause = cause::chain(&error),
                "failed to accept another process of this node"
            ),
        }
        sleep(ACCEPT_PAUSE).await;
    }
}

/// Waits until the first timer has elapsed.
async fn elapsed(timers: &BTreeMap<Timer, Instant>) {
    match timers.values().min() {
        Some(first) => sleep_until(*first).await,
        None => pending().await,
    }
}
