//! A holder gives.

use super::*;
use crate::handover::record::AbortReason;

fn ack() -> Message {
    let addresses = vec![listener().address];
    Message::Ack { take: 1, addresses }
}

#[test]
fn a_holder_offers_to_a_warm_peer_of_higher_rank() {
    let mut machine = Machine::serving(standby());
    machine.reads(FIRST, hello(process(pod(1))));
    assert_eq!(machine.reads(FIRST, asks(AskReason::Rank)), []);
    assert!(offers(&machine.reads(FIRST, Message::Warm { serial: 4 }), FIRST));
    assert_eq!(machine.state(), State::Giving);
}

#[test]
fn a_peer_that_knows_no_extra_listeners_is_lent_and_offered_none() {
    let both = vec![listener(), extra_listener()];
    for knows_extra_listeners in [true, false] {
        let mut machine = Machine::serving(standby());
        machine.observe(Event::Listening(both.clone()));
        let peer = Peer {
            knows_extra_listeners,
            ..warm(pod(1))
        };
        let expected = if knows_extra_listeners {
            both.clone()
        } else {
            vec![listener()]
        };
        let lend = Message::Lend {
            listeners: expected.clone(),
        };
        let actions = machine.reads(FIRST, hello(peer));
        assert!(sent(&actions, FIRST).contains(&&lend), "{actions:?}");
        let actions = machine.observe(Event::Listening(both.clone()));
        assert_eq!(sent(&actions, FIRST), [&lend]);
        let actions = machine.reads(FIRST, asks(AskReason::Rank));
        let [Message::Offer { addresses, .. }] = &sent(&actions, FIRST)[..] else {
            panic!("{actions:?}");
        };
        let expected: Vec<_> = expected.iter().map(|listener| listener.address).collect();
        assert_eq!(*addresses, expected);
    }
}

#[test]
fn a_holder_offers_nothing_to_its_equals() {
    let mut machine = Machine::serving(pod(1));
    machine.reads(FIRST, hello(warm(pod(1))));
    assert_eq!(machine.reads(FIRST, asks(AskReason::Rank)), []);
    assert_eq!(machine.reads(FIRST, asks(AskReason::Leaving)), []);
}

#[test]
fn a_holder_whose_document_names_another_template_offers_to_a_peer_that_has_asked_before() {
    let mut machine = Machine::serving(pod(2));
    machine.reads(FIRST, hello(warm(pod(1))));
    machine.reads(FIRST, asks(AskReason::Rank));
    let rank = Rank {
        matches_document: false,
        ..pod(2)
    };
    machine.observe(Event::Retargeted { rank, closed: None });
    assert!(offers(&machine.observe(Event::AllRead), FIRST));
}

#[test]
fn nothing_is_offered_before_all_is_read() {
    let mut machine = Machine::serving(standby());
    machine.reads(FIRST, hello(warm(pod(1))));
    assert_eq!(machine.observe(Event::Received(FIRST, asks(AskReason::Rank))), []);
    assert_eq!(machine.state(), State::Serving);
}

#[test]
fn a_new_holder_offers_nothing_before_those_that_seek_had_the_time_to_connect() {
    let mut machine = Machine::of(standby());
    for event in [Event::Started, Event::Unreachable, Event::Locked] {
        machine.observe(event);
    }
    machine.observe(Event::Bound(vec![listener()]));
    machine.reads(FIRST, hello(warm(pod(1))));
    assert_eq!(machine.reads(FIRST, asks(AskReason::Rank)), []);
    machine.observe(Event::Elapsed(Timer::Settle));
    assert!(offers(&machine.observe(Event::AllRead), FIRST));
}

#[test]
fn a_holder_accepts_and_keeps_its_lock_until_it_reads_taken() {
    let mut machine = Machine::serving(standby());
    machine.reads(FIRST, hello(warm(pod(1))));
    machine.reads(SECOND, hello(process(standby())));
    machine.reads(FIRST, asks(AskReason::Rank));
    let actions = machine.reads(FIRST, ack());
    assert!(commits(&actions, FIRST));
    assert!(!actions.contains(&Action::DropLock));
    assert!(machine.accepts());
    let actions = machine.reads(FIRST, Message::Taken { take: 1 });
    for expected in [
        Action::StopAccepting,
        Action::DropLock,
        Action::ClosePath,
        Action::Close(FIRST),
        Action::Close(SECOND),
    ] {
        assert!(actions.contains(&expected), "{expected:?}");
    }
    assert_eq!(machine.listeners(), [listener()]);
}

#[test]
fn taken_that_was_written_before_the_channel_was_shut_counts() {
    let mut machine = Machine::amid_give();
    assert_eq!(
        machine.observe(Event::Elapsed(Timer::Give)),
        [Action::CloseForReading(FIRST)]
    );
    machine.observe(Event::Received(FIRST, Message::Taken { take: 1 }));
    assert!(!machine.accepts());
    assert_eq!(machine.observe(Event::Emptied(FIRST)), []);
}

#[test]
fn without_taken_on_the_shut_channel_the_holder_says_so_and_goes_on() {
    let mut machine = Machine::amid_give();
    machine.observe(Event::Elapsed(Timer::Give));
    let actions = machine.observe(Event::Emptied(FIRST));
    let abort = Message::Abort {
        take: 1,
        reason: AbortReason::Overdue,
    };
    assert_eq!(actions[..2], [Action::Send(FIRST, abort), Action::Close(FIRST)]);
    assert_eq!(machine.state(), State::Serving);
}

#[test]
fn a_record_of_the_taker_that_cannot_be_read_does_not_just_end_the_channel() {
    let mut machine = Machine::amid_give();
    assert_eq!(
        machine.observe(Event::Broken(FIRST)),
        [Action::CloseForReading(FIRST)]
    );
}

#[test]
fn a_taker_that_dies_or_gives_up_leaves_the_holder_serving() {
    let aborted = Message::Abort {
        take: 1,
        reason: AbortReason::Leaving,
    };
    for event in [Event::Closed(FIRST), Event::Received(FIRST, aborted)] {
        let mut machine = Machine::amid_give();
        machine.observe(event);
        assert_eq!(machine.state(), State::Serving);
    }
}

#[test]
fn a_holder_that_took_gives_nothing_before_the_end_of_the_former_holder() {
    let mut machine = Machine::amid_take();
    machine.reads(UP, Message::Commit { take: 1 });
    machine.observe(Event::Confirmed);
    machine.observe(Event::Terminated);
    machine.reads(FIRST, hello(warm(standby())));
    machine.reads(FIRST, asks(AskReason::Leaving));
    machine.observe(Event::Elapsed(Timer::Settle));
    assert_eq!(machine.observe(Event::AllRead), []);
    machine.observe(Event::Closed(UP));
    machine.observe(Event::Elapsed(Timer::Settle));
    assert!(offers(&machine.observe(Event::AllRead), FIRST));
}

#[test]
fn nothing_is_offered_or_committed_while_a_peer_accepts_beside_the_holder() {
    let mut machine = Machine::serving(standby());
    machine.reads(FIRST, hello(warm(pod(1))));
    machine.reads(SECOND, hello(warm(standby())));
    machine.reads(SECOND, Message::Assist { on: true });
    assert_eq!(machine.reads(FIRST, asks(AskReason::Rank)), []);
    assert!(offers(
        &machine.reads(SECOND, Message::Assist { on: false }),
        FIRST
    ));
    machine.reads(SECOND, Message::Assist { on: true });
    assert_eq!(machine.reads(FIRST, ack()), []);
    assert!(commits(
        &machine.reads(SECOND, Message::Assist { on: false }),
        FIRST
    ));
}
