//! The report of this proxy: an object of the API that says what the node reaches, and whether it has a standby.
//!
//! The process that serves writes it; a standby writes nothing. It goes through the proxy's own upstreams, never waits in the
//! path of a client, and a failure changes nothing but a counter. Without a token there is no report.

mod bounds;
mod content;
pub mod elsewhere;
mod idle;
mod members;
pub mod pacing;
mod undeclared;
mod usage;

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval_at, timeout},
};
use tracing::{debug, info, warn};
use trivet_crds::{
    GROUP,
    report::{
        ELSEWHERE_UNKNOWN, MAX_WARNINGS, PLURAL, ReportContent, ReportedWarning, StandbyState, VERSION, name,
    },
};

use self::{
    content::{Gist, Process, content, gist},
    idle::Idle,
    pacing::Pacing,
    undeclared::Undeclared,
    usage::{Marks, Usage},
};
use crate::{
    api::{Api, Credentials, Error, Verb},
    cause, clock,
    handover::driver::Standing,
    status::Subject,
    upstream::Upstreams,
};

/// The pause between two looks at the proxy for a change. A member that falls silent is Down after 2.8 s, and should be in
/// the report of its node after 5 s.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The limit of one write, from the dial to the answer.
const WRITE_LIMIT: Duration = Duration::from_secs(15);

/// The field manager: the same for all proxies of a node, so that the next one takes the object over.
const MANAGER: &str = "trivet-proxy";

/// What the hand-over says about this process and its standby. None of it without a hand-over: this process.serves alone.
#[derive(Clone, Debug)]
pub struct HandOver {
    /// The part of this process.
    pub standing: watch::Receiver<Standing>,
    /// Whether a standby can take over.
    pub standby: watch::Receiver<StandbyState>,
    /// The hash of this process's template.
    pub template: String,
    /// Where the processes of the node meet.
    pub directory: PathBuf,
    /// The name of this one among them, see [`elsewhere`].
    pub name: String,
}

/// Writes the report.
#[derive(Debug)]
pub struct Reporter {
    /// The proxy.
    pub subject: Subject,
    /// Its upstreams.
    pub upstreams: Arc<Upstreams>,
    /// With which credentials it writes.
    pub credentials: Credentials,
    /// The hand-over, if there is one.
    pub hand_over: Option<HandOver>,
}

impl Reporter {
    /// Writes the report without end.
    pub async fn run(self) {
        let mut pacing = Pacing::new(Instant::now(), rand::random());
        let mut written: Option<(Gist, Option<u64>)> = None;
        let mut older_in_api = None;
        let mut is_failing = false;
        let mut marks = Marks::default();
        let mut undeclared = Undeclared::default();
        let mut idle = Idle::new(Instant::now());
        // Not at once: most watches have told by then which document the API has, and so the first report has its revision.
        let mut looks = interval_at(Instant::now() + LOOK_EVERY, LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let listeners = &self.subject.listeners;
            let (open, admitted) = (listeners.connections(), listeners.admitted());
            let Some(mut report) = self.report().await else {
                // Another process reports. What it writes is not what this one wrote last.
                written = None;
                idle.reset(admitted, Instant::now());
                continue;
            };
            idle.look(open, admitted, Instant::now());
            report.idle_seconds = idle.seconds(Instant::now());
            marks.raise(&report);
            let older = self.subject.documents.older_in_api();
            if older != std::mem::replace(&mut older_in_api, older) && older.is_some() {
                // The operator must learn which revision the next document has to exceed, and the API answers again.
                pacing.recover();
            }
            let gist = (gist(&report, marks), older);
            let differs = written.as_ref() != Some(&gist);
            let now = Instant::now();
            pacing.look(differs, now);
            if !pacing.is_due(now, self.nodes()) {
                continue;
            }
            let outcome = self.write(report, &mut undeclared).await;
            let succeeded = outcome.is_ok();
            self.tell(outcome, is_failing);
            is_failing = !succeeded;
            if succeeded {
                written = Some(gist);
            }
            pacing.attempted(succeeded, Instant::now(), self.nodes());
        }
    }

    fn nodes(&self) -> u32 {
        let settings = self.upstreams.settings();
        settings.map_or(0, |settings| settings.document.nodes)
    }

    /// What this process reports; none while another process serves, or before the first document.
    async fn report(&self) -> Option<ReportContent> {
        let process = match &self.hand_over {
            None => Process::default(),
            Some(hand_over) => Process {
                serves: hand_over.standing.borrow().state.serves(),
                standby: *hand_over.standby.borrow(),
                template: hand_over.template.clone(),
            },
        };
        // A standby does not even look.
        if !process.serves {
            return None;
        }
        let elsewhere = match &self.hand_over {
            None => Ok(Vec::new()),
            Some(hand_over) => elsewhere::read(&hand_over.directory, &hand_over.name),
        };
        let usage = Usage::now().await;
        let mut held = elsewhere::held(&self.subject.listeners, false);
        held.extend(elsewhere.as_deref().unwrap_or_default().iter().cloned());
        let mut report = content(&self.subject.status(), &process, usage, &held)?;
        if let Err(error) = elsewhere {
            report.warnings.insert(0, elsewhere_unknown(&error));
            report.warnings.truncate(MAX_WARNINGS);
        }
        report.revision = self.subject.documents.witnessed_revision().unwrap_or(0);
        Some(report)
    }

    /// Writes the report, without the fields that the apiservers do not know.
    async fn write(&self, mut report: ReportContent, undeclared: &mut Undeclared) -> Result<(), Error> {
        report.observed_time = clock::rfc3339(clock::unix_seconds());
        let name = name(&report.pool_name, &report.node_name);
        // The name has only the characters of a DNS name.
        let path = format!("/apis/{GROUP}/{VERSION}/{PLURAL}/{name}?fieldManager={MANAGER}&force=true");
        undeclared.forget_old(Instant::now());
        loop {
            let mut object = report.object()?;
            undeclared.remove_from(&mut object);
            let written = self.apply(&path, serde_json::to_vec(&object)?).await;
            let Err(Error::Refused(refusal)) = &written else {
                if written.is_ok() {
                    tell_of_schema(undeclared);
                }
                return written;
            };
            if !undeclared.learn(refusal, Instant::now(), (self.nodes(), rand::random())) {
                return written;
            }
        }
    }

    async fn apply(&self, path: &str, object: Vec<u8>) -> Result<(), Error> {
        let apply = async {
            let mut api = Api::connect(&self.upstreams, &self.credentials).await?;
            api.request(Verb::Apply(Bytes::from(object)), path).await
        };
        timeout(WRITE_LIMIT, apply)
            .await
            .map_err(|_elapsed| Error::Stalled)?
            .map(drop)
    }

    /// Counts the outcome. The first of several failures is logged, and the end of them.
    fn tell(&self, outcome: Result<(), Error>, is_failing: bool) {
        let metrics = self.upstreams.metrics();
        match outcome {
            Ok(()) => {
                metrics.report_written();
                if is_failing {
                    info!("writing the report of this node again");
                }
            }
            Err(error) => {
                metrics.report_failed(error.reason());
                let (reason, error) = (error.reason(), cause::chain(&error));
                if is_failing {
                    debug!(reason, error, "still failing to write the report of this node");
                } else {
                    warn!(
                        reason,
                        error, "failed to write the report of this node, trying again"
                    );
                }
            }
        }
    }
}

/// Logs which fields the API has taken, where that differs from the report before.
fn tell_of_schema(undeclared: &mut Undeclared) {
    let Some(fields) = undeclared.news() else {
        return;
    };
    if fields.is_empty() {
        info!("the ProxyReport of this cluster has all fields now");
    } else {
        let fields = fields.join(", ");
        warn!(
            fields,
            "the ProxyReport of this cluster is of an earlier release: reporting without some fields"
        );
    }
}

/// A member may have clients of which this report does not tell.
fn elsewhere_unknown(error: &io::Error) -> ReportedWarning {
    ReportedWarning {
        reason: ELSEWHERE_UNKNOWN.to_owned(),
        message: format!("the connections of other proxies of this node cannot be read: {error}"),
    }
}
