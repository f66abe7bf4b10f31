//! SIGTERM.

use std::time::Duration;

use super::*;
use crate::handover::record::AbortReason;

#[test]
fn a_holder_that_leaves_serves_until_the_best_of_its_peers_has_taken() {
    let mut machine = Machine::serving(pod(1));
    machine.observe(Event::Proven);
    machine.reads(FIRST, hello(warm(standby())));
    machine.reads(SECOND, hello(warm(pod(1))));
    let actions = machine.observe(Event::Terminated);
    assert_eq!(sent(&actions, FIRST), [&Message::Leaving]);
    assert_eq!(sent(&actions, SECOND), [&Message::Leaving]);
    assert_eq!(machine.state(), State::Leaving);
    assert!(!machine.is_ready());
    assert_eq!(machine.reads(FIRST, asks(AskReason::Leaving)), []);
    assert!(offers(&machine.reads(SECOND, asks(AskReason::Leaving)), SECOND));
    machine.reads(
        SECOND,
        Message::Ack {
            take: 1,
            addresses: Vec::new(),
        },
    );
    assert!(machine.accepts());
    let actions = machine.reads(SECOND, Message::Taken { take: 1 });
    assert_eq!(actions.last(), Some(&Action::Drain { is_last: false }));
    assert_eq!(machine.state(), State::Draining);
}

#[test]
fn a_peer_that_does_not_ask_delays_the_others_for_a_moment_only() {
    let mut machine = Machine::serving(pod(1));
    machine.reads(FIRST, hello(warm(standby())));
    machine.reads(SECOND, hello(warm(pod(1))));
    machine.observe(Event::Terminated);
    assert_eq!(machine.reads(FIRST, asks(AskReason::Leaving)), []);
    machine.observe(Event::Elapsed(Timer::Gather));
    assert!(offers(&machine.observe(Event::AllRead), FIRST));
}

#[test]
fn nothing_is_given_to_a_peer_that_leaves() {
    let mut machine = Machine::serving(pod(1));
    let leaving = Peer {
        is_leaving: true,
        ..warm(standby())
    };
    machine.reads(FIRST, hello(leaving));
    machine.observe(Event::Terminated);
    machine.observe(Event::Elapsed(Timer::Gather));
    assert_eq!(machine.reads(FIRST, asks(AskReason::Leaving)), []);
}

#[test]
fn a_holder_with_nobody_to_give_to_drains_after_thirty_seconds() {
    let mut machine = Machine::serving(pod(1));
    let actions = machine.observe(Event::Terminated);
    assert!(actions.contains(&Action::Set(Timer::Leave, Duration::from_secs(30))));
    let actions = machine.observe(Event::Elapsed(Timer::Leave));
    assert_eq!(actions[..2], [Action::DropLock, Action::ClosePath]);
    assert_eq!(actions.last(), Some(&Action::Drain { is_last: true }));
}

#[test]
fn a_holder_drains_at_once_if_a_release_that_shares_the_port_goes_on() {
    let mut machine = Machine::serving(pod(1));
    assert_eq!(machine.observe(Event::AnotherListens), []);
    machine.observe(Event::Terminated);
    let actions = machine.observe(Event::AnotherListens);
    assert_eq!(actions.last(), Some(&Action::Drain { is_last: true }));
}

#[test]
fn a_holder_that_has_left_for_long_enough_waits_for_the_end_of_a_give() {
    let mut machine = Machine::amid_give();
    machine.observe(Event::Terminated);
    let actions = machine.observe(Event::Elapsed(Timer::Leave));
    assert!(matches!(actions[..], [Action::Set(Timer::Leave, _)]));
}

#[test]
fn a_standby_retires_at_once() {
    let mut machine = Machine::beside(warm(pod(1)), standby());
    let actions = machine.observe(Event::Terminated);
    assert_eq!(actions[..2], [Action::DropListeners, Action::Close(UP)]);
    assert_eq!(actions.last(), Some(&Action::Drain { is_last: false }));
    assert_eq!(machine.state(), State::Retiring);
}

#[test]
fn who_has_got_sigterm_never_takes() {
    let mut machine = Machine::amid_take();
    let actions = machine.observe(Event::Terminated);
    let abort = Message::Abort {
        take: 1,
        reason: AbortReason::Leaving,
    };
    assert_eq!(
        actions[1..4],
        [Action::Send(UP, abort), Action::DropLock, Action::Close(UP)]
    );
    assert_eq!(machine.state(), State::Retiring);
    let mut machine = Machine::of(pod(1));
    machine.observe(Event::Started);
    machine.observe(Event::Terminated);
    assert_eq!(machine.observe(Event::Locked), [Action::DropLock]);
}
