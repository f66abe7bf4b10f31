//! One client's connection from its accept to its counted end.

use std::{net::SocketAddr, sync::Arc};

use tokio::{net::TcpStream, time::Instant};
use tracing::debug;

use crate::{
    balance::Event,
    ending::Ending,
    metrics::Metrics,
    net::socket,
    open,
    relay::{Pair, Summary},
    upstream::Upstreams,
};

/// Serves a client to its end.
pub async fn serve(client: TcpStream, peer: SocketAddr, upstreams: Arc<Upstreams>) {
    let mut record = Record::new(peer, Arc::clone(upstreams.metrics()));
    let Some(settings) = upstreams.settings() else {
        return record.refuse(&client, Ending::NoUpstream);
    };
    if let Err(error) = client.set_nodelay(true) {
        debug!(%peer, %error, "failed to set TCP_NODELAY");
    }
    // Boxed: a task is as large as its largest step, and this one is over long before the connection is.
    let opened = match Box::pin(open::open(&client, &upstreams, &settings)).await {
        Ok(opened) => opened,
        Err(ending) => return record.refuse(&client, ending),
    };
    let claim = opened.upstream.claim;
    record.opened(upstreams.name(claim.id()));
    let mut pair = Pair::new(client, opened.upstream.stream, opened.unsent);
    // The document of the time it opened has no say in how it goes on.
    drop(settings);
    let summary = pair.run(&claim.tether).await;
    if summary.ending.resets() {
        socket::reset_on_close(pair.client());
        socket::reset_on_close(pair.upstream());
    }
    if summary.ending == Ending::UpstreamTimeout {
        upstreams.observe(
            Event::Unanswered(claim.id()),
            "the kernel gave up on a client's connection",
        );
    }
    record.summary = summary;
}

/// Counts the connection's end when it is dropped, however that comes.
struct Record {
    peer: SocketAddr,
    member: String,
    started: Instant,
    summary: Summary,
    metrics: Arc<Metrics>,
}

impl Record {
    fn new(peer: SocketAddr, metrics: Arc<Metrics>) -> Self {
        let summary = Summary {
            ending: Ending::Aborted,
            sent: 0,
            received: 0,
        };
        Self {
            peer,
            member: String::new(),
            started: Instant::now(),
            summary,
            metrics,
        }
    }

    fn opened(&mut self, member: String) {
        self.metrics.connected(&member);
        self.member = member;
    }

    fn refuse(&mut self, client: &TcpStream, ending: Ending) {
        socket::reset_on_close(client);
        self.summary.ending = ending;
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let Summary {
            ending,
            sent,
            received,
        } = self.summary;
        self.metrics.ended(ending);
        self.metrics.relayed(sent, received);
        let Self { peer, member, .. } = self;
        let milliseconds = self.started.elapsed().as_millis();
        debug!(%peer, member, reason = ending.word(), sent, received, milliseconds, "connection ended");
    }
}
