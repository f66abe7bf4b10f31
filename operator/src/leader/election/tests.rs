//! Elections step by step, and thousands of them at random.

use proptest::prelude::*;

use super::*;

fn wall() -> Timestamp {
    Timestamp::from_second(1_796_000_000).unwrap()
}

/// The API server's Lease.
#[derive(Clone, Debug, Default)]
struct Server {
    lease: Option<Found>,
    writes: u32,
}

impl Server {
    /// The version after the write, or `None` if it is refused.
    fn obey(&mut self, write: &Write) -> Option<String> {
        let current = self.lease.as_ref();
        if current.map(|found| &found.version) != write.version.as_ref() {
            return None;
        }
        // As the API server: what changes nothing has no new version.
        if current.is_none_or(|found| found.record != write.record) {
            self.writes += 1;
            self.lease = Some(Found {
                record: write.record.clone(),
                version: self.writes.to_string(),
            });
        }
        self.lease.as_ref().map(|found| found.version.clone())
    }
}

/// One whole round without a fault.
fn round(candidate: &mut Candidate, server: &mut Server, now: Instant) {
    candidate.begin_round(now);
    loop {
        match candidate.next(now, wall()) {
            Step::Read => candidate.read(server.lease.clone(), now),
            Step::Write(write) => {
                match server.obey(&write) {
                    Some(version) => candidate.written(write, version, now),
                    None => candidate.failed(),
                }
                return;
            }
            Step::Rest => return,
        }
    }
}

fn two() -> (Candidate, Candidate, Server, Instant) {
    let mut first = Candidate::new("a".to_owned());
    let (mut server, now) = (Server::default(), Instant::now());
    round(&mut first, &mut server, now);
    assert!(first.leads(now).is_some());
    (first, Candidate::new("b".to_owned()), server, now)
}

fn at(start: Instant, seconds: u64) -> Instant {
    start + Duration::from_secs(seconds)
}

#[test]
fn a_holder_that_renews_keeps_the_lease() {
    let (mut first, mut second, mut server, start) = two();
    for seconds in (0..300).step_by(2) {
        let now = at(start, seconds);
        round(&mut first, &mut server, now);
        round(&mut second, &mut server, now);
        assert!(first.leads(now).is_some() && second.leads(now).is_none());
    }
    assert_eq!(server.lease.unwrap().record.transitions, 0);
}

#[test]
fn a_holder_that_is_silent_loses_the_lease_after_its_duration() {
    let (first, mut second, mut server, start) = two();
    for seconds in 1..=15 {
        round(&mut second, &mut server, at(start, seconds));
        assert!(second.leads(at(start, seconds)).is_none(), "{seconds} s");
    }
    assert!(first.leads(at(start, 9)).is_some() && first.leads(at(start, 10)).is_none());
    round(&mut second, &mut server, at(start, 16));
    let (term, _) = second.leads(at(start, 16)).unwrap();
    assert_eq!((term.text().as_str(), term.is_first()), ("1 b", false));
}

#[test]
fn a_released_lease_is_taken_at_once() {
    let (first, mut second, mut server, start) = two();
    let released = first.release(start, wall()).unwrap();
    assert!(server.obey(&released).is_some());
    round(&mut second, &mut server, start);
    assert!(second.leads(start).is_some());
    assert!(
        second.release(at(start, 10), wall()).is_none(),
        "it leads no longer"
    );
}

#[test]
fn a_lost_answer_extends_no_term_and_the_next_write_does() {
    let (mut first, _, mut server, start) = two();
    first.begin_round(at(start, 5));
    let Step::Write(write) = first.next(at(start, 5), wall()) else {
        panic!("it renews");
    };
    assert!(server.obey(&write).is_some());
    first.failed();
    assert!(first.leads(at(start, 9)).is_some() && first.leads(at(start, 10)).is_none());
    round(&mut first, &mut server, at(start, 7));
    assert!(first.leads(at(start, 16)).is_some());
    assert_eq!(first.leads(at(start, 7)).unwrap().0.text(), "0 a");
}

#[test]
fn nobody_takes_a_deleted_lease_in_the_time_of_its_holder() {
    let (mut first, mut second, mut server, start) = two();
    round(&mut second, &mut server, start);
    server.lease = None;
    round(&mut second, &mut server, at(start, 2));
    assert!(second.leads(at(start, 2)).is_none());
    // Its renewal is refused: it reads anew.
    round(&mut first, &mut server, at(start, 3));
    assert!(server.lease.is_none());
    round(&mut first, &mut server, at(start, 4));
    assert_eq!(server.lease.as_ref().unwrap().record.holder, "a");
    assert!(first.leads(at(start, 13)).is_some());
    for seconds in 5..=18 {
        round(&mut second, &mut server, at(start, seconds));
        assert!(second.leads(at(start, seconds)).is_none(), "{seconds} s");
    }
}

#[test]
fn a_clock_that_stands_makes_no_holder_look_dead() {
    let (mut first, _, mut server, start) = two();
    let before = server.lease.clone();
    round(&mut first, &mut server, at(start, 2));
    assert_ne!(before.unwrap().version, server.lease.unwrap().version);
}

#[test]
fn a_duration_that_somebody_wrote_by_hand_blocks_the_election_for_a_minute_at_most() {
    for (seconds, wanted) in [(0, 1), (-5, 1), (15, 15), (60, 60), (i32::MAX, 60)] {
        let record = Record {
            seconds,
            ..Record::default()
        };
        assert_eq!(record.duration(), Duration::from_secs(wanted), "{seconds}");
    }
}

#[test]
fn a_record_survives_the_api() {
    let record = Record {
        holder: "a".to_owned(),
        seconds: 15,
        acquired: Some(wall()),
        renewed: Some(wall()),
        transitions: 3,
    };
    assert_eq!(Record::from(LeaseSpec::from(record.clone())), record);
}

/// What happens next in a world of three processes.
#[derive(Clone, Debug)]
enum Event {
    /// Time passes.
    Passes(u64),
    /// A process does its next step, if it waits for no answer.
    Steps(usize),
    /// The API server executes a request, however old it is.
    Serves(usize),
    /// A process gets its answer, if there is one.
    Hears(usize),
    /// A process waits for its answer no longer; the request may still be executed.
    GivesUp(usize),
    /// The wall clock of a process is set to this second.
    Sets(usize, i64),
}

/// A request, and what became of it.
#[derive(Clone, Debug)]
struct Request {
    from: usize,
    sent: Instant,
    step: Step,
    answer: Option<Answer>,
    is_given_up: bool,
}

#[derive(Clone, Debug)]
enum Answer {
    Read(Option<Found>),
    Written(Option<String>),
}

#[derive(Debug)]
struct World {
    now: Instant,
    server: Server,
    processes: Vec<(Candidate, Timestamp)>,
    requests: Vec<Request>,
    terms: std::collections::BTreeSet<String>,
}

impl World {
    fn new() -> Self {
        let process = |name: &str| (Candidate::new(name.to_owned()), wall());
        Self {
            now: Instant::now(),
            server: Server::default(),
            processes: ["a", "b", "c"].map(process).into(),
            requests: Vec::new(),
            terms: std::collections::BTreeSet::new(),
        }
    }

    fn apply(&mut self, event: &Event) {
        match event {
            Event::Passes(milliseconds) => self.now += Duration::from_millis(*milliseconds),
            Event::Steps(process) => self.step(*process),
            Event::Serves(number) => self.serve(*number),
            Event::Hears(process) => self.hear(*process),
            Event::GivesUp(process) => {
                let waiting = self
                    .requests
                    .iter_mut()
                    .find(|it| it.from == *process && !it.is_given_up);
                if let Some(request) = waiting {
                    request.is_given_up = true;
                    self.processes[*process].0.failed();
                }
            }
            Event::Sets(process, second) => {
                self.processes[*process].1 = Timestamp::from_second(*second).unwrap();
            }
        }
        self.requests
            .retain(|it| !(it.is_given_up && it.answer.is_some()));
    }

    fn step(&mut self, from: usize) {
        if self.requests.iter().any(|it| it.from == from && !it.is_given_up) {
            return;
        }
        let (candidate, wall) = &mut self.processes[from];
        let step = candidate.next(self.now, *wall);
        if step == Step::Rest {
            candidate.begin_round(self.now);
            return;
        }
        self.requests.push(Request {
            from,
            sent: self.now,
            step,
            answer: None,
            is_given_up: false,
        });
    }

    fn serve(&mut self, number: usize) {
        let mut pending: Vec<_> = self
            .requests
            .iter_mut()
            .filter(|it| it.answer.is_none())
            .collect();
        let count = pending.len().max(1);
        if let Some(request) = pending.get_mut(number % count) {
            request.answer = Some(match &request.step {
                Step::Write(write) => Answer::Written(self.server.obey(write)),
                Step::Read | Step::Rest => Answer::Read(self.server.lease.clone()),
            });
        }
    }

    fn hear(&mut self, process: usize) {
        let is_answered = |it: &Request| it.from == process && !it.is_given_up && it.answer.is_some();
        let Some(index) = self.requests.iter().position(is_answered) else {
            return;
        };
        let Request {
            sent, step, answer, ..
        } = self.requests.remove(index);
        let candidate = &mut self.processes[process].0;
        match (step, answer.unwrap()) {
            (Step::Write(write), Answer::Written(Some(version))) => {
                candidate.written(write, version, sent);
                // A holder renews in its next round.
                candidate.begin_round(self.now);
            }
            (_, Answer::Written(_)) => candidate.failed(),
            (_, Answer::Read(found)) => candidate.read(found, self.now),
        }
    }

    fn leaders(&mut self) -> Vec<String> {
        let leads = |(candidate, _): &(Candidate, Timestamp)| Some(candidate.leads(self.now)?.0.text());
        let leaders: Vec<_> = self.processes.iter().filter_map(leads).collect();
        self.terms.extend(leaders.iter().cloned());
        leaders
    }
}

fn event() -> impl Strategy<Value = Event> {
    let process = 0..3_usize;
    prop_oneof![
        6 => (0..4_000_u64).prop_map(Event::Passes),
        1 => (4_000..20_000_u64).prop_map(Event::Passes),
        12 => process.clone().prop_map(Event::Steps),
        12 => (0..8_usize).prop_map(Event::Serves),
        12 => process.clone().prop_map(Event::Hears),
        2 => process.clone().prop_map(Event::GivesUp),
        1 => (process, 0..4_000_000_000_i64).prop_map(|(process, second)| Event::Sets(process, second)),
    ]
}

proptest! {
    #[test]
    fn no_two_processes_lead_at_once(events in prop::collection::vec(event(), 0..400)) {
        let mut world = World::new();
        for (number, event) in events.iter().enumerate() {
            world.apply(event);
            let leaders = world.leaders();
            prop_assert!(leaders.len() <= 1, "{leaders:?} after {:?}", &events[..=number]);
        }
    }
}

#[test]
fn at_random_many_terms_follow_each_other() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut terms = 0;
    for _ in 0..50 {
        let events = prop::collection::vec(event(), 1200)
            .new_tree(&mut runner)
            .unwrap()
            .current();
        let mut world = World::new();
        for event in &events {
            world.apply(event);
            world.leaders();
        }
        terms += world.terms.len();
    }
    assert!(
        terms > 100,
        "{terms} terms in 50 elections: the promises above are about something"
    );
}
