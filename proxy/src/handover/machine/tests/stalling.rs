//! A holder that hangs.

use super::*;
use crate::handover::record::AbortReason;

fn assisting() -> Machine {
    let mut machine = Machine::beside(warm(pod(1)), standby());
    let actions = machine.observe(Event::Stalled);
    let on = Message::Assist { on: true };
    assert_eq!(actions, [Action::Accept, Action::Send(UP, on)]);
    assert_eq!(machine.state(), State::Assisting);
    machine
}

#[test]
fn a_peer_accepts_beside_a_holder_that_hangs_until_it_turns() {
    let mut machine = assisting();
    assert!(machine.is_ready());
    assert_eq!(machine.observe(Event::Stalled), []);
    let off = Message::Assist { on: false };
    assert_eq!(
        machine.observe(Event::Turning),
        [Action::StopAccepting, Action::Send(UP, off)]
    );
    assert_eq!(machine.observe(Event::Turning), []);
}

#[test]
fn a_peer_without_listeners_cannot_help() {
    let mut machine = Machine::of(standby());
    machine.observe(Event::Connected(UP));
    assert_eq!(machine.observe(Event::Stalled), []);
}

#[test]
fn a_taker_gives_up_the_take_and_helps_if_the_holder_hangs() {
    let mut machine = Machine::amid_take();
    let actions = machine.observe(Event::Stalled);
    let abort = Message::Abort {
        take: 1,
        reason: AbortReason::Stalled,
    };
    assert_eq!(sent(&actions, UP), [&abort]);
    assert_eq!(actions[0], Action::Accept);
    assert_eq!(actions.last(), Some(&Action::Connect));
    let actions = machine.observe(Event::Connected(UP));
    assert_eq!(sent(&actions, UP)[1], &Message::Assist { on: true });
}

#[test]
fn a_holder_offers_nothing_for_a_moment_after_it_has_lost_a_helper() {
    for event in [Event::Closed(SECOND), Event::Broken(SECOND)] {
        let mut machine = Machine::serving(standby());
        machine.reads(FIRST, hello(warm(pod(1))));
        machine.reads(SECOND, hello(warm(standby())));
        machine.reads(SECOND, Message::Assist { on: true });
        machine.reads(FIRST, asks(AskReason::Rank));
        assert!(matches!(
            machine.observe(event)[..],
            [_, Action::Set(Timer::Settle, _), ..] | [Action::Set(Timer::Settle, _), ..]
        ));
        assert_eq!(machine.observe(Event::AllRead), []);
        machine.observe(Event::Elapsed(Timer::Settle));
        assert!(offers(&machine.observe(Event::AllRead), FIRST));
    }
}

#[test]
fn a_process_that_seeks_helps_until_it_finds_a_holder_that_answers() {
    let mut machine = Machine::beside(warm(pod(1)), pod(1));
    machine.observe(Event::Closed(UP));
    assert_eq!(machine.observe(Event::Stalled), [Action::Accept, Action::Connect]);
    machine.observe(Event::Connected(UP));
    assert!(machine.accepts());
    let actions = machine.reads(UP, hello(warm(pod(1))));
    assert_eq!(actions[0], Action::StopAccepting);
}

#[test]
fn a_helper_that_gets_the_lock_serves() {
    let mut machine = assisting();
    machine.observe(Event::Closed(UP));
    machine.observe(Event::Elapsed(Timer::Seek));
    machine.observe(Event::Unreachable);
    machine.observe(Event::Locked);
    assert_eq!(machine.state(), State::Serving);
}

#[test]
fn a_helper_that_leaves_accepts_until_the_holder_turns() {
    let mut machine = assisting();
    let actions = machine.observe(Event::Terminated);
    assert!(matches!(
        sent(&actions, UP)[..],
        [Message::Hello {
            peer: Peer { is_leaving: true, .. },
            ..
        }]
    ));
    assert_eq!(machine.state(), State::Retiring);
    assert!(machine.accepts());
    let actions = machine.observe(Event::Turning);
    assert_eq!(actions.last(), Some(&Action::Drain { is_last: false }));
}

#[test]
fn a_helper_that_leaves_takes_nothing_when_the_holder_dies() {
    let mut machine = assisting();
    machine.observe(Event::Terminated);
    machine.observe(Event::Closed(UP));
    machine.observe(Event::Elapsed(Timer::Seek));
    let actions = machine.observe(Event::Unreachable);
    assert!(matches!(actions[..], [Action::Set(Timer::Seek, _)]));
    assert!(machine.accepts());
    let actions = machine.observe(Event::Elapsed(Timer::Leave));
    assert_eq!(actions.last(), Some(&Action::Drain { is_last: false }));
}
