//! The node around the machines: lock file, socket path, channels and listeners as the kernel has them.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use serde_json::Map;
use trivet_proxy::handover::{
    machine::{Action, ChannelId, Event, Machine, State, Timer},
    rank::{Class, Rank},
    record::{Listener, ListenerKind, Message, Peer, Snapshot},
};

/// Faults that may still happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Faults {
    /// A process is killed.
    pub(crate) crashes: u8,
    /// A process is stopped; it goes on some time later.
    pub(crate) stops: u8,
    /// A process gets SIGTERM.
    pub(crate) terminations: u8,
    /// The directory with lock and socket is removed.
    pub(crate) lost_directories: u8,
    /// A record of a channel cannot be read.
    pub(crate) broken_channels: u8,
    /// The rollout reaches the node: the gate of the first process opens. That is no fault, and comes at any time too.
    pub(crate) openings: u8,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    /// By number; none is dead or has ended.
    pub(crate) processes: Vec<Option<Arc<Process>>>,
    /// In the order of their numbers.
    pub(crate) channels: Vec<Arc<Channel>>,
    /// Who listens at the socket path.
    pub(crate) path: Option<usize>,
    /// Which lock file is at the path.
    pub(crate) lock_file: u8,
    /// What may still go wrong.
    pub(crate) faults: Faults,
    /// Whether the gate of the first process is closed.
    pub(crate) is_gated: bool,
}

/// A process with what the kernel keeps for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Process {
    /// Its decisions.
    pub(crate) machine: Machine,
    /// Whether it runs.
    pub(crate) run: Run,
    /// Whether it accepts.
    pub(crate) accepts: bool,
    /// Whether it has the listening socket.
    pub(crate) has_socket: bool,
    /// The lock file that it has locked.
    pub(crate) lock: Option<u8>,
    /// Timers that are set.
    pub(crate) timers: BTreeMap<Timer, Duration>,
    /// Whether it has proven itself.
    pub(crate) is_proven: bool,
}

/// Whether a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Run {
    /// It does.
    Awake,
    /// It is stopped, by a signal or a debugger.
    Stopped,
    /// It was stopped, and has not yet read what came meanwhile.
    CatchingUp,
}

/// A channel with what is under way on it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Channel {
    /// The same at both ends.
    pub(crate) id: ChannelId,
    /// Who connected.
    pub(crate) peer: End,
    /// Who listened.
    pub(crate) holder: End,
}

/// One end of a channel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct End {
    /// Whose.
    pub(crate) process: usize,
    /// What it has not read yet; a lock file comes with `Commit`.
    pub(crate) unread: VecDeque<(Message, Option<u8>)>,
    /// Whether it reads.
    pub(crate) reads: bool,
    /// Whether it is open.
    pub(crate) is_open: bool,
}

impl Channel {
    /// The end of this process and the other one.
    pub(crate) fn ends(&self, process: usize) -> (&End, &End) {
        if self.peer.process == process {
            (&self.peer, &self.holder)
        } else {
            (&self.holder, &self.peer)
        }
    }

    fn ends_mut(&mut self, process: usize) -> (&mut End, &mut End) {
        if self.peer.process == process {
            (&mut self.peer, &mut self.holder)
        } else {
            (&mut self.holder, &mut self.peer)
        }
    }

    fn joins(&self, process: usize) -> bool {
        self.peer.process == process || self.holder.process == process
    }

    /// Whether this process has an open end of it.
    pub(crate) fn is_open_at(&self, process: usize) -> bool {
        self.joins(process) && self.ends(process).0.is_open
    }

    /// Whether this process can read a record or the end of file.
    pub(crate) fn is_readable_by(&self, process: usize) -> bool {
        if !self.joins(process) {
            return false;
        }
        let (own, other) = self.ends(process);
        own.is_open && (!own.unread.is_empty() || !other.is_open)
    }
}

/// The listener of the model.
fn listener() -> Listener {
    Listener {
        name: String::new(),
        kind: ListenerKind::Apiserver,
        address: ([127, 0, 0, 1], 7443).into(),
        other: Map::new(),
    }
}

impl World {
    /// A node on which processes of these ranks are about to start, the first of them behind a closed gate or not.
    pub(crate) fn new(ranks: &[Rank], is_gated: bool, faults: Faults) -> Self {
        let processes = ranks
            .iter()
            .enumerate()
            .map(|(number, &rank)| Some(Arc::new(start(number, rank, is_gated))));
        Self {
            is_gated,
            processes: processes.collect(),
            channels: Vec::new(),
            path: None,
            lock_file: 0,
            faults,
        }
    }

    /// Opens the gate: each process learns it.
    pub(crate) fn open_gate(&mut self) {
        self.is_gated = false;
        let living: Vec<usize> = self.living().map(|(number, _)| number).collect();
        for number in living {
            let rank = self.process(number).machine.rank();
            self.tell(number, Event::Retargeted { rank, closed: None });
        }
    }

    /// Whether the process `other` would take from `holder` by its rank.
    pub(crate) fn may_take(&self, other: usize, holder: usize) -> bool {
        let rank = |number: usize| self.processes[number].as_ref().unwrap().machine.rank();
        let is_gated = |number| self.is_gated && number == 0;
        match (is_gated(other), is_gated(holder)) {
            (true, _) => false,
            (false, true) => rank(other).class == Class::DaemonSet,
            (false, false) => rank(other).may_take(rank(holder)),
        }
    }

    /// The processes that live.
    pub(crate) fn living(&self) -> impl Iterator<Item = (usize, &Process)> {
        let numbered = self.processes.iter().enumerate();
        numbered.filter_map(|(number, process)| Some((number, &**process.as_ref()?)))
    }

    /// A process that lives.
    pub(crate) fn process(&mut self, number: usize) -> &mut Process {
        Arc::make_mut(self.processes[number].as_mut().unwrap())
    }

    /// Whether this process can read anything.
    pub(crate) fn is_readable_by(&self, process: usize) -> bool {
        self.channels
            .iter()
            .any(|channel| channel.is_readable_by(process))
    }

    /// Lets a process read the next record of a channel, or its end of file. Records by which two processes only get to know
    /// each other are read at one go: nothing is decided between them.
    pub(crate) fn read(&mut self, number: usize, id: ChannelId) {
        let mut goes_on = true;
        while goes_on {
            goes_on = self.next_record_introduces(number, id);
            self.read_one(number, id);
            goes_on &= self.next_record_introduces(number, id);
        }
    }

    fn next_record_introduces(&self, number: usize, id: ChannelId) -> bool {
        let Some(channel) = self.channels.iter().find(|channel| channel.id == id) else {
            return false;
        };
        let (own, _) = channel.ends(number);
        own.is_open && own.unread.front().is_some_and(|(message, _)| introduces(message))
    }

    fn read_one(&mut self, number: usize, id: ChannelId) {
        let channel = self.channel(id);
        let (own, _) = channel.ends_mut(number);
        let Some((message, lock)) = own.unread.pop_front() else {
            self.close(number, id);
            self.tell(number, Event::Closed(id));
            return;
        };
        if let Some(lock) = lock {
            self.process(number).lock = Some(lock);
        }
        let process = self.process(number);
        if process.machine.holder_channel() == Some(id) {
            process.has_socket |= matches!(message, Message::Lend { .. });
        }
        let snapshot = match &message {
            Message::Snapshot(snapshot) => Some(snapshot.serial),
            _ => None,
        };
        self.tell(number, Event::Received(id, message));
        if let Some(serial) = snapshot {
            self.tell(number, Event::Applied(serial));
        }
    }

    /// Tells a process what happened and carries out what it answers, then says that all is read if it is.
    pub(crate) fn tell(&mut self, number: usize, event: Event) {
        self.tell_one(number, event);
        if self.processes[number].is_some() && !self.is_readable_by(number) {
            self.process(number).run = Run::Awake;
            self.tell_one(number, Event::AllRead);
        }
    }

    fn tell_one(&mut self, number: usize, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            if self.processes[number].is_none() {
                return;
            }
            let process = self.process(number);
            let mut outcomes = Vec::new();
            for action in process.machine.observe(event) {
                outcomes.extend(self.carry_out(number, action));
            }
            for outcome in outcomes.into_iter().rev() {
                events.push_front(outcome);
            }
        }
    }

    fn carry_out(&mut self, number: usize, action: Action) -> Vec<Event> {
        match action {
            Action::Connect => return vec![self.connect(number)],
            Action::TryLock => return vec![self.try_lock(number)],
            Action::DropLock => self.process(number).lock = None,
            Action::Bind => return vec![self.bind(number)],
            Action::BindPath => self.path = Some(number),
            Action::ClosePath => self.close_path(number),
            Action::Accept => {
                assert!(
                    self.process(number).has_socket,
                    "{number} accepts without a socket"
                );
                self.process(number).accepts = true;
            }
            Action::StopAccepting => self.process(number).accepts = false,
            Action::DropListeners => self.process(number).has_socket = false,
            Action::Send(id, message) => {
                self.send(number, id, message);
            }
            Action::Confirm(id, take) => {
                let is_sent = self.send(number, id, Message::Taken { take });
                return vec![if is_sent {
                    Event::Confirmed
                } else {
                    Event::Unconfirmed
                }];
            }
            Action::CloseForReading(id) => return self.close_for_reading(number, id),
            Action::Close(id) => self.close(number, id),
            Action::Set(timer, after) => {
                self.process(number).timers.insert(timer, after);
            }
            Action::Clear(timer) => {
                self.process(number).timers.remove(&timer);
            }
            Action::Drain { .. } => {
                assert_eq!(self.process(number).lock, None, "{number} ends with the lock");
                self.end(number);
            }
        }
        Vec::new()
    }

    fn connect(&mut self, number: usize) -> Event {
        let Some(holder) = self.path.filter(|&holder| holder != number) else {
            return Event::Unreachable;
        };
        let ids = (0..).map(ChannelId);
        let mut free = ids.filter(|&id| self.channels.iter().all(|channel| channel.id != id));
        let id = free.next().unwrap();
        let end = |process| End {
            process,
            unread: VecDeque::new(),
            reads: true,
            is_open: true,
        };
        self.channels.push(Arc::new(Channel {
            id,
            peer: end(number),
            holder: end(holder),
        }));
        self.channels.sort_by_key(|channel| channel.id);
        Event::Connected(id)
    }

    fn try_lock(&mut self, number: usize) -> Event {
        if !self.is_lock_free_for(number) {
            return Event::LockHeld;
        }
        self.process(number).lock = Some(self.lock_file);
        Event::Locked
    }

    fn is_lock_free_for(&self, number: usize) -> bool {
        let file = Some(self.lock_file);
        let mut others = self.living().filter(|&(other, _)| other != number);
        others.all(|(_, process)| process.lock != file) && self.under_way().all(|(_, lock)| *lock != file)
    }

    /// Whether this process finds a holder or a free lock as soon as it looks again.
    pub(crate) fn would_find(&self, number: usize) -> bool {
        self.path.is_some_and(|holder| holder != number) || self.is_lock_free_for(number)
    }

    fn under_way(&self) -> impl Iterator<Item = &(Message, Option<u8>)> {
        let ends = self
            .channels
            .iter()
            .flat_map(|channel| [&channel.peer, &channel.holder]);
        ends.flat_map(|end| &end.unread)
    }

    /// A plain bind fails while any process has the socket, or it is under way to one.
    fn bind(&mut self, number: usize) -> Event {
        let is_lent = self
            .under_way()
            .any(|(message, _)| matches!(message, Message::Lend { .. }));
        if is_lent || self.living().any(|(_, process)| process.has_socket) {
            return Event::PortTaken;
        }
        self.process(number).has_socket = true;
        Event::Bound(vec![listener()])
    }

    fn close_path(&mut self, number: usize) {
        if self.path == Some(number) {
            self.path = None;
        }
    }

    /// Whether the message could be sent. One to an end that reads no more fails; one to a stopped process does not.
    fn send(&mut self, number: usize, id: ChannelId, message: Message) -> bool {
        let lock = match message {
            Message::Commit { .. } => Some(self.process(number).lock.unwrap()),
            _ => None,
        };
        let (own, other) = self.channel(id).ends_mut(number);
        let is_sent = own.is_open && other.is_open && other.reads;
        if is_sent {
            other.unread.push_back((message, lock));
        }
        is_sent
    }

    fn close_for_reading(&mut self, number: usize, id: ChannelId) -> Vec<Event> {
        let (own, _) = self.channel(id).ends_mut(number);
        own.reads = false;
        let left = own
            .unread
            .drain(..)
            .map(|(message, _)| Event::Received(id, message));
        left.chain([Event::Emptied(id)]).collect()
    }

    /// What this end has not read is lost, a lock in it is freed. The other end reads the rest of what was sent to it.
    fn close(&mut self, number: usize, id: ChannelId) {
        if self.channels.iter().all(|channel| channel.id != id) {
            return;
        }
        let (own, _) = self.channel(id).ends_mut(number);
        own.is_open = false;
        own.unread.clear();
        self.channels
            .retain(|channel| channel.peer.is_open || channel.holder.is_open);
    }

    fn channel(&mut self, id: ChannelId) -> &mut Channel {
        let channel = self.channels.iter_mut().find(|channel| channel.id == id);
        Arc::make_mut(channel.expect("a process uses no channel that it has closed"))
    }

    /// The kernel closes all that the process had.
    pub(crate) fn end(&mut self, number: usize) {
        self.processes[number] = None;
        self.close_path(number);
        let joined = self.channels.iter().filter(|channel| channel.joins(number));
        for id in joined.map(|channel| channel.id).collect::<Vec<_>>() {
            self.close(number, id);
        }
    }
}

fn introduces(message: &Message) -> bool {
    matches!(
        message,
        Message::Hello { .. } | Message::Lend { .. } | Message::Snapshot(_) | Message::Warm { .. }
    )
}

fn start(number: usize, rank: Rank, is_gated: bool) -> Process {
    let own = Peer {
        id: number.to_string(),
        release: String::new(),
        rank,
        template: number.to_string(),
        is_leaving: false,
        is_warm: false,
        has_listeners: false,
        pairs: 0,
        knows_extra_listeners: false,
        other: Map::new(),
    };
    let mut machine = Machine::new(own, String::new());
    let snapshot = Snapshot {
        serial: 0,
        revision: 0,
        bytes: 0,
    };
    machine.observe(Event::SnapshotReady(snapshot));
    let closed = is_gated.then(|| 0.to_string());
    machine.observe(Event::Retargeted { rank, closed });
    Process {
        machine,
        run: Run::Awake,
        accepts: false,
        has_socket: false,
        lock: None,
        // It elapses when the process starts.
        timers: BTreeMap::from([(Timer::Seek, Duration::ZERO)]),
        is_proven: false,
    }
}

impl Process {
    /// Its state.
    pub(crate) fn state(&self) -> State {
        self.machine.state()
    }

    /// Whether it believes that it is the one that serves.
    pub(crate) fn serves(&self) -> bool {
        matches!(self.state(), State::Serving | State::Giving | State::Leaving)
    }

    /// Whether it would accept if nobody drained the accept queue.
    pub(crate) fn may_assist(&self) -> bool {
        let waits = matches!(
            self.state(),
            State::Seeking | State::Newcomer | State::Gated | State::Standby | State::Taking
        );
        waits && self.has_socket
    }

    /// Whether SIGTERM has come.
    pub(crate) fn is_leaving(&self) -> bool {
        self.machine.is_leaving()
    }
}
