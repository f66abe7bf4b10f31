//! Health in sentences: what a state means for connections, and what would change it.

use std::time::Duration;

use tokio::time::Instant;

use super::layout;
use crate::balance::{
    Standing, View,
    health::{Policy, Reason, State},
};

/// An upstream in its context.
pub(super) struct Scene<'a> {
    /// Its best path.
    pub(super) view: &'a View,
    /// The thresholds of health.
    pub(super) policy: Policy,
    /// Whether another upstream that gets connections answers.
    pub(super) other_answers: bool,
    /// The current time.
    pub(super) now: Instant,
}

/// What a reason means.
pub(super) fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::Answering => "it answers and is ready",
        Reason::Remembered => {
            "it gave a verified answer before this proxy started, and has not been probed since"
        }
        Reason::Withheld => {
            "it answers 401 or 403, so its readiness is unknown: members that report theirs are preferred"
        }
        Reason::Recovering => "it is ready again, but not for long enough yet",
        Reason::HeldDown => "it is ready again, but is in hold-down because it failed repeatedly",
        Reason::NotReady => "it says that it is not ready",
        Reason::Late => "it is alive but its readiness is overdue, as with an etcd that does not answer",
        Reason::EtcdFailed => "it says that it cannot reach its etcd",
        Reason::Untrusted => "its certificate was not issued by this cluster's authority for this name",
        Reason::NotProbed => "it has not answered a probe of this proxy yet",
        Reason::Refused => "it refuses or resets connections, or a router says that it cannot be reached",
        Reason::Silent => "it does not answer at all",
    }
}

impl Scene<'_> {
    /// What the state means for connections.
    pub(super) fn effect(&self) -> String {
        let new = match (self.view.standing, self.view.proven) {
            (Standing::Draining, _) => {
                "Draining: its connections are closed gradually; new ones only while no other member answers"
            }
            (Standing::Removed, _) => {
                "left the pool: its connections are closed gradually; new ones only while no member answers"
            }
            (Standing::LastResort, _) => {
                "a member of an earlier document, or a further endpoint, of default/kubernetes or of the seed: it is used only while no member of the current document answers"
            }
            (Standing::Disabled, _) => {
                "Disabled: its connections are closed gradually; no new ones, not even while no other member answers"
            }
            (Standing::Active, false) => {
                "it has never given this node a verified answer: it is tried only if no proven member is left"
            }
            (Standing::Active, true) => return self.effect_of_health(),
        };
        new.to_owned()
    }

    fn effect_of_health(&self) -> String {
        let text = match self.view.state {
            State::Up if self.view.suspect => {
                "it gets new connections, but after other members: a client waited too long for it since its last good answer"
            }
            State::Up if self.view.reason == Reason::Withheld => {
                "it gets new connections only if no member that reports its readiness is Up"
            }
            State::Up => "it gets new connections",
            State::Unready if self.view.reason == Reason::EtcdFailed => {
                "it gets no new connection while another is Up; old ones are moved, gradually, if this lasts"
            }
            State::Unready => "it gets no new connection while another is Up; old ones are left alone",
            State::Down if self.other_answers => {
                "it gets no new connection; old ones are cut, so that clients reconnect at once"
            }
            State::Down => {
                "no other member answers either, so the fault may be on this node: nothing is cut, and all members are tried"
            }
        };
        text.to_owned()
    }

    /// What would change the state.
    pub(super) fn way_back(&self) -> String {
        let tolerated = self.policy.failure_threshold;
        match (self.view.state, self.view.reason) {
            (State::Up, _) => match self.view.progress.silent {
                0 => format!(
                    "it is Up; {} without an answer would make it Down",
                    in_a_row(tolerated)
                ),
                silent => format!(
                    "it is Up; {silent} of {tolerated} questions without an answer that would make it Down"
                ),
            },
            (State::Unready, Reason::NotProbed) => "its first good answer".to_owned(),
            (State::Unready | State::Down, _) => {
                let missing = self
                    .policy
                    .success_threshold
                    .saturating_sub(self.view.progress.passes)
                    .max(1);
                let answers = match missing {
                    1 => "1 good answer".to_owned(),
                    several => format!("{several} good answers in a row"),
                };
                match self.held() {
                    Duration::ZERO => answers,
                    held => format!("{answers}, and {} of hold-down left", layout::span(held)),
                }
            }
        }
    }

    /// The rest of its hold-down.
    pub(super) fn held(&self) -> Duration {
        let until = self.view.progress.held_until.unwrap_or(self.now);
        match self.view.state {
            State::Up => Duration::ZERO,
            State::Unready | State::Down => until.saturating_duration_since(self.now),
        }
    }
}

fn in_a_row(questions: u32) -> String {
    match questions {
        1 => "1 question".to_owned(),
        several => format!("{several} questions in a row"),
    }
}

#[cfg(test)]
mod tests {
    use trivet_crds::wire::DisabledMember;

    use super::*;
    use crate::balance::{Balance, Disabled, Event, PathKey, Target, health::Outcome, place::Distance};

    const POLICY: Policy = Policy {
        failure_threshold: 2,
        success_threshold: 2,
        probe_interval: Duration::from_secs(1),
    };

    fn configured(targets: Vec<Target>, disabled: Disabled) -> Event {
        Event::Configured {
            targets,
            disabled,
            policy: POLICY,
        }
    }

    /// A proven upstream.
    fn target() -> Target {
        Target {
            key: PathKey {
                member: "cp1".to_owned(),
                address: "10.0.0.1:6443".parse().unwrap(),
            },
            preference: 0,
            draining: false,
            proven: true,
            distance: Distance::default(),
        }
    }

    /// Effect and way back of a proven upstream, a second after these outcomes, which are a second apart.
    fn after(outcomes: &[Outcome], other_answers: bool) -> (String, String) {
        let mut balance = Balance::new("w1");
        let mut now = Instant::now();
        balance.observe(configured(vec![target()], Disabled::default()), now);
        let id = balance.view()[0].id;
        for outcome in outcomes {
            now += Duration::from_secs(1);
            let event = Event::Probed {
                id,
                asked: now,
                verified: false,
                outcome: *outcome,
            };
            balance.observe(event, now);
        }
        let view = &balance.view()[0];
        let scene = Scene {
            view,
            policy: POLICY,
            other_answers,
            now: now + Duration::from_secs(1),
        };
        (scene.effect(), scene.way_back())
    }

    #[test]
    fn the_way_back_counts_answers_and_the_hold_down_left() {
        use Outcome::{NotReady, Ready, Refused, Silent};
        let way_back = |outcomes: &[Outcome]| after(outcomes, true).1;
        assert_eq!(
            way_back(&[Ready, Silent, Silent]),
            "2 good answers in a row, and 4s of hold-down left"
        );
        assert_eq!(
            way_back(&[Ready, Refused, Ready]),
            "1 good answer, and 3s of hold-down left"
        );
        assert_eq!(
            way_back(&[Ready, Refused, Ready, Ready]),
            "1 good answer, and 2s of hold-down left"
        );
        assert_eq!(way_back(&[Ready, NotReady]), "2 good answers in a row");
        assert_eq!(
            way_back(&[Ready]),
            "it is Up; 2 questions in a row without an answer would make it Down"
        );
        assert_eq!(
            way_back(&[Ready, Silent]),
            "it is Up; 1 of 2 questions without an answer that would make it Down"
        );
    }

    #[test]
    fn a_disabled_member_with_connections_is_called_so_and_no_last_resort() {
        let mut balance = Balance::new("w1");
        let now = Instant::now();
        balance.observe(configured(vec![target()], Disabled::default()), now);
        let id = balance.view()[0].id;
        balance.observe(Event::Opened(id), now);
        let disabled = Disabled::of(&[DisabledMember {
            name: "cp1".to_owned(),
            sockets: Vec::new(),
        }]);
        balance.observe(configured(Vec::new(), disabled), now);
        let view = &balance.view()[0];
        assert_eq!(view.standing.as_str(), "Disabled");
        let scene = Scene {
            view,
            policy: POLICY,
            other_answers: false,
            now,
        };
        assert!(
            scene.effect().starts_with("Disabled") && scene.effect().contains("no new ones"),
            "{}",
            scene.effect()
        );
    }

    #[test]
    fn a_cut_is_reported_only_if_there_is_one() {
        let silent = [Outcome::Silent, Outcome::Silent];
        assert!(after(&silent, true).0.contains("old ones are cut"));
        assert!(after(&silent, false).0.contains("nothing is cut"));
    }
}
