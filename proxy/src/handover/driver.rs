//! The hand-over at work: tells the machine what happens on sockets, lock and clock, and does what it says.

mod error;
mod links;
mod warmth;

use std::{
    collections::BTreeMap,
    future::pending,
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use serde_json::Map;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
};
use tracing::{debug, info, warn};

pub use self::warmth::Warmth;
use self::{
    error::Error,
    links::{Links, Read},
};
use super::{
    channel::{Channel, Record},
    directory::{BoundSocket, Directory, Presence},
    lent::{self, LentListener},
    lock::Lock,
    machine::{Action, ChannelId, Event, Machine, State, Timer},
    rank::{Class, Rank},
    record::{Listener, ListenerKind, Message, Peer},
    stall::{SAMPLE_INTERVAL, Stall, Verdict},
};
use crate::{
    cause,
    listener::{Listeners, sockets::Part},
    net::port_holders,
};

/// The pause after a peer that could not be accepted: this process may have no file left for it.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Whether no process goes on with the listeners.
    pub is_last: bool,
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
    stall: Stall,
    pings: u64,
    standing: watch::Sender<Standing>,
    end: Option<End>,
}

impl Driver {
    /// A process that has not begun to look for others.
    pub fn new(config: Config, listeners: Arc<Listeners>, warmth: Warmth) -> Self {
        let own = Peer {
            id: format!("{:016x}", rand::random::<u64>()),
            release: env!("CARGO_PKG_VERSION").to_owned(),
            rank: Rank {
                class: config.class,
                matches_document: false,
                generation: config.generation,
            },
            template: config.template,
            is_leaving: false,
            is_warm: false,
            has_listeners: false,
            pairs: 0,
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
            listeners,
            warmth,
            stall: Stall::new(Instant::now()),
            pings: 0,
            standing: watch::Sender::new(standing),
            end: None,
        }
    }

    /// What this process is to the others, and each later change.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// Takes part until the machine says that the process ends. `inbox` brings what happens in the rest of the process.
    pub async fn run(mut self, mut inbox: mpsc::Receiver<Event>) -> End {
        let mut samples = interval(SAMPLE_INTERVAL);
        samples.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut changes = self.listeners.sockets().changes();
        self.tell(Event::Started);
        loop {
            if let Some(end) = self.end {
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
                () = elapsed(&self.timers) => {}
                _ = samples.tick() => told.extend(self.sample()),
                _ = changes.changed() => told.extend(self.listening()),
                snapshot = self.warmth.changed() => told.push(Event::SnapshotReady(snapshot)),
            }
            while let Ok(event) = inbox.try_recv() {
                told.push(event);
            }
            self.links.write();
            self.read_all();
            for event in told {
                self.tell(event);
            }
            self.tell_elapsed();
            self.tell(Event::AllRead);
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
            Action::DropLock => self.lock = None,
            Action::Bind => return self.bind(),
            Action::BindPath => self.bind_path(),
            Action::ClosePath => self.socket = None,
            Action::Accept => self.accept(),
            Action::StopAccepting => self.listeners.sockets().play(Part::StandBy),
            Action::DropListeners => {
                self.listeners.sockets().play(Part::StandBy);
                self.listeners.sockets().replace(Vec::new());
            }
            Action::Send(channel, message) => match self.descriptors(&message) {
                Ok(descriptors) => self.links.send(channel, message, descriptors),
                Err(error) => warn!(%error, "failed to hand a message to another process of this node"),
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
            Action::Close(channel) => self.links.close(channel),
            Action::Set(timer, after) => {
                self.timers.insert(timer, Instant::now() + after);
            }
            Action::Clear(timer) => {
                self.timers.remove(&timer);
            }
            Action::Drain { is_last } => self.end = Some(End { is_last }),
        }
        None
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
                Event::Connected(self.links.add(channel))
            }
            Ok(None) => Event::Unreachable,
            Err(error) if error.passes() => Event::Unreachable,
            Err(error) => self.unavailable(&error),
        }
    }

    fn try_lock(&mut self) -> Event {
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
        warn!(%directory, cause, "no hand-over here: this process shares its ports");
        self.listeners.sockets().share();
        Event::Unavailable
    }

    /// There is no outcome while there is no document: the listeners tell when they are bound.
    fn bind(&mut self) -> Option<Event> {
        self.listeners.bind();
        let held = self.held();
        if !held.is_empty() {
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
            Ok(socket) => self.socket = Some(socket),
            // The next sample finds the path lost, and it is bound again.
            Err(error) => warn!(
                cause = cause::chain(&error),
                "failed to listen for other processes of this node"
            ),
        }
    }

    /// The listeners that this process holds, in order.
    fn held(&self) -> Vec<Listener> {
        let listener = |address| Listener {
            name: "apiserver".to_owned(),
            kind: ListenerKind::Apiserver,
            address,
            other: Map::new(),
        };
        self.listeners.sockets().all().into_keys().map(listener).collect()
    }

    /// The sockets have changed. One that had none to serve on serves now.
    fn listening(&self) -> Option<Event> {
        let held = self.held();
        if held == self.machine.listeners() {
            return None;
        }
        match self.machine.state() {
            State::Binding if held.is_empty() => None,
            State::Binding => Some(Event::Bound(held)),
            _ => Some(Event::Listening(held)),
        }
    }

    /// The descriptors that go with a message.
    fn descriptors(&self, message: &Message) -> Result<Vec<OwnedFd>, Error> {
        match message {
            Message::Lend { listeners } => listeners
                .iter()
                .map(|listener| self.lend(listener.address))
                .collect(),
            Message::Snapshot(snapshot) => Ok(vec![self.warmth.descriptor(snapshot)?]),
            Message::Commit { .. } => match &self.lock {
                Some(lock) => Ok(vec![lock.duplicate()?]),
                None => Err(Error::NoLock),
            },
            _ => Ok(Vec::new()),
        }
    }

    fn lend(&self, address: SocketAddr) -> Result<OwnedFd, Error> {
        let socket = self
            .listeners
            .sockets()
            .get(address)
            .ok_or(Error::NoListener(address))?;
        Ok(socket.as_fd().try_clone_to_owned()?)
    }

    /// One by one, because what is told decides whether the next is read.
    fn read_all(&mut self) {
        for channel in self.links.readable_ones() {
            while let Some(read) = self.links.read(channel) {
                self.tell_read(channel, read);
            }
        }
    }

    fn tell_read(&mut self, channel: ChannelId, read: Read) {
        match read {
            Read::Record(record) => self.receive(channel, record),
            Read::Broken => self.tell(Event::Broken(channel)),
            Read::End => {
                self.tell(Event::Closed(channel));
                self.links.close(channel);
            }
        }
    }

    /// Uses what came with a record, answers what needs no machine, and tells the rest.
    fn receive(&mut self, channel: ChannelId, record: Record) {
        let Record { message, descriptors } = record;
        let is_of_holder = self.machine.holder_channel() == Some(channel);
        let used = match &message {
            Message::Ping { number } => {
                let pong = Message::Pong { number: *number };
                return self.links.send(channel, pong, Vec::new());
            }
            Message::Pong { .. } => return self.stall.answer(Instant::now()),
            Message::StatusRequest => {
                if let Some((holder, peers)) = self.machine.status() {
                    self.links
                        .send(channel, Message::Status { holder, peers }, Vec::new());
                }
                return;
            }
            Message::Lend { listeners } if is_of_holder => {
                return match self.hold(listeners, descriptors) {
                    Ok(listeners) => self.tell(Event::Received(channel, Message::Lend { listeners })),
                    Err(error) => self.refuse(channel, &error),
                };
            }
            Message::Commit { .. } if is_of_holder => self.take_lock(descriptors),
            Message::Snapshot(snapshot) if is_of_holder => {
                return match self.warmth.apply(snapshot, descriptors) {
                    Ok(true) => self.tell(Event::Applied(snapshot.serial)),
                    Ok(false) => {}
                    Err(error) => debug!(%error, "failed to apply a snapshot of the process that serves"),
                };
            }
            _ => Ok(()),
        };
        match used {
            Ok(()) => self.tell(Event::Received(channel, message)),
            Err(error) => self.refuse(channel, &error),
        }
    }

    fn refuse(&mut self, channel: ChannelId, error: &Error) {
        warn!(
            cause = cause::chain(error),
            "failed to use what another process of this node handed over"
        );
        self.tell(Event::Broken(channel));
    }

    /// Holds what is lent, without those that were ended on their way. Returns what is held.
    fn hold(&self, listeners: &[Listener], descriptors: Vec<OwnedFd>) -> Result<Vec<Listener>, Error> {
        let (mut held, mut sockets) = (Vec::new(), Vec::new());
        for (listener, descriptor) in listeners.iter().zip(descriptors) {
            match LentListener::receive(descriptor, listener.address) {
                Ok(socket) => {
                    held.push(listener.clone());
                    sockets.push(socket);
                }
                Err(lent::Error::NotListening { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.listeners.sockets().replace(sockets);
        Ok(held)
    }

    fn take_lock(&mut self, descriptors: Vec<OwnedFd>) -> Result<(), Error> {
        let descriptor = descriptors.into_iter().next().ok_or(Error::NoLock)?;
        let path = self.directory()?.lock_path();
        self.lock = Some(Lock::receive(descriptor, &path)?);
        Ok(())
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

    /// Looks at what nobody tells: whether the holder hangs, and whether the lock and the socket are still in their place.
    fn sample(&mut self) -> Vec<Event> {
        let mut seen = Vec::new();
        let channel = self.machine.holder_channel();
        if let Some(channel) = channel
            && self.links.is_idle(channel)
        {
            self.pings += 1;
            self.links
                .send(channel, Message::Ping { number: self.pings }, Vec::new());
        }
        // One that seeks may hold listeners too, on which a process accepts that it has no channel to.
        if channel.is_some() || matches!(self.machine.state(), State::Seeking | State::Assisting) {
            match self.stall.sample(self.longest_queue(), Instant::now()) {
                Verdict::Stalled => seen.push(Event::Stalled),
                Verdict::Turning => seen.push(Event::Turning),
                Verdict::Calm => {}
            }
        }
        let is_lost = |lock: &Lock| matches!(lock.is_current(), Ok(false));
        if self.lock.as_ref().is_some_and(is_lost) {
            seen.push(Event::LockLost);
        } else if self.lock.is_some() && !self.is_at_path() {
            seen.push(Event::PathLost);
        }
        seen
    }

    fn is_at_path(&self) -> bool {
        self.socket.as_ref().is_some_and(BoundSocket::is_current)
    }

    fn longest_queue(&self) -> u32 {
        let sockets = self.listeners.sockets().all();
        let lengths = sockets
            .values()
            .filter_map(|socket| port_holders::queue_length(&**socket).ok().flatten());
        lengths.max().unwrap_or_default()
    }

    fn publish(&self) {
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
