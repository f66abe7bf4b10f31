//! Random edits of a pool, from a seed: correct and wrong ones that users make, in random order.
//!
//! Pure: the same seed and the same cluster give the same edits.

use std::net::IpAddr;

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

use super::draft::{Draft, Mistake};
use super::edit::{Change, Edit, Fate, Master};

/// A kind of edit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Member,
    Extra,
    Bogus,
    Gone,
    Alone,
    MemberPort,
    Scope,
    Listener,
    Invalid,
    Numbers,
    Label,
    Annotation,
    Rival,
}

/// How often each kind comes up in a round.
const WEIGHTS: [(Kind, usize); 13] = [
    (Kind::Member, 5),
    (Kind::Extra, 2),
    (Kind::Bogus, 3),
    (Kind::Gone, 3),
    (Kind::Alone, 1),
    (Kind::MemberPort, 1),
    (Kind::Scope, 3),
    (Kind::Listener, 1),
    (Kind::Invalid, 2),
    (Kind::Numbers, 3),
    (Kind::Label, 3),
    (Kind::Annotation, 2),
    (Kind::Rival, 1),
];

/// `count` edits of the pool of a cluster with these masters and this worker, which begins as `spec: {}`.
pub(super) fn edits(seed: u64, count: usize, masters: &[Master], worker: IpAddr) -> Vec<Edit> {
    let mut author = Author {
        random: StdRng::seed_from_u64(seed),
        masters,
        worker,
        draft: Draft::default(),
    };
    let (mut edits, mut deck) = (Vec::new(), Vec::new());
    while edits.len() < count {
        if let Some(repair) = author.repair() {
            edits.push(repair);
            continue;
        }
        if deck.is_empty() {
            deck.extend(WEIGHTS.iter().flat_map(|(kind, times)| vec![*kind; *times]));
            deck.shuffle(&mut author.random);
        }
        edits.extend(deck.pop().and_then(|kind| author.write(kind)));
    }
    edits
}

struct Author<'a> {
    random: StdRng,
    masters: &'a [Master],
    worker: IpAddr,
    draft: Draft,
}

impl Author<'_> {
    /// Corrects a mistake, usually after some more edits. Without discovery the schema requires an Active member, which the
    /// other kinds of edits ignore, so that mistake is corrected at once.
    fn repair(&mut self) -> Option<Edit> {
        let mistakes = &self.draft.mistakes;
        if mistakes.contains(&Mistake::Alone) {
            return Some(self.correct(Mistake::Alone));
        }
        let mistake = *mistakes.first()?;
        let noticed = self.random.random_bool(0.5);
        noticed.then(|| self.correct(mistake))
    }

    fn correct(&mut self, mistake: Mistake) -> Edit {
        self.draft.mistakes.retain(|other| *other != mistake);
        let (what, spec) = match mistake {
            Mistake::Scope => (
                "the scope is put right",
                json!({ "proxy": { "nodeScope": "AllNodes", "nodeSelector": null, "tolerations": null } }),
            ),
            Mistake::Alone => {
                self.draft.members.clear();
                (
                    "discovery is on again",
                    json!({ "discovery": { "policy": "Nodes" }, "members": self.draft.members() }),
                )
            }
            Mistake::Port => (
                "the port of discovered members is put right",
                json!({ "discovery": { "port": 6443 } }),
            ),
        };
        self.judged(what, &spec)
    }

    /// An edit of this kind, if there is one to make at present.
    fn write(&mut self, kind: Kind) -> Option<Edit> {
        Some(match kind {
            Kind::Member => self.member()?,
            Kind::Extra => self.extra()?,
            Kind::Bogus => self.bogus()?,
            Kind::Gone => self.gone(),
            Kind::Alone => self.alone(),
            Kind::MemberPort => {
                let spec = json!({ "discovery": { "port": 6444 } });
                self.draft.mistakes.push(Mistake::Port);
                self.judged("nothing listens on the port of discovered members", &spec)
            }
            Kind::Scope => self.scope(),
            Kind::Listener => self.judged(
                "the listener's defaults are written out",
                &json!({ "listeners": [{ "name": "apiserver", "addresses": ["127.0.0.1", "::1"], "port": 7443 }] }),
            ),
            Kind::Invalid => self.invalid()?,
            Kind::Numbers => self.numbers(),
            Kind::Label => self.label()?,
            Kind::Annotation => self.annotation(),
            Kind::Rival => self.rival(),
        })
    }

    /// A master by its name alone or with its addresses, in any state.
    fn member(&mut self) -> Option<Edit> {
        let master = self.masters.choose(&mut self.random)?;
        let [v4, v6] = master.addresses;
        let addresses = [vec![], vec![v4], vec![v4, v6], vec![v6, v4]];
        let addresses = addresses.choose(&mut self.random)?.clone();
        let state = self.state();
        // An apiserver is listed once: its IPv6 address may be another entry's.
        if addresses.contains(&v6) {
            self.draft.members.remove(&by_ipv6(&master.name));
        }
        Some(self.put(&master.name, &addresses, 6443, state))
    }

    /// A master's IPv6 address as a member of its own.
    fn extra(&mut self) -> Option<Edit> {
        let master = self.masters.choose(&mut self.random)?;
        let state = self.state();
        self.draft.members.remove(&master.name);
        Some(self.put(&by_ipv6(&master.name), &master.addresses[1..], 6443, state))
    }

    /// A member that is not an apiserver: an unused address, a port where nothing listens, or another kind of server.
    fn bogus(&mut self) -> Option<Edit> {
        let master = self.masters.choose(&mut self.random)?;
        let nobody = IpAddr::from([10, 213, 0, 250]);
        let state = self.state();
        let (name, address, port) = *[
            ("nobody", nobody, 6443),
            ("mistyped", master.addresses[0], 6444),
            ("etcd", master.addresses[0], 2379),
            ("kubelet", self.worker, 10250),
        ]
        .choose(&mut self.random)?;
        Some(self.put(name, &[address], port, state))
    }

    fn put(&mut self, name: &str, addresses: &[IpAddr], port: u16, state: &'static str) -> Edit {
        self.draft.put(name, addresses, port, state);
        let spec = json!({ "members": self.draft.members() });
        self.judged(&format!("{name} {state} at {addresses:?} port {port}"), &spec)
    }

    /// One entry goes, or all of them.
    fn gone(&mut self) -> Edit {
        let names: Vec<_> = self.draft.members.keys().cloned().collect();
        let what = match names.choose(&mut self.random) {
            Some(name) if self.random.random_bool(0.7) => {
                self.draft.members.remove(name);
                format!("{name} is not listed any more")
            }
            Some(_) | None => {
                self.draft.members.clear();
                "no member is listed".to_owned()
            }
        };
        self.judged(&what, &json!({ "members": self.draft.members() }))
    }

    /// Leaves no member that answers.
    fn alone(&mut self) -> Edit {
        self.draft.members.clear();
        self.draft
            .put("nobody", &[[10, 213, 0, 250].into()], 6443, "Active");
        self.draft.mistakes.push(Mistake::Alone);
        let spec = json!({ "discovery": { "policy": "None" }, "members": self.draft.members() });
        let mut edit = self.judged("nobody is the only member", &spec);
        let mut reasons = vec!["NoHealthyMember"];
        if let Fate::Refused(others) = edit.fate {
            reasons.extend(others);
        }
        edit.fate = Fate::Refused(reasons);
        edit
    }

    /// A scope that would take the proxy from nodes that have one.
    fn scope(&mut self) -> Edit {
        // Without their label masters count as workers: that scope would take nothing away.
        let labelled = self.draft.unlabelled.is_empty();
        let wrong = [
            json!({ "nodeSelector": { "example.com/rack": "typo" } }),
            json!({ "tolerations": [] }),
            json!({ "nodeScope": "WorkersOnly" }),
        ];
        let choices = if labelled { &wrong[..] } else { &wrong[..2] };
        let proxy = choices.choose(&mut self.random).cloned().unwrap_or_default();
        if !self.draft.mistakes.contains(&Mistake::Scope) {
            self.draft.mistakes.push(Mistake::Scope);
        }
        self.judged(&format!("proxies only where {proxy}"), &json!({ "proxy": proxy }))
    }

    /// What breaks a rule of the schema; the spec stays as it is.
    fn invalid(&mut self) -> Option<Edit> {
        let master = self.masters.choose(&mut self.random)?;
        let [v4, _] = master.addresses;
        let broken = [
            json!({ "listeners": [{ "name": "apiserver", "port": 7553 }] }),
            json!({ "members": [{ "name": "a", "addresses": [v4] }, { "name": "b", "addresses": [v4] }] }),
            json!({ "members": [{ "name": "a", "addresses": ["127.0.0.1"] }] }),
            json!({ "members": [{ "name": "a", "addresses": [v4], "port": 0 }] }),
            json!({ "healthCheck": { "periodMilliseconds": 500, "timeoutMilliseconds": 900 } }),
            json!({ "connection": { "hedgeDelayMilliseconds": 0 } }),
        ];
        let spec = broken.choose(&mut self.random)?;
        Some(Edit {
            what: format!("a broken rule: {spec}"),
            change: Change::Pool(json!({ "spec": spec })),
            fate: Fate::Invalid,
        })
    }

    /// How proxies probe and connect. No number makes a busy machine look like a silent one.
    fn numbers(&mut self) -> Edit {
        let random = &mut self.random;
        let period = random.random_range(750..=2000);
        let spec = json!({
            "healthCheck": {
                "periodMilliseconds": period,
                "timeoutMilliseconds": random.random_range(700..=period),
                "failureThreshold": random.random_range(2..=4),
                "successThreshold": random.random_range(1..=3),
            },
            "connection": {
                "connectTimeoutMilliseconds": random.random_range(500..=2000),
                "hedgeDelayMilliseconds": random.random_range(100..=500),
                "keepAliveSeconds": random.random_range(3..=10),
                "maxConnections": random.random_range(1024..=16384),
            },
            "discovery": { "removalDelaySeconds": random.random_range(5..=20) },
        });
        self.judged(&format!("other numbers: {spec}"), &spec)
    }

    /// A master's node loses the label by which it is discovered, or has it back.
    fn label(&mut self) -> Option<Edit> {
        // The label decides which nodes are workers: while the scope depends on it, it is only added and not removed.
        let may_go = !self.draft.mistakes.contains(&Mistake::Scope);
        let node = &self.masters.choose(&mut self.random)?.name;
        let present = self.draft.unlabelled.contains(node);
        if !present && !may_go {
            return None;
        }
        if present {
            self.draft.unlabelled.remove(node);
        } else {
            self.draft.unlabelled.insert(node.clone());
        }
        Some(Edit {
            what: format!("{node} {} its label", if present { "has" } else { "loses" }),
            change: Change::Label {
                node: node.clone(),
                present,
            },
            fate: Fate::Elsewhere,
        })
    }

    /// An allow annotation of another generation, which allows nothing.
    fn annotation(&mut self) -> Edit {
        let name = *["trivet.dev/allow-shrink", "trivet.dev/allow-scope-shrink"]
            .choose(&mut self.random)
            .unwrap_or(&"trivet.dev/allow-shrink");
        let value = *[Some("0"), Some("yes"), None]
            .choose(&mut self.random)
            .unwrap_or(&None);
        Edit {
            what: format!("annotation {name}: {value:?}"),
            change: Change::Pool(json!({ "metadata": { "annotations": { name: value } } })),
            fate: Fate::Elsewhere,
        }
    }

    /// A second pool that wants this pool's port.
    fn rival(&mut self) -> Edit {
        let port = if self.draft.has_rival { None } else { Some(7443) };
        self.draft.has_rival = port.is_some();
        Edit {
            what: match port {
                Some(port) => format!("another pool wants port {port}"),
                None => "the other pool is deleted".to_owned(),
            },
            change: Change::Rival(port),
            fate: match port {
                Some(_) => Fate::Refused(vec!["ListenerConflict"]),
                None => Fate::Elsewhere,
            },
        }
    }

    fn state(&mut self) -> &'static str {
        // Half of them Active, so that members are added as often as they are removed.
        ["Active", "Active", "Draining", "Disabled"]
            .choose(&mut self.random)
            .unwrap_or(&"Active")
    }

    /// An edit that the operator judges, and refuses for the mistakes that are in the spec already.
    fn judged(&self, what: &str, spec: &Value) -> Edit {
        let fate = if self.draft.mistakes.contains(&Mistake::Scope) {
            Fate::Refused(vec!["ScopeWouldShrink", "NoHealthyMember", "NoMembers"])
        } else {
            Fate::Judged
        };
        Edit {
            what: what.to_owned(),
            change: Change::Pool(json!({ "spec": spec })),
            fate,
        }
    }
}

/// The name of the member that is a master's IPv6 address.
pub fn by_ipv6(master: &str) -> String {
    format!("{master}-by-ipv6")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// As many edits have every kind among them: the kinds come up in rounds, and each mistake brings its own repair.
    const ENOUGH: usize = 80;

    fn masters() -> Vec<Master> {
        (1..=3u8)
            .map(|number| Master {
                name: format!("cp{number}"),
                addresses: [
                    [10, 213, 0, 10 + number].into(),
                    [0xfd74, 0, 0, 0, 0, 0, 0, number.into()].into(),
                ],
            })
            .collect()
    }

    fn edits(seed: u64, count: usize) -> Vec<Edit> {
        super::edits(seed, count, &masters(), [10, 213, 0, 101].into())
    }

    fn specs(edits: &[Edit]) -> impl Iterator<Item = (&Edit, &Value)> {
        edits.iter().filter_map(|edit| match &edit.change {
            Change::Pool(patch) => Some((edit, patch)),
            Change::Label { .. } | Change::Rival(_) => None,
        })
    }

    #[test]
    fn a_seed_gives_the_same_edits_and_another_seed_gives_others() {
        assert_eq!(edits(7, 200), edits(7, 200));
        assert_ne!(edits(7, 200), edits(8, 200));
        assert_eq!(edits(7, 200).len(), 200);
    }

    #[test]
    fn every_kind_of_edit_is_among_eighty() {
        for seed in 0..200 {
            let edits = edits(seed, ENOUGH);
            let fields: BTreeSet<_> = specs(&edits)
                .filter(|(edit, _)| edit.fate != Fate::Invalid)
                .flat_map(|(_, patch)| {
                    let spec = patch.get("spec").and_then(Value::as_object);
                    let annotations = patch.pointer("/metadata/annotations");
                    spec.into_iter()
                        .flat_map(|spec| spec.keys().cloned())
                        .chain(annotations.map(|_| "annotations".to_owned()))
                })
                .collect();
            for field in [
                "members",
                "discovery",
                "proxy",
                "listeners",
                "healthCheck",
                "connection",
                "annotations",
            ] {
                assert!(
                    fields.contains(field),
                    "seed {seed}: {field} is not in {fields:?}"
                );
            }
            let has = |fate: fn(&Edit) -> bool| edits.iter().any(fate);
            assert!(has(|edit| edit.fate == Fate::Invalid), "seed {seed}");
            assert!(
                has(|edit| matches!(&edit.change, Change::Label { present: false, .. })),
                "seed {seed}"
            );
            assert!(
                has(|edit| matches!(&edit.change, Change::Rival(Some(_)))),
                "seed {seed}"
            );
            for reason in ["ScopeWouldShrink", "NoHealthyMember", "ListenerConflict"] {
                let wanted =
                    |edit: &Edit| matches!(&edit.fate, Fate::Refused(reasons) if reasons[0] == reason);
                assert!(
                    edits.iter().any(wanted),
                    "seed {seed}: nothing is refused for {reason}"
                );
            }
        }
    }

    #[test]
    fn an_apiserver_is_listed_once_but_where_the_rule_is_to_be_broken() {
        for seed in 0..200 {
            let edits = edits(seed, 200);
            for (edit, patch) in specs(&edits).filter(|(edit, _)| edit.fate != Fate::Invalid) {
                let members = patch.pointer("/spec/members").and_then(Value::as_array);
                let mut seen = BTreeSet::new();
                for member in members.into_iter().flatten() {
                    for address in member["addresses"].as_array().into_iter().flatten() {
                        let end = format!("{address} {}", member["port"]);
                        assert!(seen.insert(end.clone()), "seed {seed}: {end} twice in {edit:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn masters_count_as_workers_in_no_edit_of_scope() {
        for seed in 0..200 {
            let (mut unlabelled, mut workers_only) = (BTreeSet::new(), false);
            for edit in edits(seed, 200) {
                match &edit.change {
                    Change::Label { node, present: false } => drop(unlabelled.insert(node.clone())),
                    Change::Label { node, present: true } => assert!(unlabelled.remove(node)),
                    Change::Pool(patch) => {
                        if let Some(scope) = patch.pointer("/spec/proxy/nodeScope").and_then(Value::as_str) {
                            workers_only = scope == "WorkersOnly";
                        }
                    }
                    Change::Rival(_) => {}
                }
                assert!(!workers_only || unlabelled.is_empty(), "seed {seed}: {edit:?}");
            }
        }
    }
}
