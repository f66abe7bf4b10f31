//! What the names of a pool may say: the addresses of its members in force, and what the spec asks for. Pure.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use trivet_crds::pool::{DnsPolicy, MemberHealth, PoolDns, PoolMemberState};

use crate::health::Healths;
use crate::health::sighting::Sightings;
use crate::plan::{Member, Plan, Verdict};

/// An address of a member that is not disabled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Where its apiserver listens.
    pub socket: SocketAddr,
    /// The member.
    pub member: String,
    /// The node that it runs on, or nothing.
    pub node_name: String,
    /// Its failure domain, or nothing.
    pub zone: String,
    /// Whether it drains.
    pub drains: bool,
    /// Whether it is Up; `None` if nothing is known of it yet.
    pub is_up: Option<bool>,
}

/// What a pass has found out for the names of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The addresses that may be published.
    pub candidates: Vec<Candidate>,
    /// What the spec asks for; `None` while it is not obeyed: then the names that are there stay, and say what is true.
    pub wish: Option<Wish>,
}

/// Which names the spec asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// The headless Service.
    pub service: Option<String>,
    /// The records of external-dns.
    pub external: Option<Records>,
}

/// The records of external-dns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Records {
    /// Their name.
    pub hostname: String,
    /// Their time to live in seconds.
    pub ttl_seconds: u32,
}

impl Wish {
    /// Whether the spec asks for no name.
    pub fn is_empty(&self) -> bool {
        self.service.is_none() && self.external.is_none()
    }

    fn of(dns: &PoolDns, pool: &str) -> Self {
        let is_enabled = |policy| match policy {
            DnsPolicy::Enabled => true,
            DnsPolicy::Disabled => false,
        };
        let name = || dns.service.name.clone().unwrap_or_else(|| default_name(pool));
        let records = |hostname: &String| Records {
            hostname: hostname.clone(),
            ttl_seconds: dns.external.ttl_seconds,
        };
        let hostname = dns.external.hostname.as_ref();
        Self {
            service: is_enabled(dns.service.policy).then(name),
            external: hostname.filter(|_| is_enabled(dns.external.policy)).map(records),
        }
    }
}

/// The name of the Service of a pool that names none.
pub fn default_name(pool: &str) -> String {
    format!("{pool}-apiservers")
}

impl Facts {
    /// What a pass over `pool` with this plan says. The members are judged as the status shows them.
    pub fn new(dns: &PoolDns, pool: &str, plan: &Plan, (healths, seen): (&Healths, &Sightings)) -> Self {
        let mut taken = BTreeSet::new();
        let members = plan.members.iter();
        let used = members.filter(|member| member.state != PoolMemberState::Disabled);
        let candidates = used.flat_map(|member| candidates(member, healths, seen));
        Self {
            // Two members with one address would be one endpoint.
            candidates: candidates.filter(|found| taken.insert(found.socket)).collect(),
            wish: match plan.verdict {
                Verdict::Accepted { .. } => Some(Wish::of(dns, pool)),
                Verdict::Paused { .. } | Verdict::Rejected { .. } => None,
            },
        }
    }
}

fn candidates(member: &Member, healths: &Healths, seen: &Sightings) -> Vec<Candidate> {
    let by_operator = healths.of(&member.addresses, member.port);
    let by_operator = by_operator.map(|health| health.state);
    let health = seen.of(&member.addresses, member.port).health(by_operator);
    let candidate = |address: &IpAddr| {
        let socket = SocketAddr::new(*address, member.port);
        Candidate {
            socket,
            member: member.name.clone(),
            node_name: member.node_name.clone(),
            zone: member.zone.clone(),
            drains: member.state == PoolMemberState::Draining,
            is_up: match health {
                MemberHealth::Up => Some(!is_worse(&socket, by_operator, healths)),
                MemberHealth::Unready | MemberHealth::Down => Some(false),
                MemberHealth::Unknown => None,
            },
        }
    };
    member.addresses.iter().map(candidate).collect()
}

/// Whether the operator's probes say that this address of a member does not answer while another one does. The nodes tell only
/// of one address of each member.
fn is_worse(socket: &SocketAddr, best: Option<MemberHealth>, healths: &Healths) -> bool {
    let here = healths.get(socket).map(|health| health.state);
    best == Some(MemberHealth::Up) && here.is_some_and(|state| state != MemberHealth::Up)
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;
    use trivet_crds::pool::{DnsExternal, DnsService, MemberSource};

    use super::*;
    use crate::health::Answer;
    use crate::plan::tests::{accepted, settled};

    fn member(name: &str, addresses: &[&str], state: PoolMemberState) -> Member {
        Member {
            name: name.to_owned(),
            addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
            port: 6443,
            state,
            zone: String::new(),
            source: MemberSource::Node,
            node_name: name.to_owned(),
            note: String::new(),
        }
    }

    fn healths(answers: &[(&str, Answer)]) -> Healths {
        let mut healths = Healths::default();
        for (ip, answer) in answers {
            let socket = SocketAddr::new(ip.parse().unwrap(), 6443);
            healths.observe(socket, answer.clone(), Instant::now());
        }
        healths
    }

    fn facts(members: Vec<Member>, healths: &Healths) -> Facts {
        let plan = settled(accepted(), members);
        Facts::new(
            &PoolDns::default(),
            "default",
            &plan,
            (healths, &Sightings::default()),
        )
    }

    #[test]
    fn a_disabled_member_is_no_candidate_and_one_that_drains_is_marked() {
        let members = vec![
            member("cp1", &["10.0.0.1"], PoolMemberState::Active),
            member("cp2", &["10.0.0.2"], PoolMemberState::Disabled),
            member("cp3", &["10.0.0.3"], PoolMemberState::Draining),
        ];
        let found = facts(members, &Healths::default()).candidates;
        let found: Vec<_> = found
            .iter()
            .map(|one| (one.member.as_str(), one.drains))
            .collect();
        assert_eq!(found, [("cp1", false), ("cp3", true)]);
    }

    #[test]
    fn an_address_that_is_silent_beside_one_that_answers_is_not_up() {
        let members = || vec![member("cp1", &["10.0.0.1", "fd00::1"], PoolMemberState::Active)];
        let is_up = |answers: &[(&str, Answer)]| {
            let found = facts(members(), &healths(answers)).candidates;
            found.iter().map(|one| one.is_up).collect::<Vec<_>>()
        };
        let (up, silent) = (Answer::Ready, Answer::Silent);
        assert_eq!(is_up(&[]), [None, None]);
        assert_eq!(is_up(&[("10.0.0.1", up.clone())]), [Some(true), Some(true)]);
        assert_eq!(
            is_up(&[("10.0.0.1", up), ("fd00::1", silent.clone())]),
            [Some(true), Some(false)]
        );
        assert_eq!(
            is_up(&[("10.0.0.1", silent.clone()), ("fd00::1", silent)]),
            [Some(false), Some(false)]
        );
    }

    #[test]
    fn a_name_is_wanted_only_with_its_policy_and_by_a_spec_that_is_obeyed() {
        let enabled = PoolDns {
            service: DnsService {
                policy: DnsPolicy::Enabled,
                name: None,
            },
            external: DnsExternal {
                hostname: Some("api.example.com".to_owned()),
                ..DnsExternal::default()
            },
        };
        let wish = |plan: &Plan| {
            Facts::new(
                &enabled,
                "default",
                plan,
                (&Healths::default(), &Sightings::default()),
            )
            .wish
        };
        let obeyed = Wish {
            service: Some("default-apiservers".to_owned()),
            external: None,
        };
        assert_eq!(wish(&settled(accepted(), Vec::new())), Some(obeyed));
        let paused = Verdict::Paused { notes: Vec::new() };
        assert_eq!(wish(&settled(paused, Vec::new())), None);
    }
}
