//! A pod of a new template before the rollout reaches its node.

use super::*;

/// A template that is named in the document, and closed on this node.
const NEW: &str = "new";

/// The new pod: by its rank it would take.
fn new_pod() -> Peer {
    Peer {
        template: NEW.to_owned(),
        ..warm(pod(2))
    }
}

fn old_rank() -> Rank {
    Rank {
        matches_document: false,
        ..pod(1)
    }
}

fn old_pod() -> Peer {
    Peer {
        template: "old".to_owned(),
        ..warm(old_rank())
    }
}

fn closed(rank: Rank) -> Event {
    let closed = Some(NEW.to_owned());
    Event::Retargeted { rank, closed }
}

fn opened(rank: Rank) -> Event {
    Event::Retargeted { rank, closed: None }
}

/// A pod of the new template beside this holder, proven, with its gate closed.
fn waiting(holder: Peer) -> Machine {
    let own = Peer {
        is_warm: false,
        ..new_pod()
    };
    let mut machine = Machine::new(own, "default".to_owned());
    machine.observe(closed(pod(2)));
    machine.observe(Event::Started);
    machine.observe(Event::Connected(UP));
    assert_eq!(machine.reads(UP, hello(holder)), []);
    let listeners = vec![listener()];
    assert_eq!(machine.reads(UP, Message::Lend { listeners }), []);
    let warmed = machine.observe(Event::Applied(4));
    assert_eq!(sent(&warmed, UP), [&Message::Warm { serial: 4 }]);
    assert_eq!(machine.observe(Event::Proven), []);
    machine
}

/// A holder of the old template that knows of the gate.
fn holding_closed() -> Machine {
    let mut machine = Machine::serving(pod(1));
    machine.observe(Event::Proven);
    machine.observe(closed(old_rank()));
    machine
}

#[test]
fn it_holds_the_listeners_proven_and_unready_until_the_gate_opens_and_asks_at_once() {
    let mut machine = waiting(old_pod());
    assert_eq!(machine.state(), State::Gated);
    assert!(!machine.is_ready() && !machine.listeners().is_empty());
    let actions = machine.observe(opened(pod(2)));
    assert_eq!(sent(&actions, UP), [&asks(AskReason::Rank)]);
    assert_eq!(machine.state(), State::Newcomer);
}

#[test]
fn another_template_has_no_gate() {
    let mut machine = Machine::beside(old_pod(), pod(2));
    machine.observe(closed(pod(2)));
    assert_eq!(
        sent(&machine.observe(Event::Proven), UP),
        [&asks(AskReason::Rank)]
    );
}

#[test]
fn a_holder_that_leaves_is_asked_whatever_the_gate() {
    let mut machine = waiting(old_pod());
    let actions = machine.reads(UP, Message::Leaving);
    assert_eq!(sent(&actions, UP), [&asks(AskReason::Leaving)]);
}

#[test]
fn a_holder_that_died_or_hangs_is_replaced_whatever_the_gate_but_a_static_pod_comes_first() {
    let mut machine = waiting(old_pod());
    let actions = machine.observe(Event::Closed(UP));
    let pause = |actions: &[Action]| {
        let set = actions.iter().find_map(|action| match action {
            Action::Set(Timer::Seek, pause) => Some(*pause),
            _ => None,
        });
        set.unwrap()
    };
    let mut standby = Machine::beside(old_pod(), standby());
    assert!(pause(&actions) > 2 * pause(&standby.observe(Event::Closed(UP))));
    assert_eq!(machine.observe(Event::Elapsed(Timer::Seek)), [Action::Connect]);
    assert_eq!(machine.observe(Event::Unreachable), [Action::TryLock]);
    assert!(machine.observe(Event::Locked).contains(&Action::Accept));

    let mut machine = waiting(old_pod());
    assert!(machine.observe(Event::Stalled).contains(&Action::Accept));
}

#[test]
fn a_holder_gives_nothing_by_rank_to_a_pod_of_an_earlier_release_that_knows_no_gate() {
    let mut machine = holding_closed();
    machine.reads(FIRST, hello(new_pod()));
    assert_eq!(machine.reads(FIRST, asks(AskReason::Rank)), []);
    machine.observe(opened(old_rank()));
    assert!(offers(&machine.observe(Event::AllRead), FIRST));
}

#[test]
fn a_holder_that_leaves_prefers_an_open_gate_then_a_static_pod_then_a_closed_gate() {
    let peers = [new_pod(), warm(standby()), old_pod()];
    for kept in 1..=peers.len() {
        let mut machine = holding_closed();
        for (number, peer) in peers.iter().take(kept).enumerate() {
            let channel = ChannelId(10 + number as u64);
            machine.reads(channel, hello(peer.clone()));
        }
        machine.observe(Event::Terminated);
        let last = ChannelId(9 + kept as u64);
        let mut actions = Vec::new();
        for number in 0..kept {
            actions = machine.reads(ChannelId(10 + number as u64), asks(AskReason::Leaving));
        }
        assert!(offers(&actions, last), "{kept} peers: {actions:?}");
    }
}

#[test]
fn a_pod_takes_back_from_one_that_serves_behind_its_gate() {
    let mut machine = Machine::new(
        Peer {
            is_warm: false,
            ..old_pod()
        },
        "default".to_owned(),
    );
    machine.observe(closed(old_rank()));
    machine.observe(Event::Started);
    machine.observe(Event::Connected(UP));
    machine.reads(UP, hello(new_pod()));
    machine.reads(
        UP,
        Message::Lend {
            listeners: vec![listener()],
        },
    );
    machine.observe(Event::Applied(4));
    assert_eq!(machine.state(), State::Newcomer);
    assert_eq!(
        sent(&machine.observe(Event::Proven), UP),
        [&asks(AskReason::Rank)]
    );

    let mut holder = Machine::serving(pod(2));
    holder.own.template = NEW.to_owned();
    holder.observe(closed(pod(2)));
    holder.reads(FIRST, hello(old_pod()));
    assert!(offers(&holder.reads(FIRST, asks(AskReason::Rank)), FIRST));
}

#[test]
fn one_that_has_given_behind_its_gate_is_not_ready() {
    let mut machine = Machine::serving(pod(2));
    machine.own.template = NEW.to_owned();
    machine.observe(Event::Proven);
    machine.observe(closed(pod(2)));
    machine.reads(FIRST, hello(old_pod()));
    machine.reads(FIRST, asks(AskReason::Rank));
    let addresses = Vec::new();
    machine.reads(FIRST, Message::Ack { take: 1, addresses });
    machine.reads(FIRST, Message::Taken { take: 1 });
    machine.observe(Event::Elapsed(Timer::Seek));
    machine.observe(Event::Connected(UP));
    machine.reads(UP, hello(old_pod()));
    assert_eq!(machine.state(), State::Gated);
    assert!(
        !machine.is_ready(),
        "the DaemonSet controller would delete the pod that serves"
    );
    machine.observe(opened(pod(2)));
    assert!(machine.is_ready());
}
