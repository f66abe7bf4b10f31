//! What a taker does.

use trivet_proxy::handover::pairs::taking::{Event, Step, Taking};

use super::{
    channel::{Offer, Read, Said, Task},
    world::{Who, World},
};

impl World {
    /// A taker reads on a channel.
    pub(crate) fn read_by_taker(&mut self, id: u8) {
        let channel = self.channel(id);
        let read = channel.read_by_taker();
        match (channel.task, read) {
            (Task::Reads, Some(Read::Record(Said::Pairs(offer)))) => channel.task = Task::Holds(offer),
            (Task::Reads, Some(Read::End)) => {
                channel.close_by_taker();
                self.forget_closed();
            }
            (Task::Waits(taking, offer), Some(Read::Record(Said::Abort(number)))) => {
                self.taker_does(id, taking.observe(Event::Aborted(number)), taking, offer);
            }
            (Task::Waits(taking, offer), Some(Read::End)) => {
                self.taker_does(id, taking.observe(Event::Closed), taking, offer);
            }
            // They mean nothing here. That a batch is skipped closes its duplicates.
            (Task::Reads, Some(Read::Record(Said::Abort(_))))
            | (Task::Waits(..), Some(Read::Record(Said::Pairs(_)))) => {}
            (Task::Holds(_), _) | (_, None) => unreachable!("it does not read"),
        }
    }

    /// A taker that holds a batch sends `Taken`.
    pub(crate) fn confirm(&mut self, id: u8) {
        let channel = self.channel(id);
        let Task::Holds(offer) = channel.task else {
            unreachable!("it has no batch");
        };
        let event = if channel.send_to_giver(offer.number) {
            Event::Confirmed
        } else {
            Event::Unconfirmed
        };
        let taking = Taking::new(offer.number);
        self.taker_does(id, taking.observe(event), taking, offer);
    }

    fn taker_does(&mut self, id: u8, step: Step, taking: Taking, offer: Offer) {
        let channel = self.channel(id);
        let taker = channel.taker;
        match step {
            Step::Wait => channel.task = Task::Waits(taking, offer),
            Step::Drop => channel.task = Task::Reads,
            Step::Serve => {
                channel.task = Task::Reads;
                self.served[taker][offer.batch] = true;
                self.owners[offer.batch] = Who::Taker(taker);
            }
        }
    }
}
