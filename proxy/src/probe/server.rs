//! The prober of a path to another server than the apiserver.
//!
//! A completed TLS handshake, with whatever certificate, is a sign of life: a process that hangs completes none. A server of
//! an HTTPS listener is well while it answers a path; one that is late with the answer is asked for a handshake.

use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use hyper::StatusCode;
use tokio::{
    io::AsyncWriteExt,
    sync::Notify,
    time::{Instant, timeout},
};
use tokio_rustls::TlsConnector;

use super::{
    GRACE, Reporter,
    connection::{Error, ProbeConnection},
};
use crate::{
    balance::{
        Event, PathId, PathKey,
        health::Outcome,
        schedule::{self, READINESS_LIMIT},
    },
    net::socket::{self, Fault},
    settings::Settings,
    upstream::{Check, Upstreams},
};

/// How long the end of a handshake's connection may take: it is polite, and nobody waits for it.
const GOODBYE: Duration = Duration::from_millis(100);

/// Probes one path for as long as it runs.
#[derive(Debug)]
pub struct ServerProber {
    reporter: Reporter,
    connection: ProbeConnection,
}

/// What a server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// It has completed a handshake.
    Handshake,
    /// It has answered the path with this status.
    Status(StatusCode),
}

impl Answer {
    fn outcome(self) -> Outcome {
        match self {
            Self::Handshake => Outcome::Ready,
            Self::Status(status) if status.is_success() => Outcome::Ready,
            Self::Status(_) => Outcome::NotReady,
        }
    }

    /// What is wrong, for people; empty if nothing is.
    fn detail(self) -> String {
        match self {
            Self::Handshake => String::new(),
            Self::Status(status) if status.is_success() => String::new(),
            Self::Status(status) => format!("answers {}", status.as_u16()),
        }
    }
}

impl ServerProber {
    /// A prober of this path.
    pub fn new(upstreams: Arc<Upstreams>, id: PathId, key: PathKey) -> Self {
        Self {
            reporter: Reporter { upstreams, id, key },
            connection: ProbeConnection::default(),
        }
    }

    /// Probes at the interval of the document in force, and at once when `wake` is notified or the kept connection ends.
    pub async fn run(mut self, wake: Arc<Notify>) {
        let (mut first, mut hurried) = (true, false);
        loop {
            let started = Instant::now();
            let upstreams = &self.reporter.upstreams;
            if let Some((settings, check)) = upstreams.settings().zip(upstreams.check()) {
                self.round(&settings, &check).await;
            }
            let reporter = &self.reporter;
            hurried = tokio::select! {
                () = reporter.until_due(started, std::mem::take(&mut first)) => false,
                () = wake.notified() => false,
                // Not twice in a row, as for apiservers.
                () = self.connection.disconnected(), if !hurried => true,
            };
        }
    }

    /// Asks once, and once more for a sign of life while the answer is overdue.
    async fn round(&mut self, settings: &Settings, check: &Check) {
        let Self { reporter, connection } = self;
        let address = reporter.key.address;
        let interval = settings.policy.probe_interval;
        let overdue_after = schedule::overdue_after(reporter.health(), interval, settings.probe_timeout);
        let clock = Arc::clone(reporter.upstreams.clock());
        let asked = Instant::now();
        let mut answer = pin!(ask(connection, address, check, settings));
        if let Ok(answer) = clock.timeout(overdue_after / 2, answer.as_mut()).await {
            return reporter.answered(asked, answer);
        }
        reporter.waits();
        if let Ok(answer) = clock.timeout(overdue_after / 2, answer.as_mut()).await {
            return reporter.answered(asked, answer);
        }
        if overdue_after >= READINESS_LIMIT {
            return reporter.silent(asked);
        }
        let asked_again = Instant::now();
        let within = settings.probe_timeout + GRACE;
        let mut handshake = pin!(handshake(address, settings));
        let sign = clock.timeout(within, handshake.as_mut());
        tokio::select! {
            biased;
            answer = &mut answer => reporter.answered(asked, answer),
            sign = sign => match (sign, check) {
                (Ok(Ok(())), Check::Handshake) => reporter.answered(asked_again, Ok(Answer::Handshake)),
                (Ok(Ok(())), Check::Path(_)) => reporter.tell(asked_again, Outcome::Late, "alive, but late with its answer"),
                // A missing route cannot be told from a silent server.
                (Ok(Err(error)), _) if error.fault() != Fault::Unreachable => reporter.failed(asked_again, &error),
                (Ok(Err(_)) | Err(_), _) => {
                    reporter.silent(asked);
                    reporter.silent(asked_again);
                }
            },
        }
    }
}

impl Reporter {
    fn answered(&self, asked: Instant, answer: Result<Answer, Error>) {
        match answer {
            Ok(answer) => self.tell(asked, answer.outcome(), &answer.detail()),
            Err(error) => self.failed(asked, &error),
        }
    }

    /// The server has answered. Its apiserver vouches for it.
    fn tell(&self, asked: Instant, outcome: Outcome, detail: &str) {
        let PathKey { member, .. } = &self.key;
        self.upstreams.metrics().probed(member, outcome);
        let event = Event::Probed {
            id: self.id,
            asked,
            verified: self.upstreams.is_vouched_for(&self.key),
            outcome,
        };
        self.upstreams.observe(event, detail);
    }
}

async fn ask(
    connection: &mut ProbeConnection,
    address: SocketAddr,
    check: &Check,
    settings: &Settings,
) -> Result<Answer, Error> {
    match check {
        Check::Handshake => {
            handshake(address, settings).await?;
            Ok(Answer::Handshake)
        }
        Check::Path(path) => {
            let reply = connection.get(address, path, settings).await?;
            Ok(Answer::Status(reply.status))
        }
    }
}

/// Completes a TLS handshake. A server that wants a certificate of its clients may end it with an alert instead, which only a
/// process that runs sends.
async fn handshake(address: SocketAddr, settings: &Settings) -> Result<(), Error> {
    let stream = socket::connect(address, settings.probe_socket)
        .await
        .map_err(|error| Error::Connect(address, error))?;
    let connector = TlsConnector::from(settings.trust.probing());
    match connector.connect(settings.trust.server_name(), stream).await {
        Ok(mut stream) => {
            // It has answered, whatever becomes of this.
            let _ended = timeout(GOODBYE, stream.shutdown()).await;
            Ok(())
        }
        Err(error) if is_alert(&error) => Ok(()),
        Err(error) => Err(Error::Handshake(address, error)),
    }
}

fn is_alert(error: &io::Error) -> bool {
    let source = error.get_ref().and_then(|source| source.downcast_ref());
    matches!(source, Some(rustls::Error::AlertReceived(_)))
}
