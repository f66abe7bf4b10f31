//! The flows of one worker.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use trivet_instruments::{Client, eventually};
use trivet_testbed::Host;

use super::bulk::{Bulk, Pod};
use super::flow::{Begun, Flow, Kind, Route, Seen};
use super::kubectl::Kubectl;
use super::pace::{Limits, Pace};
use super::{Flows, informers, requests};
use crate::installation::{APISERVER, Installation};
use crate::real_client::RealClient;
use crate::streams::Way;

/// A gibibyte is promised in each direction.
const BULK: u64 = 1 << 30;

/// More than all buffers on the way hold: a slow reader that is told to end reads all that was sent while it was slow.
const TAIL: u64 = 32 << 20;

/// The pod of the flows through the proxy.
const POD: &str = "flow";

/// The pod of the flows beside it.
const CONTROL_POD: &str = "control";

/// kubectl starts twelve times at once on a machine of two cores.
const OPENED: Duration = Duration::from_secs(60);

/// The flows of one worker.
pub(super) struct Worker {
    name: String,
    informers: RealClient,
    kubectl: [(Route, Kubectl); 2],
    others: Vec<(Kind, Route, Begun)>,
}

/// What the flows of all workers obey.
#[derive(Debug, Clone)]
pub(super) struct Controls {
    pub(super) bulk: watch::Receiver<Pace>,
    pub(super) slow: watch::Receiver<Pace>,
    pub(super) stop: CancellationToken,
}

impl Worker {
    /// Starts them on `host`, through its proxy at `proxy`; all are open when this returns.
    pub(super) async fn start(
        installation: &Installation,
        host: &Host,
        proxy: SocketAddr,
        controls: &Controls,
    ) -> Result<Self> {
        let pod = pods(installation, host).await?;
        let client = installation.client()?.at(proxy);
        let requests = requests::start(host, client.clone(), controls.stop.clone()).await?;
        // The master that these have too: another one may be slower at a moment.
        let master = installation.cluster().host(&requests.server)?;
        let direct = SocketAddr::from((master.ipv4(), APISERVER));
        let beside = requests::start(host, client.clone().at(direct), controls.stop.clone()).await?;
        let mut others = vec![
            (Kind::Requests, Route::Proxy, requests),
            (Kind::Requests, Route::Direct, beside),
        ];
        others.extend(bulk(host, &client, &pod, controls).await?);

        let kubeconfig = installation.cluster().kubeconfig()?;
        let way = |through| Way {
            kubeconfig: kubeconfig.clone(),
            through,
            namespace: pod.namespace.clone(),
        };
        let worker = Self {
            name: host.name().to_string(),
            informers: RealClient::start(installation, host, &pod.namespace).await?,
            kubectl: [
                (Route::Proxy, Kubectl::open(host, &way(proxy), POD)),
                (Route::Direct, Kubectl::open(host, &way(direct), CONTROL_POD)),
            ],
            others,
        };
        eventually(OPENED, "every flow open", async || worker.is_whole()).await?;
        Ok(worker)
    }

    /// Fails if any of them has ended. client-go's informers tell only at their end.
    pub(super) fn is_whole(&self) -> Result<()> {
        for (kind, _, flow) in &self.others {
            ensure!(!flow.has_ended(), "{}: {kind} has ended", self.name);
        }
        let mut kubectl = self.kubectl.iter();
        kubectl.try_for_each(|(_, kubectl)| kubectl.is_whole().context(self.name.clone()))
    }

    /// Waits for the end of all of them. They must have been told to end.
    pub(super) async fn finish(self) -> Vec<Flow> {
        let mut flows = Vec::new();
        let worker = self.name;
        let mut add = |kind, route, seen| {
            flows.push(Flow {
                worker: worker.clone(),
                kind,
                route,
                seen,
            });
        };
        for (route, kubectl) in self.kubectl {
            for (kind, seen) in kubectl.finish().await {
                add(kind, route, seen);
            }
        }
        let told = self.informers.finish().await;
        let seen = told.map_or_else(|error| Seen::lost(&error), |told| informers::seen(&told));
        add(Kind::Informers, Route::Proxy, seen);
        for (kind, route, flow) in self.others {
            add(kind, route, flow.finish().await);
        }
        flows
    }
}

/// The pods of a worker's flows, in a namespace of their own.
async fn pods(installation: &Installation, host: &Host) -> Result<Pod> {
    let namespace = Flows::namespace(host);
    installation.fresh_namespace(&namespace).await?;
    let names = [POD, CONTROL_POD].map(str::to_owned);
    installation.run_pods(&namespace, &names, host).await?;
    Ok(Pod {
        token: installation.token_for_pods(&namespace).await?,
        namespace,
        name: POD.to_owned(),
    })
}

async fn bulk(
    host: &Host,
    client: &Client,
    pod: &Pod,
    controls: &Controls,
) -> Result<[(Kind, Route, Begun); 3]> {
    let stream = |number: u64, pace: &watch::Receiver<Pace>, enough| Bulk {
        client: client.clone(),
        pod: pod.clone(),
        // No two streams of the cluster carry the same bytes.
        seed: u64::from(u32::from(host.ipv4())) << 2 | number,
        limits: Limits {
            pace: pace.clone(),
            enough,
        },
    };
    let download = stream(1, &controls.bulk, BULK).download(host).await?;
    let upload = stream(2, &controls.bulk, BULK).upload(host).await?;
    let slow = stream(3, &controls.slow, TAIL).download(host).await?;
    Ok([
        (Kind::Download, Route::Proxy, download),
        (Kind::Upload, Route::Proxy, upload),
        (Kind::SlowReader, Route::Proxy, slow),
    ])
}
