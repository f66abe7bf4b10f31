//! The least that a proxy can be: one epoll loop that moves bytes and decides nothing. What it costs is what the kernel
//! asks of every proxy that copies, so it is the floor under each measure.
//!
//! A message costs one `epoll_wait`, one `recv` and one `send`. Half-closes are passed on, because an apiserver's clients
//! may rely on them; nothing else that a proxy owes its users is here.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use crate::cli::Bare;
use crate::process;

/// As large as the proxy's own, so that both copy alike.
const SCRATCH: usize = 512 * 1024;

/// Events that are taken at once.
const EVENTS: usize = 256;

/// The listener's; the sides of the pair at place `n` have `2 n` and `2 n + 1`.
const LISTENER: Token = Token(usize::MAX);

/// Forwards until it is ended.
pub(crate) fn run(bare: &Bare) -> Result<()> {
    process::end_with_parent()?;
    let mut relay = Relay::new(bare).with_context(|| format!("failed to listen on {}", bare.listen))?;
    let mut events = Events::with_capacity(EVENTS);
    loop {
        relay.turn(&mut events).context("failed to relay")?;
    }
}

/// One of a pair's two connections, and what it has said that the other has not taken yet.
struct Side {
    stream: TcpStream,
    readable: bool,
    writable: bool,
    /// Whether the kernel holds its end already: no event will tell of it again.
    closed: bool,
    tail: Vec<u8>,
    end: End,
}

/// How far a side's end has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Ahead,
    Read,
    PassedOn,
}

impl Side {
    fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            readable: false,
            writable: false,
            closed: false,
            tail: Vec::new(),
            end: End::Ahead,
        }
    }

    fn note(&mut self, event: &Event) {
        self.closed |= event.is_read_closed();
        self.readable |= self.closed || event.is_readable() || event.is_error();
        self.writable |= event.is_writable();
    }
}

/// A client and its upstream.
type Pair = [Side; 2];

struct Relay {
    poll: Poll,
    listener: TcpListener,
    upstream: SocketAddr,
    pairs: Vec<Option<Pair>>,
    vacant: Vec<usize>,
    /// Whose slice was full: they have more to move, and no event will say so.
    unfinished: Vec<usize>,
    scratch: Vec<u8>,
}

impl Relay {
    fn new(bare: &Bare) -> io::Result<Self> {
        let mut listener = TcpListener::bind(bare.listen)?;
        let poll = Poll::new()?;
        poll.registry()
            .register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self {
            poll,
            listener,
            upstream: bare.upstream,
            pairs: Vec::new(),
            vacant: Vec::new(),
            unfinished: Vec::new(),
            scratch: vec![0; SCRATCH],
        })
    }

    fn turn(&mut self, events: &mut Events) -> io::Result<()> {
        let patience = (!self.unfinished.is_empty()).then_some(Duration::ZERO);
        match self.poll.poll(events, patience) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let unfinished = std::mem::take(&mut self.unfinished);
        for event in events.iter() {
            match event.token() {
                LISTENER => self.accept()?,
                Token(token) => self.relay(token / 2, Some((token % 2, event))),
            }
        }
        for place in unfinished {
            self.relay(place, None);
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let client = match self.listener.accept() {
                Ok((client, _)) => client,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            client.set_nodelay(true)?;
            let upstream = TcpStream::connect(self.upstream)?;
            upstream.set_nodelay(true)?;
            self.keep([Side::new(client), Side::new(upstream)])?;
        }
    }

    fn keep(&mut self, mut pair: Pair) -> io::Result<()> {
        let place = self.vacant.pop().unwrap_or_else(|| {
            self.pairs.push(None);
            self.pairs.len() - 1
        });
        for (token, side) in (2 * place..).zip(&mut pair) {
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll
                .registry()
                .register(&mut side.stream, Token(token), interest)?;
        }
        if let Some(home) = self.pairs.get_mut(place) {
            *home = Some(pair);
        }
        Ok(())
    }

    fn relay(&mut self, place: usize, news: Option<(usize, &Event)>) {
        let Some(home) = self.pairs.get_mut(place) else {
            return;
        };
        // An event before this one may have ended it.
        let Some(pair) = home else { return };
        if let Some((side, event)) = news {
            let [client, upstream] = &mut *pair;
            if side == 0 { client } else { upstream }.note(event);
        }
        let [client, upstream] = pair;
        // Until it is connected there is nowhere to put what the client says.
        if !upstream.readable && !upstream.writable {
            return;
        }
        let sent = pump(client, upstream, &mut self.scratch);
        let received = pump(upstream, client, &mut self.scratch);
        match (sent, received) {
            (Ok(more), Ok(still_more)) if client.end != End::PassedOn || upstream.end != End::PassedOn => {
                if more || still_more {
                    self.unfinished.push(place);
                }
            }
            _ended => {
                *home = None;
                self.vacant.push(place);
            }
        }
    }
}

/// Moves what there is, but only once as much as `scratch` holds, and says whether there may be more.
fn pump(source: &mut Side, sink: &mut Side, scratch: &mut [u8]) -> io::Result<bool> {
    let mut full = false;
    loop {
        while !source.tail.is_empty() {
            let Some(taken) = ready(sink.stream.write(&source.tail), &mut sink.writable)? else {
                return Ok(false);
            };
            source.tail.drain(..taken);
        }
        match source.end {
            End::Ahead if full || !source.readable => return Ok(full),
            End::Ahead => {}
            End::Read => {
                sink.stream.shutdown(Shutdown::Write)?;
                source.end = End::PassedOn;
                return Ok(false);
            }
            End::PassedOn => return Ok(false),
        }
        let Some(read) = ready(source.stream.read(scratch), &mut source.readable)? else {
            return Ok(false);
        };
        if read == 0 {
            source.end = End::Read;
            continue;
        }
        full = read == scratch.len();
        // What did not fill it was all there was.
        source.readable = full || source.closed;
        let said = scratch.get(..read).unwrap_or_default();
        let taken = ready(sink.stream.write(said), &mut sink.writable)?.unwrap_or(0);
        source
            .tail
            .extend_from_slice(said.get(taken..).unwrap_or_default());
    }
}

/// None where the kernel lets us wait, and then the side is ready no more.
fn ready(result: io::Result<usize>, side: &mut bool) -> io::Result<Option<usize>> {
    match result {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            *side = false;
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
