//! One client's connection, from its accept to its end, which is counted and logged.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{net::TcpStream, time::Instant};
use tracing::debug;

use crate::{
    balance::Event,
    ending::Ending,
    listener::slots::SilentClient,
    metrics::{Metrics, members::Series},
    net::socket,
    open::{self, Opened},
    relay::{Pair, Summary, TailBudget},
    upstream::Upstreams,
};

/// A client that was just accepted.
#[derive(Debug)]
pub struct Accepted {
    /// The connection.
    pub client: TcpStream,
    /// Where it comes from.
    pub peer: SocketAddr,
    /// The listener that accepted it.
    pub listener: SocketAddr,
    /// Its slot while it says nothing.
    pub silent: SilentClient,
    /// Where the bytes count that the proxy keeps for it.
    pub tails: Arc<TailBudget>,
}

/// Serves a client to its end.
pub async fn serve(accepted: Accepted, upstreams: Arc<Upstreams>) {
    let Accepted {
        client,
        peer,
        listener,
        silent,
        tails,
    } = accepted;
    let mut record = Record::new(peer, listener, Arc::clone(upstreams.metrics()));
    // What opening needs ends with it: an old document is not kept for as long as a connection lasts, nor a byte of memory.
    let (mut pair, guard) = {
        let Some(settings) = upstreams.settings() else {
            return record.refuse(&client, Ending::NoUpstream);
        };
        // Boxed, because a task is as large as its largest step.
        let opened = match Box::pin(open::open(&client, silent, &upstreams, &settings)).await {
            Ok(opened) => opened,
            Err(ending) => return record.refuse(&client, ending),
        };
        record.opened(&opened);
        let Opened { upstream, unsent, .. } = opened;
        (Pair::new(client, upstream.stream, unsent, &tails), upstream.guard)
    };
    let summary = pair.run(&guard.close_signal, upstreams.metrics()).await;
    if summary.ending.resets() {
        socket::reset_on_close(pair.client());
        socket::reset_on_close(pair.upstream());
    }
    if summary.ending == Ending::UpstreamTimeout {
        upstreams.observe(
            Event::OpenOverdue(guard.id()),
            "the kernel gave up on a client's connection",
        );
    }
    record.relayed(summary);
}

/// The record of one connection. Its drop counts the connection and writes one line to the log, also when the task is
/// aborted.
struct Record {
    peer: SocketAddr,
    listener: SocketAddr,
    started: Instant,
    given: Option<Given>,
    summary: Summary,
    metrics: Arc<Metrics>,
}

/// The upstream that a client was given to, and how.
struct Given {
    series: Arc<Series>,
    address: SocketAddr,
    first_byte: Option<Duration>,
    hedged: bool,
}

impl Record {
    fn new(peer: SocketAddr, listener: SocketAddr, metrics: Arc<Metrics>) -> Self {
        metrics.admitted();
        let summary = Summary {
            ending: Ending::Aborted,
            sent: 0,
            received: 0,
        };
        Self {
            peer,
            listener,
            started: Instant::now(),
            given: None,
            summary,
            metrics,
        }
    }

    fn opened(&mut self, opened: &Opened) {
        let series = Arc::clone(opened.upstream.guard.series());
        series.opened.inc();
        // The bytes that the relay moves are counted there.
        self.metrics.relayed(opened.sent, 0);
        self.summary.sent = opened.sent;
        self.given = Some(Given {
            series,
            address: opened.upstream.address,
            first_byte: opened.answered.then(|| self.started.elapsed()),
            hedged: opened.hedged,
        });
    }

    fn relayed(&mut self, summary: Summary) {
        let sent = self.summary.sent + summary.sent;
        self.summary = Summary { sent, ..summary };
    }

    fn refuse(&mut self, client: &TcpStream, ending: Ending) {
        // A client that has closed without a word gets the same.
        if ending != Ending::Finished {
            socket::reset_on_close(client);
        }
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
        self.metrics.left();
        self.metrics.ended(ending);
        let given = self.given.as_ref();
        // Fields without a value are left out of the line.
        debug!(
            client = %self.peer,
            listener = %self.listener,
            member = given.map(|given| given.series.member.as_str()),
            upstream = given.map(|given| tracing::field::display(given.address)),
            reason = ending.as_str(),
            sent,
            received,
            milliseconds = self.started.elapsed().as_millis(),
            first_byte_milliseconds = given.and_then(|given| Some(given.first_byte?.as_millis())),
            hedged = given.map(|given| given.hedged),
            "connection ended"
        );
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::{listener::slots::Slots, upstream::fixture};

    #[tokio::test]
    async fn the_task_of_a_connection_is_small() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let _far_end = TcpStream::connect(address).await.unwrap();
        let (client, peer) = listener.accept().await.unwrap();
        let (upstreams, _) = fixture::proven([address; 2]);
        let slots = Arc::new(Slots::default());
        slots.set_limit(1);
        let accepted = Accepted {
            client,
            peer,
            listener: address,
            silent: slots.admit(0).unwrap(),
            tails: Arc::default(),
        };
        // A third of what an idle connection costs in all; the rest are tokio's entries for its two sockets and the guard's.
        let size = size_of_val(&serve(accepted, upstreams));
        assert!(size <= 768, "{size} bytes");
    }
}
