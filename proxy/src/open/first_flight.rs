//! The client's first flight: what it says before an upstream answers.
//!
//! No upstream is dialled before it, so that a client that says nothing, as a TCP check does, costs no apiserver a
//! connection. A server that speaks first is therefore not served: the server of TLS and of HTTP waits for its client.

use std::{io, pin::pin, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::{io::Interest, net::TcpStream, time::error::Elapsed};

use super::hello::{self, Kind};
use crate::{clock::event_loop::LoopClock, ending::Ending};

/// A client whose first flight is not complete after this time is ended. Clients of Kubernetes send their ClientHello at
/// once, and give up a handshake after 10 s themselves.
pub const SPEAK_WITHIN: Duration = Duration::from_secs(10);

/// Room for a usual ClientHello.
const USUAL: usize = 2048;

/// What the client begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flight {
    /// A ClientHello that may be sent more than once.
    Hello(Bytes),
    /// Something that may be sent once only.
    Other(Bytes),
}

/// What a client has said before an upstream has answered. It outlives a read that is dropped half way.
#[derive(Debug)]
pub struct Heard {
    partial: BytesMut,
    flight: Option<Flight>,
}

impl Heard {
    /// It has said this much.
    pub fn new(said: &[u8]) -> Self {
        let mut partial = BytesMut::with_capacity(USUAL.max(said.len()));
        partial.extend_from_slice(said);
        Self {
            partial,
            flight: None,
        }
    }

    /// All that it has said.
    pub fn bytes(&self) -> Bytes {
        match &self.flight {
            Some(Flight::Hello(bytes) | Flight::Other(bytes)) => bytes.clone(),
            None => Bytes::copy_from_slice(&self.partial),
        }
    }

    /// The flight, if it is complete. Where the client says no more, whatever it has said is.
    fn complete(&mut self, is_over: bool) -> Option<Flight> {
        if self.partial.is_empty() {
            return None;
        }
        let kind = hello::classify(&self.partial);
        let complete: fn(Bytes) -> Flight = match kind {
            Kind::Incomplete if !is_over => return None,
            Kind::Incomplete | Kind::Other => Flight::Other,
            Kind::Replayable => Flight::Hello,
        };
        let flight = complete(std::mem::take(&mut self.partial).freeze());
        self.flight = Some(flight.clone());
        Some(flight)
    }
}

/// Reads the client's first flight.
pub async fn read(client: &TcpStream, heard: &mut Heard, clock: &LoopClock) -> Result<Flight, Ending> {
    match clock.timeout(SPEAK_WITHIN, pin!(read_all(client, heard))).await {
        Ok(result) => result,
        Err(Elapsed { .. }) => Err(Ending::ClientSilent),
    }
}

async fn read_all(client: &TcpStream, heard: &mut Heard) -> Result<Flight, Ending> {
    if let Some(flight) = &heard.flight {
        return Ok(flight.clone());
    }
    let mut is_over = false;
    loop {
        if let Some(flight) = heard.complete(is_over) {
            return Ok(flight);
        }
        heard.partial.reserve(USUAL);
        client.readable().await.map_err(|_error| Ending::ClientLeft)?;
        match client.try_read_buf(&mut heard.partial) {
            // A TCP check: the client closes without a word.
            Ok(0) if heard.partial.is_empty() => return Err(Ending::Finished),
            // The relay passes the half-close on.
            Ok(0) => is_over = true,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_reset) => return Err(Ending::ClientLeft),
        }
    }
}

/// Waits until the client has left: it has closed its direction or reset the connection. Bytes that it sends meanwhile
/// stay where they are, and do not end the wait.
pub async fn gone(client: &TcpStream) {
    // `PRIORITY` stands for the end of reading without readability, which would be ready at once and for ever.
    drop(client.ready(Interest::PRIORITY | Interest::ERROR).await);
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::AsyncWriteExt,
        net::TcpListener,
        time::{Instant, timeout},
    };

    use super::*;

    /// A client's end and the proxy's.
    async fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (near, listener.accept().await.unwrap().0)
    }

    async fn read_from(client: &TcpStream) -> Result<Flight, Ending> {
        read(client, &mut Heard::new(b""), &LoopClock::default()).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_says_nothing_is_ended_after_ten_seconds() {
        let (_client, accepted) = connected().await;
        let started = Instant::now();
        assert_eq!(read_from(&accepted).await, Err(Ending::ClientSilent));
        assert_eq!(started.elapsed().as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn so_is_one_that_stops_in_the_middle_of_its_hello() {
        let (mut client, accepted) = connected().await;
        client.write_all(&[22, 3, 1, 2]).await.unwrap();
        assert_eq!(read_from(&accepted).await, Err(Ending::ClientSilent));
    }

    #[tokio::test]
    async fn a_client_that_closes_without_a_word_is_done() {
        let (client, accepted) = connected().await;
        drop(client);
        assert_eq!(read_from(&accepted).await, Err(Ending::Finished));
    }

    #[tokio::test]
    async fn a_half_close_in_the_middle_of_a_hello_is_passed_on() {
        let (mut client, accepted) = connected().await;
        client.write_all(&[22, 3, 1, 2]).await.unwrap();
        client.shutdown().await.unwrap();
        let flight = read_from(&accepted).await.unwrap();
        assert_eq!(flight, Flight::Other(Bytes::from_static(&[22, 3, 1, 2])));
    }

    #[tokio::test]
    async fn a_client_that_leaves_is_noticed_and_one_that_goes_on_talking_is_not() {
        use futures::FutureExt;

        let (mut client, accepted) = connected().await;
        client.write_all(b"first").await.unwrap();
        assert!(matches!(read_from(&accepted).await, Ok(Flight::Other(_))));
        client.write_all(b"more").await.unwrap();
        accepted.readable().await.unwrap();
        let mut leaving = std::pin::pin!(gone(&accepted));
        assert_eq!(leaving.as_mut().now_or_never(), None);
        drop(client);
        // One future all the time: what wakes it is the client's end.
        timeout(Duration::from_secs(20), leaving).await.unwrap();
    }
}
