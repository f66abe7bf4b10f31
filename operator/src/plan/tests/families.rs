//! Nodes with addresses of both families, whose families and zones come and go: one member each, with all that answers.

use super::*;

fn v6(number: u16) -> IpAddr {
    IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, number])
}

impl World {
    /// What the node of the first master reports.
    fn report_of_first(&mut self, addresses: &[IpAddr], zone: &str) {
        let Discovered::Masters(masters) = &mut self.facts.discovered else {
            panic!()
        };
        masters[0].addresses = addresses.to_vec();
        zone.clone_into(&mut masters[0].zone);
    }

    /// A pass, where the first master answers at these addresses of both families alone.
    fn pass_with_first_at(&mut self, answering: &[IpAddr]) -> Plan {
        self.probe();
        for ip in [ip(1), v6(1)] {
            let answer = if answering.contains(&ip) {
                Answer::Ready
            } else {
                Answer::Silent
            };
            // One lost answer is no news, two are.
            for _ in 0..2 {
                let socket = SocketAddr::new(ip, 6443);
                self.facts.healths.observe(socket, answer.clone(), self.facts.now);
            }
        }
        self.pass_unprobed()
    }

    fn first(&self) -> &wire::Member {
        &self.facts.current.members[0]
    }
}

#[test]
fn a_family_that_comes_later_is_another_address_of_the_same_member() {
    let both = [ip(1), v6(1)];
    let mut world = World::with_masters(3);
    world.report_of_first(&both, "");
    world.pass_with_first_at(&both);
    assert_eq!(
        (world.names().len(), world.first().addresses.as_slice()),
        (3, &both[..])
    );
    // The node prefers the other family from now on.
    let turned = [v6(1), ip(1)];
    world.report_of_first(&turned, "");
    world.pass_with_first_at(&both);
    assert_eq!(world.first().addresses, turned);
    let revision = world.revision();
    world.pass_with_first_at(&both);
    assert_eq!(world.revision(), revision);
}

#[test]
fn a_family_that_a_node_no_longer_reports_goes_once_the_other_is_up() {
    let both = [ip(1), v6(1)];
    for left in both {
        let mut world = World::with_masters(3);
        world.report_of_first(&both, "");
        world.pass_with_first_at(&both);
        world.report_of_first(&[left], "");
        let other: Vec<_> = both.into_iter().filter(|ip| *ip != left).collect();
        let plan = world.pass_with_first_at(&other);
        assert_eq!(world.first().addresses, both, "nothing answers at {left}");
        assert!(plan.members[0].note.contains("no longer says"), "{plan:?}");
        world.pass_with_first_at(&[left]);
        assert_eq!(world.first().addresses, [left]);
    }
}

#[test]
fn a_zone_is_that_of_the_nodes_label_by_now_unless_the_owner_says_another() {
    let mut world = World::with_masters(3);
    for (zone, revision) in [("a", 2), ("a", 2), ("b", 3), ("", 4)] {
        world.report_of_first(&[ip(1)], zone);
        world.pass();
        assert_eq!((world.first().zone.as_str(), world.revision()), (zone, revision));
    }
    world.list("cp1", &[], PoolMemberState::Active);
    world.pool.spec.members[0].zone = "own".to_owned();
    world.report_of_first(&[ip(1)], "c");
    world.pass();
    assert_eq!(world.first().zone, "own");
    world.pool.spec.members.clear();
    world.pass();
    assert_eq!(world.first().zone, "c");
    world.facts.discovered = Discovered::Unknown;
    world.pass();
    assert_eq!(
        world.first().zone,
        "c",
        "nodes that cannot be read change nothing"
    );
}
