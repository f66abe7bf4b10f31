//! A peer takes.

use super::*;
use crate::handover::record::AbortReason;

#[test]
fn a_newcomer_asks_once_it_is_warm_and_proven() {
    let mut machine = Machine::of(pod(1));
    machine.observe(Event::Connected(UP));
    assert_eq!(machine.reads(UP, hello(warm(standby()))), []);
    let listeners = vec![listener()];
    assert_eq!(machine.reads(UP, Message::Lend { listeners }), []);
    assert_eq!(machine.observe(Event::Proven), []);
    assert_eq!(machine.state(), State::Newcomer);
    let actions = machine.observe(Event::Applied(4));
    assert_eq!(
        sent(&actions, UP),
        [&Message::Warm { serial: 4 }, &asks(AskReason::Rank)]
    );
    assert!(!machine.is_ready());
}

#[test]
fn equals_never_take_from_each_other() {
    let mut machine = Machine::beside(warm(pod(1)), pod(1));
    assert_eq!(machine.observe(Event::Proven), []);
    assert_eq!(machine.state(), State::Standby);
}

#[test]
fn a_peer_asks_a_holder_that_leaves_without_a_proof() {
    let mut machine = Machine::beside(warm(pod(1)), standby());
    let actions = machine.reads(UP, Message::Leaving);
    assert_eq!(sent(&actions, UP), [&asks(AskReason::Leaving)]);
}

#[test]
fn a_document_that_names_another_template_makes_a_peer_ask() {
    let mut machine = Machine::beside(warm(pod(2)), pod(1));
    machine.observe(Event::Proven);
    let now_named = Rank {
        matches_document: true,
        ..pod(3)
    };
    let actions = machine.observe(Event::Retargeted {
        rank: now_named,
        closed: None,
    });
    assert!(matches!(
        sent(&actions, UP)[..],
        [Message::Hello { .. }, Message::Ask { .. }]
    ));
}

#[test]
fn an_offer_of_a_listener_that_did_not_come_ends_the_take_and_the_channel() {
    let mut machine = Machine::beside(warm(standby()), pod(1));
    let addresses = vec!["127.0.0.1:7444".parse().unwrap()];
    let actions = machine.reads(
        UP,
        Message::Offer {
            take: 1,
            addresses,
            pairs: 0,
        },
    );
    let abort = Message::Abort {
        take: 1,
        reason: AbortReason::MissingListener,
    };
    assert_eq!(sent(&actions, UP), [&abort]);
    assert!(actions.contains(&Action::Close(UP)));
    assert_eq!(machine.state(), State::Seeking);
}

#[test]
fn a_taker_serves_once_taken_is_sent_and_binds_the_path_after_the_end_of_the_giver() {
    let mut machine = Machine::amid_take();
    assert_eq!(
        machine.reads(UP, Message::Commit { take: 1 }),
        [Action::Confirm(UP, 1)]
    );
    assert!(!machine.accepts());
    let actions = machine.observe(Event::Confirmed);
    assert!(actions.contains(&Action::Accept) && !actions.contains(&Action::BindPath));
    assert_eq!(machine.state(), State::Serving);
    assert!(machine.observe(Event::Closed(UP)).contains(&Action::BindPath));
}

#[test]
fn a_giver_that_is_stopped_keeps_the_taker_from_the_path_for_a_while_only() {
    let mut machine = Machine::amid_take();
    machine.reads(UP, Message::Commit { take: 1 });
    machine.observe(Event::Confirmed);
    assert_eq!(machine.observe(Event::Broken(UP)), []);
    let actions = machine.observe(Event::Elapsed(Timer::Predecessor));
    assert!(actions.contains(&Action::BindPath));
}

#[test]
fn a_taker_that_could_not_send_taken_goes_back_if_the_holder_goes_on() {
    let mut machine = Machine::amid_take();
    machine.reads(UP, Message::Commit { take: 1 });
    machine.observe(Event::Unconfirmed);
    let reason = AbortReason::Overdue;
    let actions = machine.reads(UP, Message::Abort { take: 1, reason });
    assert_eq!(actions[..2], [Action::DropLock, Action::Close(UP)]);
    assert!(!machine.accepts());
}

#[test]
fn a_taker_that_could_not_send_taken_serves_if_the_holder_has_died() {
    let mut machine = Machine::amid_take();
    machine.reads(UP, Message::Commit { take: 1 });
    machine.observe(Event::Unconfirmed);
    let actions = machine.observe(Event::Closed(UP));
    assert!(actions.contains(&Action::Accept) && actions.contains(&Action::BindPath));
    assert_eq!(machine.state(), State::Serving);
}

#[test]
fn a_commit_of_another_take_brings_nothing_but_a_lock_to_close() {
    let mut machine = Machine::amid_take();
    assert_eq!(machine.reads(UP, Message::Commit { take: 9 }), [Action::DropLock]);
    let mut machine = Machine::beside(warm(standby()), pod(1));
    assert_eq!(machine.reads(UP, Message::Commit { take: 1 }), [Action::DropLock]);
}

#[test]
fn a_record_that_cannot_be_read_ends_the_take_and_the_channel() {
    let mut machine = Machine::amid_take();
    let actions = machine.observe(Event::Broken(UP));
    let abort = Message::Abort {
        take: 1,
        reason: AbortReason::BadRecord,
    };
    assert_eq!(
        actions[..3],
        [Action::Send(UP, abort), Action::DropLock, Action::Close(UP)]
    );
}

#[test]
fn one_that_has_given_stays_ready_also_when_it_may_take_back() {
    let mut machine = Machine::serving(pod(1));
    machine.observe(Event::Proven);
    machine.reads(FIRST, hello(warm(pod(2))));
    machine.reads(FIRST, asks(AskReason::Rank));
    machine.reads(
        FIRST,
        Message::Ack {
            take: 1,
            addresses: Vec::new(),
        },
    );
    machine.reads(FIRST, Message::Taken { take: 1 });
    machine.observe(Event::Connected(UP));
    let rolled_back = Rank {
        matches_document: false,
        ..pod(2)
    };
    machine.reads(UP, hello(warm(pod(2))));
    assert!(machine.is_ready());
    let actions = machine.reads(UP, hello(warm(rolled_back)));
    assert_eq!(sent(&actions, UP), [&asks(AskReason::Rank)]);
    assert!(machine.is_ready());
    machine.reads(UP, offer());
    assert_eq!(machine.state(), State::Taking);
    assert!(machine.is_ready());
}
