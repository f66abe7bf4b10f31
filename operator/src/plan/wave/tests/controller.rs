//! A cluster second by second: the DaemonSet controller of Kubernetes 1.34 (`podsShouldBeOnNode` in its
//! `daemon_controller.go`, `rollingUpdate` in its `update.go`), kubelets, the node controller, and passes of the operator.

use super::*;

/// The grace of a silent node.
const NOT_READY_SECONDS: i64 = 50;

/// What is wrong with a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing.
    Nothing,
    /// Its kubelet can start no further pod.
    DiskFull,
    /// It is silent since then.
    Dead(i64),
}

#[derive(Clone, Debug)]
struct Pod {
    template: String,
    created_at: i64,
    has_started: bool,
    ready_at: Option<i64>,
    words: Option<String>,
    is_leaving: bool,
}

impl Pod {
    fn new(template: &str, now: i64) -> Self {
        Self {
            template: template.to_owned(),
            created_at: now,
            has_started: false,
            ready_at: None,
            words: None,
            is_leaving: false,
        }
    }

    fn is_available(&self, now: i64, min_ready: i64) -> bool {
        self.ready_at.is_some_and(|at| now - at >= min_ready)
    }
}

#[derive(Clone, Debug)]
pub(super) struct Machine {
    pub(super) name: String,
    pub(super) fault: Fault,
    is_ready: bool,
    pods: Vec<Pod>,
}

impl Machine {
    fn new(number: usize, fault: Fault) -> Self {
        Self {
            name: format!("w{number}"),
            fault,
            is_ready: true,
            pods: vec![Pod {
                has_started: true,
                ready_at: Some(0),
                ..Pod::new("a", 0)
            }],
        }
    }

    /// The pods that are not being deleted: those of this template, and the others.
    fn pods(&self, template: &str) -> (Vec<usize>, Vec<usize>) {
        let stays = |number: &usize| !self.pods[*number].is_leaving;
        let numbers = (0..self.pods.len()).filter(stays);
        numbers.partition(|number| self.pods[*number].template == template)
    }

    /// Whether its one pod is of this template, and available.
    pub(super) fn is_done(&self, template: &str, now: i64, min_ready: i64) -> bool {
        match self.pods.as_slice() {
            [pod] => pod.template == template && pod.is_available(now, min_ready),
            _ => false,
        }
    }

    fn kubelet(&mut self, now: i64, target: &RolloutTarget) {
        if let Fault::Dead(since) = self.fault {
            if now - since >= NOT_READY_SECONDS {
                self.is_ready = false;
                self.pods.iter_mut().for_each(|pod| pod.ready_at = None);
            }
            return;
        }
        self.is_ready = true;
        self.pods.retain(|pod| !pod.is_leaving);
        for pod in &mut self.pods {
            let is_open = pod.template != target.template || !target.is_closed_at(&self.name);
            if !pod.has_started && self.fault == Fault::DiskFull {
                pod.words = Some("no space left on device".to_owned());
            } else if now - pod.created_at >= 2 {
                pod.has_started = true;
                pod.words = None;
            }
            if pod.has_started && is_open && now - pod.created_at >= 5 {
                pod.ready_at = pod.ready_at.or(Some(now));
            }
        }
    }
}

/// A cluster whose owner has asked for `b`.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) machines: Vec<Machine>,
    pub(super) cluster: Cluster,
    pub(super) begun: usize,
    /// Whether the operator raises maxSurge.
    pub(super) is_helped: bool,
    /// By how much the order of nodes changes from sync to sync.
    stride: usize,
    min_ready: i64,
    max_surge: String,
    started_at: i64,
    is_blind: bool,
    pub(super) phase: Phase,
}

impl World {
    pub(super) fn new(faults: &[Fault], stride: usize) -> Self {
        let mut cluster = Cluster::of(0);
        cluster.facts.now = 1000;
        cluster.facts.desired = u32::try_from(faults.len()).unwrap();
        cluster.wanted = "b".to_owned();
        let machines = (1..)
            .zip(faults)
            .map(|(number, fault)| Machine::new(number, *fault));
        Self {
            machines: machines.collect(),
            cluster,
            begun: 0,
            is_helped: true,
            stride,
            min_ready: 5,
            max_surge: "10%".to_owned(),
            started_at: 0,
            is_blind: false,
            phase: Phase::Settled,
        }
    }

    pub(super) fn now(&self) -> i64 {
        self.cluster.facts.now
    }

    /// The operator starts anew. It has read nothing at its first pass.
    pub(super) fn restart(&mut self) {
        self.started_at = self.now();
        self.is_blind = true;
    }

    /// A second goes by.
    pub(super) fn tick(&mut self) {
        self.cluster.facts.now += 1;
        let (now, target) = (self.now(), self.cluster.facts.target.clone());
        self.machines
            .iter_mut()
            .for_each(|machine| machine.kubelet(now, &target));
        self.sync();
        if self.is_blind || now % 5 == 0 {
            self.pass();
        }
    }

    fn pass(&mut self) {
        self.observe();
        let watched = Duration::from_secs((self.now() - self.started_at).try_into().unwrap());
        let decision = self.cluster.decide(watched);
        self.begun += usize::from(decision.begins);
        self.min_ready = decision.min_ready_seconds.into();
        let by_spec = || self.cluster.rollout.max_parallel.clone();
        self.max_surge = if self.is_helped {
            decision.max_surge.clone()
        } else {
            by_spec()
        };
        self.cluster.write(&decision);
        self.phase = decision.phase;
        self.is_blind = false;
    }

    fn observe(&mut self) {
        let template = self.cluster.in_place().to_owned();
        let (now, min_ready) = (self.now(), self.min_ready);
        let facts = |machine: &Machine| {
            let (new, old) = machine.pods(&template);
            let newcomer = new.first().map(|number| {
                let pod = &machine.pods[*number];
                Newcomer {
                    created_at: Some(pod.created_at),
                    is_running: pod.has_started,
                    has_started: pod.has_started,
                    is_ready: pod.ready_at.is_some(),
                    ready_at: pod.ready_at,
                    words: pod.words.clone(),
                    ..Newcomer::default()
                }
            });
            let earlier = old
                .iter()
                .filter_map(|number| machine.pods[*number].ready_at)
                .max();
            NodeFacts {
                name: machine.name.clone(),
                aside: (!machine.is_ready).then_some(Aside::NotReady),
                newcomer,
                has_earlier: earlier.is_some(),
                earlier_ready_at: earlier,
                ..NodeFacts::default()
            }
        };
        let mut counted = self.machines.iter().filter(|machine| machine.is_ready);
        let is_complete = counted.all(|machine| machine.is_done(&template, now, min_ready));
        let nodes = self.machines.iter().map(facts).collect();
        self.cluster.facts.is_blind = self.is_blind;
        self.cluster.facts.is_complete = is_complete && !self.is_blind;
        self.cluster.facts.nodes = if self.is_blind { Vec::new() } else { nodes };
    }

    /// One look of the DaemonSet controller. Both of its parts act by the same look.
    fn sync(&mut self) {
        let template = self.cluster.in_place().to_owned();
        let (now, count) = (self.now(), self.machines.len());
        let first = usize::try_from(now).unwrap() * self.stride;
        let order: Vec<_> = (0..count).map(|number| (first + number) % count).collect();
        let (mut delete, mut create) = self.manage(&template);
        let (mut surging, mut candidates) = (0, Vec::new());
        for number in order {
            let machine = &self.machines[number];
            let available = |pods: &[usize]| {
                pods.iter()
                    .any(|pod| machine.pods[*pod].is_available(now, self.min_ready))
            };
            match machine.pods(&template) {
                (new, old) if new.len() > 1 || old.len() > 1 => surging += 1,
                (_, old) if old.is_empty() => {}
                (new, old) if new.is_empty() && !available(&old) => create.push(number),
                (new, _) if new.is_empty() => candidates.push(number),
                (new, _) if !available(&new) => surging += 1,
                (_, old) => delete.push((number, old[0])),
            }
        }
        let may_surge = self.may_surge().saturating_sub(surging);
        let chosen: Vec<_> = candidates.into_iter().take(may_surge).collect();
        self.asserts_pace(&template, &chosen);
        for (number, pod) in delete {
            self.machines[number].pods[pod].is_leaving = true;
        }
        create.extend(chosen);
        create.dedup();
        for number in create {
            self.machines[number].pods.push(Pod::new(&template, now));
        }
    }

    /// Which pods of each node are too many, and which nodes have none.
    fn manage(&self, template: &str) -> (Vec<(usize, usize)>, Vec<usize>) {
        let (mut delete, mut create) = (Vec::new(), Vec::new());
        for (number, machine) in self.machines.iter().enumerate() {
            let (new, old) = machine.pods(template);
            if new.is_empty() && old.is_empty() {
                create.push(number);
            }
            if new.len() + old.len() < 2 {
                continue;
            }
            let too_many = new.iter().skip(1).chain(old.iter().skip(1));
            delete.extend(too_many.map(|pod| (number, *pod)));
            if let (Some(new), Some(old)) = (new.first(), old.first()) {
                let (new, earlier) = (&machine.pods[*new], &machine.pods[*old]);
                if earlier.ready_at.is_none() || new.is_available(self.now(), self.min_ready) {
                    delete.push((number, *old));
                }
            }
        }
        (delete, create)
    }

    fn may_surge(&self) -> usize {
        share(&self.max_surge, self.machines.len())
    }

    /// The controller begins with no healthy node beyond those that the owner lets change at once.
    fn asserts_pace(&self, template: &str, chosen: &[usize]) {
        let changes = |(number, machine): &(usize, &Machine)| {
            let (new, old) = machine.pods(template);
            let available = |pod: &usize| machine.pods[*pod].is_available(self.now(), self.min_ready);
            let has_begun = !old.is_empty() && !new.is_empty() && !new.iter().any(available);
            let is_full = machine.fault == Fault::DiskFull;
            chosen.contains(number) || (has_begun && !is_full)
        };
        let changing = self.machines.iter().enumerate().filter(changes).count();
        let limit = share(&self.cluster.rollout.max_parallel, self.machines.len());
        assert!(
            chosen.is_empty() || changing <= limit,
            "{changing} change at once: {self:?}"
        );
    }

    /// On how many nodes proxies of a template serve.
    pub(super) fn serve(&self, template: &str) -> usize {
        let serves = |machine: &&Machine| {
            let mut pods = machine.pods.iter();
            pods.any(|pod| pod.template == template && pod.ready_at.is_some())
        };
        self.machines.iter().filter(serves).count()
    }

    /// How many nodes have a pod of each of two templates.
    pub(super) fn two_pods(&self) -> usize {
        let has_two = |machine: &&Machine| machine.pods.len() > 1;
        self.machines.iter().filter(has_two).count()
    }

    /// Whether each machine without a fault has one proxy, an available one of `template`.
    pub(super) fn have_healthy_ones(&self, template: &str) -> bool {
        let mut healthy = self
            .machines
            .iter()
            .filter(|machine| machine.fault == Fault::Nothing);
        healthy.all(|machine| machine.is_done(template, self.now(), self.min_ready))
    }
}

/// Of so many nodes, as Kubernetes reads a number or a percentage.
fn share(text: &str, nodes: usize) -> usize {
    match text.strip_suffix('%') {
        Some(percent) => (percent.parse::<usize>().unwrap() * nodes).div_ceil(100),
        None => text.parse().unwrap(),
    }
}
