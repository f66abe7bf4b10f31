//! No document, outcome or connection brings a disabled member back.

use super::*;

/// What a document says of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Active,
    Draining,
    Absent,
    DisabledByName,
    DisabledByAddress,
}

impl Wish {
    fn is_disabled(self) -> bool {
        matches!(self, Self::DisabledByName | Self::DisabledByAddress)
    }
}

/// Something that happens to a proxy of three members. Paths are counted modulo their number.
#[derive(Clone, Debug)]
enum Step {
    Followed([Wish; 3]),
    Probed(usize, Outcome),
    Opened(usize),
    Closed(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let wish = prop::sample::select(vec![
        Wish::Active,
        Wish::Draining,
        Wish::Absent,
        Wish::DisabledByName,
        Wish::DisabledByAddress,
    ]);
    let outcome = prop::sample::select(vec![Outcome::Ready, Outcome::Refused, Outcome::Silent]);
    prop_oneof![
        1 => [wish.clone(), wish.clone(), wish].prop_map(Step::Followed),
        6 => (0..3_usize, outcome).prop_map(|(path, outcome)| Step::Probed(path, outcome)),
        2 => (0..3_usize).prop_map(Step::Opened),
        1 => (0..3_usize).prop_map(Step::Closed),
    ]
}

impl World {
    fn takes(&mut self, step: &Step) -> Vec<Decision> {
        self.pass(Duration::from_millis(1));
        let views = self.balance.view();
        let id = |path: &usize| views.get(path % views.len().max(1)).map(|view| view.id);
        let event = match step {
            Step::Followed(wishes) => return self.follow(*wishes),
            Step::Probed(path, outcome) => id(path).map(|id| Event::Probed {
                id,
                asked: self.now,
                verified: *outcome == Outcome::Ready,
                outcome: *outcome,
            }),
            Step::Opened(path) => id(path).map(Event::Opened),
            Step::Closed(path) => id(path).map(Event::Closed),
        };
        event.map_or_else(Vec::new, |event| self.balance.observe(event, self.now))
    }

    fn follow(&mut self, wishes: [Wish; 3]) -> Vec<Decision> {
        let of = |wanted: Wish| (0..3).filter(move |index| wishes[*index] == wanted);
        let draining = of(Wish::Draining).map(|index| Target {
            draining: true,
            ..target(index)
        });
        let targets = of(Wish::Active).map(target).chain(draining);
        let by_name = of(Wish::DisabledByName).map(|index| DisabledMember {
            name: target(index).key.member,
            sockets: Vec::new(),
        });
        let by_address = of(Wish::DisabledByAddress).map(|index| DisabledMember {
            name: "another".to_owned(),
            sockets: vec![target(index).key.address],
        });
        let disabled: Vec<_> = by_name.chain(by_address).collect();
        let decisions = self.configure_and_disable(targets.collect(), Disabled::of(&disabled));
        let earlier = (0..3).filter(|index| !matches!(wishes[*index], Wish::Active | Wish::Draining));
        let earlier = earlier.map(|index| Target {
            proven: true,
            ..target(index)
        });
        self.balance.observe(
            Event::Remembered {
                earlier: earlier.collect(),
                further: Vec::new(),
            },
            self.now,
        );
        decisions
    }
}

proptest! {
    #[test]
    fn no_history_dials_or_probes_anew_what_is_disabled(steps in prop::collection::vec(step(), 1..80)) {
        let mut world = World::healthy(3);
        let mut wishes = [Wish::Active; 3];
        for step in &steps {
            if let Step::Followed(newer) = step {
                wishes = *newer;
            }
            let is_disabled = |key: &PathKey| {
                (0..3).any(|index| target(index).key == *key && wishes[index].is_disabled())
            };
            for decision in world.takes(step) {
                let watched = match decision {
                    Decision::Watch(_, key) => Some(key),
                    _ => None,
                };
                prop_assert!(!watched.is_some_and(|key| is_disabled(&key)), "{step:?}");
            }
            for view in world.balance.view() {
                let disabled = is_disabled(&view.key);
                prop_assert_eq!(view.standing == Standing::Disabled, disabled);
                prop_assert!(!(disabled && world.balance.is_usable(view.id)));
                prop_assert!(view.standing != Standing::Active || world.balance.is_usable(view.id));
            }
        }
    }
}
