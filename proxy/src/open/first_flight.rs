//! The client's first flight: what it says before an upstream answers.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::net::TcpStream;

use super::{
    contenders,
    hello::{self, Kind},
    walk::{Connected, Walk},
};
use crate::ending::Ending;

/// Room for a usual ClientHello.
const USUAL: usize = 2048;

/// What the client began with.
#[derive(Debug)]
pub enum Flight {
    /// A ClientHello that may be sent more than once.
    Hello(Bytes),
    /// Something that may be sent once only, perhaps nothing.
    Other(Bytes),
}

/// Reads the client's first flight, and says for which upstream. A server that speaks first ends the reading; one that
/// ends before it was told a word, as a listener that closes does to those in its queue, leaves its place to the next,
/// and so does one whose connections we end ourselves.
pub async fn read(
    client: &TcpStream,
    first: Connected,
    walk: &mut Walk,
) -> Result<(Flight, Connected), Ending> {
    let mut upstream = first;
    let mut flight = BytesMut::with_capacity(USUAL);
    let mut word = [0];
    loop {
        tokio::select! {
            biased;
            ready = client.readable() => ready.map_err(|_error| Ending::ClientLeft)?,
            ending = upstream.guard.close_signal.ended() => {
                upstream = replace(upstream, ending, walk).await?;
                continue;
            }
            spoken = upstream.stream.peek(&mut word) => {
                let ended = match spoken {
                    Ok(0) => io::ErrorKind::UnexpectedEof.into(),
                    Ok(_) => return Ok((Flight::Other(flight.freeze()), upstream)),
                    Err(error) => error,
                };
                let Some(next) = walk.next().await else {
                    return match ended.kind() {
                        // Nobody is left, and the relay passes the end on.
                        io::ErrorKind::UnexpectedEof => Ok((Flight::Other(flight.freeze()), upstream)),
                        _ => Err(Ending::UpstreamReset),
                    };
                };
                contenders::note_loss(&upstream, &ended, walk.upstreams());
                upstream = next;
                continue;
            }
        }
        match client.try_read_buf(&mut flight) {
            // A half-close without a word, or in the middle of a word: the relay passes it on.
            Ok(0) => return Ok((Flight::Other(flight.freeze()), upstream)),
            Ok(_) => match hello::classify(&flight) {
                Kind::Incomplete => flight.reserve(USUAL),
                Kind::Replayable => {
                    walk.start_over(upstream.guard.id());
                    return Ok((Flight::Hello(flight.freeze()), upstream));
                }
                Kind::Other => return Ok((Flight::Other(flight.freeze()), upstream)),
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_reset) => return Err(Ending::ClientLeft),
        }
    }
}

/// Gives a client whose upstream is cut or drained another: it has lost nothing yet, however long ago it came.
async fn replace(upstream: Connected, ending: Ending, walk: &mut Walk) -> Result<Connected, Ending> {
    if ending == Ending::ProxyDrained {
        return Err(ending);
    }
    walk.start_over(upstream.guard.id());
    // Whoever waits for its connections to end need not wait for this.
    drop(upstream);
    walk.next().await.ok_or(ending)
}
