//! Clients of the plain services, with blocking sockets: the least that a client can cost.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use trivet_testbed::Stopwatch;

use super::Outcome;
use crate::server::{ECHO, LIST, RETURN, SEND};

/// What is read at once.
const CHUNK: usize = 256 * 1024;

/// Rounds before the clock starts: caches and the kernel's estimates settle.
const WARM_UP: u64 = 500;

/// Streams of the bursts, and the time between two bursts of one: 4 Gb/s in all.
const STREAMS: u32 = 4;
const BURST_EVERY: Duration = Duration::from_micros(167_772);

/// No answer of this server takes so long.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LONGEST_WAIT))?;
    Ok(stream)
}

#[expect(clippy::cast_precision_loss, reason = "some gigabytes")]
pub(super) fn bulk(address: SocketAddr, bytes: u64) -> Result<Outcome> {
    let mut stream = connect(address)?;
    stream.write_all(&[SEND])?;
    let mut buffer = vec![0; CHUNK];
    let watch = Stopwatch::start();
    fetch(&mut stream, bytes, &mut buffer)?;
    Ok(Outcome::of_amount(watch.elapsed().as_secs_f64(), bytes as f64))
}

fn fetch(stream: &mut TcpStream, bytes: u64, buffer: &mut [u8]) -> io::Result<()> {
    stream.write_all(&bytes.to_be_bytes())?;
    let mut left = bytes;
    while left > 0 {
        match stream.read(buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => left = left.saturating_sub(read as u64),
        }
    }
    Ok(())
}

pub(super) fn echo(address: SocketAddr, rounds: u64) -> Result<Outcome> {
    let mut stream = connect(address)?;
    stream.write_all(&[RETURN])?;
    let mut message = [7; 64];
    let mut round = || {
        let watch = Stopwatch::start();
        stream.write_all(&message)?;
        stream.read_exact(&mut message)?;
        Ok::<_, io::Error>(watch.elapsed().as_secs_f64())
    };
    for _ in 0..WARM_UP {
        round()?;
    }
    let watch = Stopwatch::start();
    let waits = (0..rounds).map(|_| round()).collect::<io::Result<Vec<_>>>()?;
    Ok(Outcome::of_waits(watch.elapsed().as_secs_f64(), &waits))
}

pub(super) fn churn(address: SocketAddr, count: u64) -> Result<Outcome> {
    let watch = Stopwatch::start();
    let mut waits = Vec::new();
    for _ in 0..count {
        let one = Stopwatch::start();
        say_a_byte(address)?;
        waits.push(one.elapsed().as_secs_f64());
    }
    Ok(Outcome::of_waits(watch.elapsed().as_secs_f64(), &waits))
}

fn say_a_byte(address: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = connect(address)?;
    stream.write_all(&[ECHO])?;
    stream.read_exact(&mut [0])?;
    Ok(stream)
}

#[expect(clippy::cast_precision_loss, reason = "some thousand connections")]
pub(super) fn idle(address: SocketAddr, connections: u64) -> Result<Outcome> {
    let watch = Stopwatch::start();
    let open = (0..connections)
        .map(|index| say_a_byte(address).with_context(|| format!("connection {index} failed")))
        .collect::<Result<Vec<_>>>()?;
    let seconds = watch.elapsed().as_secs_f64();
    println!("open");
    // The driver closes our input once it has looked at the proxy.
    io::copy(&mut io::stdin(), &mut io::sink())?;
    drop(open);
    Ok(Outcome::of_amount(seconds, connections as f64))
}

#[expect(clippy::cast_precision_loss, reason = "some gigabytes")]
pub(super) fn bursts(address: SocketAddr, seconds: u64) -> Result<Outcome> {
    let watch = Stopwatch::start();
    let streams: Vec<_> = (0..STREAMS)
        .map(|index| thread::spawn(move || burst_stream(address, Duration::from_secs(seconds), index)))
        .collect();
    let mut lists = 0;
    for stream in streams {
        lists += stream
            .join()
            .map_err(|_panic| io::Error::other("a stream's thread panicked"))??;
    }
    let bytes = lists * LIST as u64;
    Ok(Outcome::of_amount(watch.elapsed().as_secs_f64(), bytes as f64))
}

/// One burst each turn, the streams' turns evenly apart; how many there were.
fn burst_stream(address: SocketAddr, limit: Duration, index: u32) -> io::Result<u64> {
    let mut stream = connect(address)?;
    stream.write_all(&[SEND])?;
    let mut buffer = vec![0; CHUNK];
    let watch = Stopwatch::start();
    let mut turn = BURST_EVERY * index / STREAMS;
    let mut lists = 0;
    while turn < limit {
        thread::sleep(turn.saturating_sub(watch.elapsed()));
        fetch(&mut stream, LIST as u64, &mut buffer)?;
        lists += 1;
        turn += BURST_EVERY;
    }
    Ok(lists)
}
