//! What the giver does.

use trivet_proxy::handover::pairs::giving::{Event, Giving, Step};

use super::{
    channel::{Channel, Offer, Read, Said},
    world::{BATCHES, Part, Share, World},
};

/// How many channels the giver makes, one after the other.
const CHANNELS: u8 = 3;

impl World {
    /// The batch that the giver gives next.
    pub(crate) fn next_batch(&self) -> Option<usize> {
        (0..BATCHES).find(|batch| self.giver.batches[*batch] == Share::Relayed)
    }

    /// Whether the giver may look for somebody who takes.
    pub(crate) fn may_connect(&self) -> bool {
        self.giver.channel.is_none() && self.giver.channels < CHANNELS && self.next_batch().is_some()
    }

    /// The giver makes a channel to a taker, which has said that it takes.
    pub(crate) fn connect(&mut self, taker: usize) {
        let id = self.giver.channels;
        self.giver.channels += 1;
        self.giver.channel = Some(id);
        self.channels.push(Channel::new(id, taker));
    }

    /// The giver stops to relay a batch and sends it, or ends the channel on which it has nothing more to give.
    pub(crate) fn offer(&mut self) {
        let Some(batch) = self.next_batch() else {
            return self.end_channel();
        };
        self.giver.number += 1;
        let number = self.giver.number;
        let offer = Offer { number, batch };
        if self.on_givers_channel().send_to_taker(Said::Pairs(offer)) {
            self.giver.batches[batch] = Share::Offered;
            self.giver.part = Part::Waits(Giving::new(number), offer);
        } else {
            self.end_channel();
        }
    }

    /// The giver reads what is there, and learns when there is no more.
    pub(crate) fn read_by_giver(&mut self) {
        let read = self.on_givers_channel().read_by_giver();
        let (mut giving, offer, at_end) = match self.giver.part {
            Part::Waits(giving, offer) => (giving, offer, Event::Closed),
            Part::Empties(giving, offer) => (giving, offer, Event::Emptied),
            Part::Idle | Part::Aborts(_) => unreachable!("it does not read"),
        };
        let event = match read {
            Some(Read::Record(number)) => Event::Taken(number),
            Some(Read::End) => at_end,
            None => unreachable!("there is nothing to read"),
        };
        let step = giving.observe(event);
        self.giver_does(step, giving, offer);
    }

    /// The giver has waited for too long.
    pub(crate) fn overdue(&mut self) {
        let Part::Waits(mut giving, offer) = self.giver.part else {
            unreachable!("it does not wait");
        };
        let step = giving.observe(Event::Overdue);
        self.giver_does(step, giving, offer);
    }

    fn giver_does(&mut self, step: Step, giving: Giving, offer: Offer) {
        match step {
            Step::Wait => {}
            Step::Empty => {
                self.on_givers_channel().shut_by_giver();
                self.giver.part = Part::Empties(giving, offer);
            }
            Step::Given => {
                self.giver.batches[offer.batch] = Share::Closed;
                self.giver.part = Part::Idle;
            }
            Step::GivenLast => {
                self.giver.batches[offer.batch] = Share::Closed;
                self.end_channel();
            }
            Step::Abort => self.giver.part = Part::Aborts(offer),
            Step::Keep => self.keep(offer),
        }
    }

    /// The giver says that it goes on, and does.
    pub(crate) fn abort(&mut self) {
        let Part::Aborts(offer) = self.giver.part else {
            unreachable!("it does not abort");
        };
        // It fails only where the taker's end is closed.
        self.on_givers_channel().send_to_taker(Said::Abort(offer.number));
        self.keep(offer);
    }

    fn keep(&mut self, offer: Offer) {
        self.went_on_unsaid |= !self.on_givers_channel().lets_giver_go_on(offer.number);
        self.giver.batches[offer.batch] = Share::Relayed;
        self.end_channel();
    }

    pub(super) fn end_channel(&mut self) {
        self.on_givers_channel().close_by_giver();
        self.giver.channel = None;
        self.giver.part = Part::Idle;
        self.forget_closed();
    }
}
