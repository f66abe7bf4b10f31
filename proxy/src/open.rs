//! Opening: from an accepted client to the upstream that serves it, all inside the client's own connection.

pub mod deadline;
pub mod flight;
pub mod hello;
pub mod walk;

use std::sync::Arc;

use bytes::Bytes;
use tokio::net::TcpStream;

use self::{
    flight::{Flight, Winner},
    walk::{Connected, Walk},
};
use crate::{ending::Ending, settings::Settings, upstream::Upstreams};

/// A client's upstream, and what the client has said that the upstream was not told yet.
#[derive(Debug)]
pub struct Opened {
    /// The upstream.
    pub upstream: Connected,
    /// Bytes read from the client and not yet written.
    pub unsent: Bytes,
    /// Bytes of the client that this upstream was sent already; what others were sent too is not the client's.
    pub sent: u64,
    /// Whether the upstream has said something already.
    pub answered: bool,
    /// Whether the client's first flight was sent to more than one upstream because one left it unanswered.
    pub hedged: bool,
}

/// Finds the upstream for this client: the first that connects and, where the client begins with a ClientHello, the
/// first that answers it.
pub async fn open(
    client: &TcpStream,
    upstreams: &Arc<Upstreams>,
    settings: &Arc<Settings>,
) -> Result<Opened, Ending> {
    upstreams.earn_hedge();
    let mut walk = Walk::new(upstreams, settings);
    let first = walk.next().await.ok_or(Ending::NoUpstream)?;
    let (flight, first) = flight::read(client, first, &mut walk).await?;
    match flight {
        Flight::Hello(hello) => {
            let Winner { upstream, hedged } = flight::race(client, &hello, first, &mut walk).await?;
            Ok(Opened {
                upstream,
                unsent: Bytes::new(),
                sent: hello.len() as u64,
                answered: true,
                hedged,
            })
        }
        Flight::Other(unsent) => Ok(Opened {
            upstream: first,
            unsent,
            sent: 0,
            answered: false,
            hedged: false,
        }),
    }
}
