//! Answers: what an apiserver says to probes and to clients.

use std::{sync::Arc, time::Duration};

use http_body_util::{BodyExt, Channel, Full, channel::Sender, combinators::BoxBody};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::AUTHORIZATION,
};
use tokio::{
    sync::watch,
    time::{interval, sleep},
};
use trivet_lab::behaviour::Behaviour;

use crate::{counters::Counters, server::Stage};

/// The pause between two events of a watch ("ticks").
const TICK: Duration = Duration::from_millis(50);

/// Unsent ticks that a watch keeps.
const TICKS_KEPT: usize = 16;

/// The checks of a Kubernetes 1.34 apiserver's `/readyz?verbose`, in its order; the answer is longer than a packet.
const CHECKS: [&str; 31] = [
    "ping",
    "log",
    "etcd",
    "etcd-readiness",
    "informer-sync",
    "poststarthook/start-apiserver-admission-initializer",
    "poststarthook/generic-apiserver-start-informers",
    "poststarthook/priority-and-fairness-config-consumer",
    "poststarthook/priority-and-fairness-filter",
    "poststarthook/storage-object-count-tracker-hook",
    "poststarthook/start-apiextensions-informers",
    "poststarthook/start-apiextensions-controllers",
    "poststarthook/crd-informer-synced",
    "poststarthook/start-system-namespaces-controller",
    "poststarthook/start-cluster-authentication-info-controller",
    "poststarthook/start-kube-apiserver-identity-lease-controller",
    "poststarthook/start-kube-apiserver-identity-lease-garbage-collector",
    "poststarthook/start-legacy-token-tracking-controller",
    "poststarthook/start-service-ip-repair-controllers",
    "poststarthook/rbac/bootstrap-roles",
    "poststarthook/scheduling/bootstrap-system-priority-classes",
    "poststarthook/priority-and-fairness-config-producer",
    "poststarthook/bootstrap-controller",
    "poststarthook/start-kubernetes-service-cidr-controller",
    "poststarthook/aggregator-reload-proxy-client-cert",
    "poststarthook/start-kube-aggregator-informers",
    "poststarthook/apiservice-status-local-available-controller",
    "poststarthook/apiservice-registration-controller",
    "poststarthook/apiservice-discovery-controller",
    "poststarthook/kube-apiserver-autoregistration",
    "shutdown",
];

type Body = BoxBody<Bytes, hyper::Error>;

/// What an answer depends on.
#[derive(Clone, Debug)]
pub(crate) struct Answerer {
    /// Its name.
    pub(crate) name: Arc<str>,
    /// How it behaves now.
    pub(crate) behaviour: watch::Receiver<Behaviour>,
    /// The stage of its shutdown.
    pub(crate) stage: watch::Receiver<Stage>,
    /// What it counts.
    pub(crate) counters: Arc<Counters>,
}

impl Answerer {
    /// Answers.
    pub(crate) async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let counted = match request.uri().path() {
            "/readyz" => &self.counters.readyz,
            "/livez" => &self.counters.livez,
            _ => &self.counters.requests,
        };
        let _waiting = counted.count();
        let delay = self.behaviour.borrow().delay;
        sleep(delay).await;
        match request.uri().path() {
            "/readyz" | "/livez" if !self.is_told(&request) => {
                text(StatusCode::UNAUTHORIZED, "Unauthorized".to_owned())
            }
            "/readyz" => self.readyz().await,
            "/livez" => text(StatusCode::OK, "ok".to_owned()),
            "/watch" => self.watch(),
            "/echo" => Response::new(request.into_body().boxed()),
            // A request that takes some seconds, such as a list of a large cluster.
            "/slow" => {
                sleep(Duration::from_secs(3)).await;
                text(StatusCode::OK, self.name.to_string())
            }
            "/whoami" => text(StatusCode::OK, self.name.to_string()),
            _ => text(StatusCode::NOT_FOUND, "no such thing".to_owned()),
        }
    }

    /// Whether the caller is authorized to read its health.
    fn is_told(&self, request: &Request<Incoming>) -> bool {
        let behaviour = self.behaviour.borrow();
        let sent = request.headers().get(AUTHORIZATION);
        let is_sent = |token: &String| sent.is_some_and(|sent| *sent == format!("Bearer {token}"));
        behaviour.token.as_ref().is_none_or(is_sent)
    }

    async fn readyz(&self) -> Response<Body> {
        let mut readiness = self.behaviour.borrow().readiness.clone();
        sleep(readiness.delay).await;
        if *self.stage.borrow() != Stage::Serving {
            readiness.status = 500;
            readiness.failing.push("shutdown".to_owned());
        }
        let status = StatusCode::from_u16(readiness.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return text(status, status.to_string()),
            _ => {}
        }
        let lines = CHECKS.iter().map(|check| {
            if readiness.failing.iter().any(|failing| failing == check) {
                format!("[-]{check} failed: reason withheld\n")
            } else {
                format!("[+]{check} ok\n")
            }
        });
        let verdict = if status.is_success() { "passed" } else { "failed" };
        text(
            status,
            lines.collect::<String>() + "readyz check " + verdict + "\n",
        )
    }

    /// An endless stream of ticks.
    fn watch(&self) -> Response<Body> {
        let (sender, body) = Channel::<Bytes, hyper::Error>::new(TICKS_KEPT);
        tokio::spawn(self.clone().tick(sender));
        Response::new(body.boxed())
    }

    async fn tick(mut self, mut sender: Sender<Bytes, hyper::Error>) {
        let tick = Bytes::from(format!("tick {}\n", self.name));
        let mut clock = interval(TICK);
        let mut stage = self.stage.clone();
        loop {
            tokio::select! {
                _ = clock.tick() => {}
                // Dropping the sender ends the answer in an orderly way.
                closing = stage.wait_for(|stage| *stage == Stage::Closing) => return drop(closing),
            }
            if self
                .behaviour
                .wait_for(|behaviour| !behaviour.stalled)
                .await
                .is_err()
                || sender.send_data(tick.clone()).await.is_err()
            {
                return;
            }
        }
    }
}

fn text(status: StatusCode, text: String) -> Response<Body> {
    let body = Full::new(Bytes::from(text)).map_err(|never| match never {});
    let mut response = Response::new(body.boxed());
    *response.status_mut() = status;
    response
}
