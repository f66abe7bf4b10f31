//! Opening: from an accepted client to the upstream that serves it, within the client's one connection.

pub mod contenders;
pub mod deadline;
pub mod first_flight;
pub mod hello;
pub mod race;
pub mod walk;

use std::sync::Arc;

use bytes::Bytes;
use tokio::net::TcpStream;

use self::{
    contenders::Winner,
    first_flight::Flight,
    walk::{Connected, Walk},
};
use crate::{ending::Ending, settings::Settings, upstream::Upstreams};

/// A client's upstream, and the client's bytes that it was not sent yet.
#[derive(Debug)]
pub struct Opened {
    /// The upstream.
    pub upstream: Connected,
    /// Bytes read from the client and not yet written.
    pub unsent: Bytes,
    /// Bytes of the client that this upstream was sent already. What was sent to other upstreams too does not count.
    pub sent: u64,
    /// Whether the upstream has answered already.
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
    let (flight, first) = first_flight::read(client, first, &mut walk).await?;
    match flight {
        Flight::Hello(hello) => {
            let Winner { upstream, hedged } =
                contenders::first_to_answer(client, &hello, first, &mut walk).await?;
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
