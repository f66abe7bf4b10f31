//! Reads and writes the Lease, every two seconds, for as long as the operator runs.
//!
//! A leader that loses its Lease steps down and stands for election again: its caches are warm, and where no API server
//! answers, a new process would not reach one either. All that it remembers of the pools goes, as with a process that ends.

use std::fmt::Write as _;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Leadership;
use super::election::{Candidate, Found, RETRY_PERIOD, Record, Step, Write};
use crate::MANAGER;
use crate::logging::chain;
use crate::serve::Telemetry;

/// The name of the Lease.
pub const LEASE: &str = MANAGER;

/// How long one read or write of the Lease may take. With the pause after a failure three of them fit between two renewals
/// and the deadline, each on a connection of its own, so that one silent apiserver of several ends no term.
const REQUEST_TIMEOUT: Duration = Duration::from_millis(2500);

/// The longest pause after a failure.
const FAILURE_PAUSE: Duration = Duration::from_millis(500);

/// The pause between two rounds differs by up to this share, so that operators do not write at the same moments.
const JITTER: f64 = 0.2;

/// The kind that the election needs, in `/readyz`.
const LEASE_KIND: &str = "Lease";

/// The word in `/livez` for these rounds.
const LOOP: &str = "election";

/// An operator that stands for election.
pub struct Campaign {
    api: Api<Lease>,
    namespace: String,
    candidate: Candidate,
    leadership: Arc<Leadership>,
    telemetry: Telemetry,
    /// The failures in a row.
    failures: u32,
    /// Who held the Lease in the last round.
    holder: String,
}

/// Why a round did not end well.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// The API server refuses, or cannot be reached.
    #[error("failed to {verb} Lease {LEASE} in namespace {namespace}")]
    Api {
        verb: &'static str,
        namespace: String,
        source: Box<kube::Error>,
    },
    /// No answer came.
    #[error("failed to {verb} Lease {LEASE} in namespace {namespace} within {REQUEST_TIMEOUT:?}")]
    Silent { verb: &'static str, namespace: String },
}

impl Error {
    /// Whether another operator has written the Lease first. That is how elections go.
    fn is_conflict(&self) -> bool {
        match self {
            Self::Api { source, .. } => {
                matches!(&**source, kube::Error::Api(status) if matches!(status.code, 404 | 409))
            }
            Self::Silent { .. } => false,
        }
    }
}

impl Campaign {
    /// `client` is not fenced: the Lease is written by those who do not lead.
    pub fn new(
        client: Client,
        namespace: &str,
        name: &str,
        leadership: Arc<Leadership>,
        telemetry: Telemetry,
    ) -> Self {
        let mut identity = format!("{name}_");
        // Each process is another one, also where it has the name of the last one. Writing to a String cannot fail.
        write!(identity, "{:016x}", rand::random::<u64>()).ok();
        Self {
            api: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
            candidate: Candidate::new(identity),
            leadership,
            telemetry,
            failures: 0,
            holder: String::new(),
        }
    }

    /// Stands for election until `shutdown`, then waits for the work of a leader that is under way, and gives the Lease up, so
    /// that the first operator that asks gets it. `forget` is called after each term.
    pub async fn run(mut self, shutdown: CancellationToken, forget: impl Fn()) {
        while !shutdown.is_cancelled() {
            let pause = self.round(&forget).await;
            shutdown.run_until_cancelled(sleep(pause)).await;
        }
        let leadership = Arc::clone(&self.leadership);
        self.go_on_until(leadership.work_has_ended(), &forget).await;
        self.leadership.step_down();
        self.telemetry.metrics.leads(false);
        if let Some(write) = self.candidate.release(Instant::now(), Timestamp::now()) {
            match self.write(&write).await {
                Ok(_) => tracing::info!("the Lease is released"),
                // The next operator waits until it has expired.
                Err(error) => tracing::warn!(error = chain(&error), "failed to release the Lease"),
            }
        }
    }

    /// Renews the Lease until `end`.
    async fn go_on_until(&mut self, end: impl Future<Output = ()>, forget: &impl Fn()) {
        let mut end = pin!(end);
        loop {
            tokio::select! {
                () = &mut end => return,
                () = sleep(RETRY_PERIOD) => {}
            }
            self.round(forget).await;
        }
    }

    /// One round. Returns the pause until the next one.
    async fn round(&mut self, forget: &impl Fn()) -> Duration {
        self.telemetry.watchdog.beat(LOOP);
        self.candidate.begin_round(Instant::now());
        let outcome = self.steps().await;
        self.tell(&outcome);
        self.follow(forget).await;
        match outcome {
            Ok(()) => {
                if self.failures > 0 {
                    tracing::info!(
                        failures = self.failures,
                        "the Lease can be read and written again"
                    );
                }
                self.failures = 0;
                RETRY_PERIOD.mul_f64(1.0 + JITTER * (2.0 * rand::random::<f64>() - 1.0))
            }
            Err(error) if error.is_conflict() => {
                tracing::debug!(error = chain(&error), "another operator has written the Lease");
                FAILURE_PAUSE.mul_f64(rand::random())
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                // Ever more rarely: the first one tells what is wrong.
                if self.failures.is_power_of_two() {
                    let failures = self.failures;
                    tracing::warn!(error = chain(&error), failures, "no part in the election");
                }
                FAILURE_PAUSE.mul_f64(rand::random())
            }
        }
    }

    /// Tells `/readyz` whether this operator takes part. That another one has written first is part of it.
    fn tell(&self, outcome: &Result<(), Error>) {
        let failure = outcome.as_ref().err().filter(|error| !error.is_conflict());
        let readiness = &self.telemetry.readiness;
        match failure {
            None => readiness.observe_request(LEASE_KIND, None),
            Some(Error::Api { source, .. }) => readiness.observe_request(LEASE_KIND, Some(source.as_ref())),
            Some(Error::Silent { .. }) => {}
        }
        readiness.observe_election(failure.map(|error| chain(error)));
    }

    /// The reads and the write of one round.
    async fn steps(&mut self) -> Result<(), Error> {
        loop {
            let sent = Instant::now();
            match self.candidate.next(sent, Timestamp::now()) {
                Step::Rest => return Ok(()),
                Step::Read => {
                    let found = self.read().await.inspect_err(|_| self.candidate.failed())?;
                    self.candidate.read(found, Instant::now());
                }
                Step::Write(write) => {
                    let version = self
                        .write(&write)
                        .await
                        .inspect_err(|_| self.candidate.failed())?;
                    self.candidate.written(write, version, sent);
                    return Ok(());
                }
            }
        }
    }

    /// Tells the rest of the operator what follows from the round.
    async fn follow(&mut self, forget: &impl Fn()) {
        if self.candidate.holder() != self.holder {
            self.candidate.holder().clone_into(&mut self.holder);
            self.telemetry.metrics.leader_changed();
            tracing::info!(holder = self.holder, "the Lease has another holder");
        }
        let leads = self.candidate.leads(Instant::now());
        self.telemetry.metrics.leads(leads.is_some());
        let last = self.leadership.term();
        if last.is_some_and(|last| leads.is_none_or(|(term, _)| *term != *last)) {
            tracing::warn!("this operator has lost the Lease, and does not write any more");
            self.leadership.step_down();
            self.leadership.work_has_ended().await;
            forget();
        }
        if let Some((term, until)) = leads
            && self.leadership.lead(term, until)
        {
            tracing::info!(term = term.text(), "this operator leads");
        }
    }

    async fn read(&self) -> Result<Option<Found>, Error> {
        let lease = self.bounded("read", self.api.get_opt(LEASE)).await?;
        Ok(lease.map(|lease| Found {
            version: version(&lease.metadata),
            record: lease.spec.map(Record::from).unwrap_or_default(),
        }))
    }

    /// Returns the version after the write.
    async fn write(&self, write: &Write) -> Result<String, Error> {
        let lease = lease(write);
        let params = PostParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PostParams::default()
        };
        let written = if write.version.is_some() {
            self.bounded("update", self.api.replace(LEASE, &params, &lease))
                .await?
        } else {
            self.bounded("create", self.api.create(&params, &lease)).await?
        };
        Ok(version(&written.metadata))
    }

    async fn bounded<T>(
        &self,
        verb: &'static str,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, Error> {
        let namespace = || self.namespace.clone();
        match timeout(REQUEST_TIMEOUT, request).await {
            Ok(answer) => answer.map_err(|source| Error::Api {
                verb,
                namespace: namespace(),
                source: Box::new(source),
            }),
            Err(_) => Err(Error::Silent {
                verb,
                namespace: namespace(),
            }),
        }
    }
}

/// Every object that the API server returns has one.
fn version(metadata: &ObjectMeta) -> String {
    metadata.resource_version.clone().unwrap_or_default()
}

/// The Lease as it is written.
fn lease(write: &Write) -> Lease {
    Lease {
        metadata: ObjectMeta {
            name: Some(LEASE.to_owned()),
            resource_version: write.version.clone(),
            ..ObjectMeta::default()
        },
        spec: Some(write.record.clone().into()),
    }
}

#[cfg(test)]
mod tests;
