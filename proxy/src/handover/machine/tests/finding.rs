//! How a process finds its part: alone, as the holder, as a peer.

use std::time::Duration;

use super::*;
use crate::handover::record::Refusal;

#[test]
fn the_first_process_locks_binds_and_serves() {
    let mut machine = Machine::of(pod(1));
    assert_eq!(machine.observe(Event::Started), [Action::Connect]);
    assert_eq!(machine.observe(Event::Unreachable), [Action::TryLock]);
    let actions = machine.observe(Event::Locked);
    assert_eq!(
        (&actions[0], actions.last()),
        (&Action::BindPath, Some(&Action::Bind))
    );
    assert_eq!(machine.state(), State::Binding);
    assert_eq!(machine.observe(Event::Bound(vec![listener()])), [Action::Accept]);
    assert_eq!(machine.state(), State::Serving);
}

#[test]
fn a_process_without_unix_sockets_serves_alone() {
    let mut machine = Machine::of(pod(1));
    machine.observe(Event::Started);
    assert_eq!(machine.observe(Event::Unavailable)[0], Action::Bind);
    assert_eq!(machine.observe(Event::Bound(vec![listener()])), [Action::Accept]);
    assert_eq!(machine.state(), State::Alone);
    machine.observe(Event::Proven);
    assert!(machine.is_ready());
}

/// It serves without others, and looks for them for the first time.
fn alone() -> Machine {
    let mut machine = Machine::of(pod(1));
    for event in [
        Event::Started,
        Event::Unavailable,
        Event::Bound(vec![listener()]),
        Event::Proven,
    ] {
        machine.observe(event);
    }
    assert_eq!(machine.observe(Event::Elapsed(Timer::Seek)), [Action::Connect]);
    machine
}

fn looks_again(actions: &[Action]) -> bool {
    let within = Duration::from_secs(25)..Duration::from_secs(35);
    matches!(actions, [Action::Set(Timer::Seek, after)] if within.contains(after))
}

#[test]
fn a_process_that_serves_alone_looks_for_others_again_and_again() {
    let mut machine = alone();
    assert!(looks_again(&machine.observe(Event::Unavailable)));
    assert_eq!(machine.observe(Event::Elapsed(Timer::Seek)), [Action::Connect]);
    assert_eq!(machine.observe(Event::Unreachable), [Action::TryLock]);
    assert!(looks_again(&machine.observe(Event::LockHeld)));
    assert!(machine.accepts() && machine.is_ready());
}

#[test]
fn a_process_that_serves_alone_and_finds_the_lock_free_is_the_holder() {
    let mut machine = alone();
    machine.observe(Event::Unreachable);
    let actions = machine.observe(Event::Locked);
    assert_eq!(actions[..2], [Action::Accept, Action::BindPath]);
    assert_eq!(machine.state(), State::Serving);
}

#[test]
fn a_process_that_serves_alone_and_finds_a_holder_serves_until_that_answers() {
    let mut machine = alone();
    let actions = machine.observe(Event::Connected(UP));
    assert!(matches!(sent(&actions, UP)[..], [Message::Hello { .. }]));
    assert!(looks_again(&actions[1..]) && machine.accepts());
    let actions = machine.reads(UP, hello(warm(pod(1))));
    assert_eq!(actions[..2], [Action::StopAccepting, Action::DropListeners]);
    assert_eq!(machine.holder_channel(), Some(UP));
    assert_eq!(machine.state(), State::Standby);
    assert!(machine.is_ready());
}

#[test]
fn a_process_that_serves_alone_leaves_a_holder_that_hangs_or_is_of_another_pool() {
    let mut machine = alone();
    machine.observe(Event::Connected(UP));
    let actions = machine.observe(Event::Elapsed(Timer::Seek));
    assert_eq!(actions, [Action::Close(UP), Action::Connect]);
    machine.observe(Event::Connected(FIRST));
    let reason = Refusal::OtherPool;
    let actions = machine.reads(FIRST, Message::Refused { reason });
    assert_eq!(actions[0], Action::Close(FIRST));
    assert!(looks_again(&actions[1..]) && machine.accepts());
}

#[test]
fn a_process_that_serves_alone_takes_the_lock_that_one_without_the_port_gives_up() {
    let mut machine = alone();
    machine.observe(Event::Connected(UP));
    let actions = machine.observe(Event::Closed(UP));
    assert_eq!(actions, [Action::Close(UP), Action::TryLock]);
    machine.observe(Event::Locked);
    assert_eq!(machine.state(), State::Serving);
}

#[test]
fn a_taken_port_is_tried_again() {
    let mut machine = Machine::of(pod(1));
    for event in [Event::Started, Event::Unreachable, Event::Locked] {
        machine.observe(event);
    }
    let later = Action::Set(Timer::Bind, Duration::from_secs(1));
    assert_eq!(machine.observe(Event::PortTaken), [later]);
    assert_eq!(machine.observe(Event::Elapsed(Timer::Bind)), [Action::Bind]);
}

#[test]
fn a_holder_lends_what_it_has_to_a_peer_of_its_pool() {
    let mut machine = Machine::serving(pod(1));
    let actions = machine.reads(FIRST, hello(process(standby())));
    let listeners = vec![listener()];
    let own = Peer {
        has_listeners: true,
        ..warm(pod(1))
    };
    let expected = [
        &hello(own),
        &Message::Lend { listeners },
        &Message::Snapshot(snapshot()),
    ];
    assert_eq!(sent(&actions, FIRST), expected);
}

#[test]
fn a_peer_of_another_pool_is_refused_and_looks_again_later() {
    let mut machine = Machine::serving(pod(1));
    let peer = process(standby());
    let pool = "other".to_owned();
    let actions = machine.reads(FIRST, Message::Hello { peer, pool });
    let reason = Refusal::OtherPool;
    let refused = Message::Refused { reason };
    assert_eq!(
        actions,
        [Action::Send(FIRST, refused.clone()), Action::Close(FIRST)]
    );

    let mut peer = Machine::of(standby());
    peer.observe(Event::Connected(UP));
    let pause = Action::Set(Timer::Seek, Duration::from_secs(1));
    assert_eq!(peer.reads(UP, refused), [Action::Close(UP), pause]);
}

#[test]
fn what_changes_at_the_holder_goes_to_all_peers() {
    let mut machine = Machine::serving(pod(1));
    machine.reads(FIRST, hello(process(standby())));
    machine.reads(SECOND, hello(process(standby())));
    let addresses = vec![listener().address];
    let both = |message: &Message| [FIRST, SECOND].map(|channel| Action::Send(channel, message.clone()));
    let listeners = vec![listener(), listener()];
    let actions = machine.observe(Event::Listening(listeners.clone()));
    assert_eq!(actions, both(&Message::Lend { listeners }));
    let actions = machine.observe(Event::SnapshotReady(snapshot()));
    assert_eq!(actions, both(&Message::Snapshot(snapshot())));
    let actions = machine.observe(Event::ShutDown(addresses.clone()));
    assert_eq!(actions, both(&Message::Ended { addresses }));
    assert!(machine.listeners().is_empty());
}

#[test]
fn a_pod_takes_over_from_a_dead_holder_before_a_standby_does() {
    let mut pod = Machine::beside(warm(pod(1)), pod(2));
    assert_eq!(
        pod.observe(Event::Closed(UP)),
        [Action::Close(UP), Action::Connect]
    );
    assert_eq!(pod.observe(Event::Unreachable), [Action::TryLock]);
    let actions = pod.observe(Event::Locked);
    assert_eq!(actions[..2], [Action::Accept, Action::BindPath]);

    let mut static_pod = Machine::beside(warm(super::pod(1)), standby());
    let later = Action::Set(Timer::Seek, Duration::from_millis(20));
    assert_eq!(static_pod.observe(Event::Closed(UP)), [Action::Close(UP), later]);
}

#[test]
fn a_holder_that_cannot_bind_gives_the_lock_to_a_peer_that_holds_the_listeners() {
    let mut machine = Machine::without_port();
    let peer = Peer {
        has_listeners: true,
        ..warm(standby())
    };
    let actions = machine.reads(FIRST, hello(peer));
    assert_eq!(
        actions[..4],
        [
            Action::StopAccepting,
            Action::DropLock,
            Action::ClosePath,
            Action::Close(FIRST)
        ]
    );
    assert_eq!(machine.state(), State::Seeking);
}

#[test]
fn a_holder_that_cannot_bind_waits_for_the_end_of_a_peer_that_has_the_port_and_leaves() {
    let mut machine = Machine::without_port();
    let peer = Peer {
        has_listeners: true,
        is_leaving: true,
        ..warm(standby())
    };
    assert_eq!(machine.reads(FIRST, hello(peer)), []);
    let actions = machine.observe(Event::Closed(FIRST));
    assert_eq!(actions, [Action::Close(FIRST), Action::Bind]);
}

#[test]
fn a_holder_that_binds_late_lends_to_those_that_have_come_meanwhile() {
    let mut machine = Machine::without_port();
    assert_eq!(machine.reads(FIRST, hello(process(standby()))), []);
    let actions = machine.observe(Event::Bound(vec![listener()]));
    assert_eq!(sent(&actions, FIRST).len(), 2);
}

#[test]
fn a_holder_without_its_directory_locks_the_new_file_and_binds_the_new_path() {
    let mut machine = Machine::serving(pod(1));
    assert_eq!(machine.observe(Event::LockLost), [Action::TryLock]);
    assert_eq!(machine.observe(Event::Locked)[0], Action::BindPath);
    assert_eq!(machine.observe(Event::PathLost)[0], Action::BindPath);
}

#[test]
fn a_holder_without_its_directory_goes_to_the_process_that_serves_in_the_new_one() {
    let mut machine = Machine::serving(pod(1));
    machine.observe(Event::LockLost);
    assert_eq!(machine.observe(Event::LockHeld), [Action::Connect]);
    let actions = machine.observe(Event::Connected(UP));
    assert!(matches!(
        sent(&actions, UP)[..],
        [Message::Hello {
            peer: Peer {
                has_listeners: true,
                ..
            },
            ..
        }]
    ));
    assert_eq!(machine.state(), State::Serving);
    let actions = machine.reads(UP, hello(warm(pod(2))));
    assert_eq!(actions[..2], [Action::StopAccepting, Action::DropLock]);
    assert_eq!(machine.holder_channel(), Some(UP));
    assert_eq!(machine.state(), State::Standby);
}

#[test]
fn who_has_connected_to_a_former_holder_looks_for_the_new_one() {
    let mut machine = Machine::amid_give();
    machine.reads(FIRST, Message::Taken { take: 1 });
    assert_eq!(
        machine.reads(SECOND, hello(process(standby()))),
        [Action::Close(SECOND)]
    );
}
