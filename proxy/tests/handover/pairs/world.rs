//! The giver, the takers and their channels, around the machines that decide.

use trivet_proxy::handover::pairs::giving::Giving;

use super::channel::{Channel, Offer};

/// How many batches the giver has.
pub(crate) const BATCHES: usize = 2;

/// How many takers there are.
pub(crate) const TAKERS: usize = 2;

/// Faults that may still happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Faults {
    /// A process is killed.
    pub(crate) crashes: u8,
    /// A process is stopped; it goes on some time later.
    pub(crate) stops: u8,
    /// A taker has no room, cannot read a batch, or ends.
    pub(crate) refusals: u8,
}

/// A process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Who {
    /// The one that gives.
    Giver,
    /// One that takes.
    Taker(usize),
}

/// Whether a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Run {
    /// It does.
    Awake,
    /// It is stopped: it does nothing, and what it has stays.
    Stopped,
    /// It was killed: the kernel has closed what it had.
    Dead,
}

/// What the giver does with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Share {
    /// It relays it.
    Relayed,
    /// It has stopped to relay it, and keeps its sockets.
    Offered,
    /// It has closed its sockets.
    Closed,
}

/// What the giver does on its channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Part {
    /// Nothing is on its way.
    Idle,
    /// It waits for `Taken`.
    Waits(Giving, Offer),
    /// It has shut the channel down for reading, and reads what is left.
    Empties(Giving, Offer),
    /// It is about to send `Abort`.
    Aborts(Offer),
}

/// The process that gives.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Giver {
    /// Its channel.
    pub(crate) channel: Option<u8>,
    /// What it does there.
    pub(crate) part: Part,
    /// What it does with each batch.
    pub(crate) batches: [Share; BATCHES],
    /// How many channels it has made.
    pub(crate) channels: u8,
    /// How many batches it has sent.
    pub(crate) number: u64,
}

/// The node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    /// The giver.
    pub(crate) giver: Giver,
    /// Which batches each taker relays.
    pub(crate) served: [[bool; BATCHES]; TAKERS],
    /// The channels that are not closed at both ends.
    pub(crate) channels: Vec<Channel>,
    /// What may still go wrong.
    pub(crate) faults: Faults,
    /// Whose each batch is: the giver's until a taker could confirm it, or until the giver has died while it was on its way.
    pub(crate) owners: [Who; BATCHES],
    /// Whether the giver went on with a batch of which the taker was not told.
    pub(crate) went_on_unsaid: bool,
    giver_runs: Run,
    takers_run: [Run; TAKERS],
}

impl World {
    /// Nothing is given yet.
    pub(crate) fn new(faults: Faults) -> Self {
        Self {
            giver: Giver {
                channel: None,
                part: Part::Idle,
                batches: [Share::Relayed; BATCHES],
                channels: 0,
                number: 0,
            },
            served: [[false; BATCHES]; TAKERS],
            channels: Vec::new(),
            faults,
            owners: [Who::Giver; BATCHES],
            went_on_unsaid: false,
            giver_runs: Run::Awake,
            takers_run: [Run::Awake; TAKERS],
        }
    }

    /// All processes.
    pub(crate) fn processes() -> impl Iterator<Item = Who> {
        [Who::Giver].into_iter().chain((0..TAKERS).map(Who::Taker))
    }

    /// Whether it runs.
    pub(crate) fn run(&self, who: Who) -> Run {
        match who {
            Who::Giver => self.giver_runs,
            Who::Taker(taker) => self.takers_run[taker],
        }
    }

    /// Stops a process, or lets it go on.
    pub(crate) fn set_run(&mut self, who: Who, run: Run) {
        match who {
            Who::Giver => self.giver_runs = run,
            Who::Taker(taker) => self.takers_run[taker] = run,
        }
    }

    /// Whether a process relays a batch, as soon as it runs.
    pub(crate) fn relays(&self, who: Who, batch: usize) -> bool {
        let does = match who {
            Who::Giver => self.giver.batches[batch] == Share::Relayed,
            Who::Taker(taker) => self.served[taker][batch],
        };
        does && self.run(who) != Run::Dead
    }

    /// Whether a process has the sockets of a batch, or will have them once it has read what it was sent.
    pub(crate) fn has(&self, who: Who, batch: usize) -> bool {
        match who {
            Who::Giver => self.giver.batches[batch] != Share::Closed,
            Who::Taker(taker) => {
                let mut own = self.channels.iter().filter(|channel| channel.taker == taker);
                self.served[taker][batch] || own.any(|channel| channel.carries(batch))
            }
        }
    }

    /// The giver's channel.
    pub(crate) fn givers_channel(&self) -> Option<&Channel> {
        let id = self.giver.channel?;
        self.channels.iter().find(|channel| channel.id == id)
    }

    pub(super) fn channel(&mut self, id: u8) -> &mut Channel {
        let mut channels = self.channels.iter_mut();
        channels.find(|channel| channel.id == id).unwrap()
    }

    pub(super) fn on_givers_channel(&mut self) -> &mut Channel {
        let id = self.giver.channel.unwrap();
        self.channel(id)
    }

    /// A taker refuses the batch that it has read: it ends the channel. The batch stays the giver's.
    pub(crate) fn refuse(&mut self, id: u8) {
        self.lose_taker(id);
        self.forget_closed();
    }

    fn lose_taker(&mut self, id: u8) {
        let channel = self.channel(id);
        let taker = channel.taker;
        let carried: Vec<_> = (0..BATCHES).filter(|batch| channel.carries(*batch)).collect();
        channel.close_by_taker();
        for batch in carried {
            let is_inherited = self.owners[batch] == Who::Taker(taker) && !self.served[taker][batch];
            if is_inherited && self.run(Who::Taker(taker)) != Run::Dead {
                self.owners[batch] = Who::Giver;
            }
        }
    }

    /// The kernel closes all that a process had.
    pub(crate) fn crash(&mut self, who: Who) {
        self.set_run(who, Run::Dead);
        match who {
            Who::Giver => self.lose_giver(),
            Who::Taker(taker) => {
                let own = self.channels.iter().filter(|channel| channel.taker == taker);
                for id in own.map(|channel| channel.id).collect::<Vec<_>>() {
                    self.lose_taker(id);
                }
            }
        }
        self.forget_closed();
    }

    /// What was on its way, and of which the giver did not say that it goes on, is the taker's.
    fn lose_giver(&mut self) {
        let channel = self.givers_channel();
        let heir = channel.filter(|channel| channel.is_open_at_taker());
        let heir = heir.map(|channel| Who::Taker(channel.taker));
        if let (Part::Waits(_, offer) | Part::Empties(_, offer) | Part::Aborts(offer), Some(heir)) =
            (self.giver.part, heir)
        {
            self.owners[offer.batch] = heir;
        }
        if self.giver.channel.is_some() {
            self.end_channel();
        }
    }

    pub(super) fn forget_closed(&mut self) {
        self.channels.retain(Channel::is_open);
    }
}
