//! All members are unreachable for up to seven seconds (F20), as while a switch reboots. Connections without traffic, which
//! only the kernel's keepalive could end, still work afterwards.

use std::{io, time::Duration};

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::sleep,
};
use tokio_rustls::client::TlsStream;
use trivet_lab::{Fault, Lab, Place};

use crate::support::{SECOND, serving};

const CONNECTIONS: u32 = 40;

/// The kernel's keepalive packets begin when a connection was idle for so long. Connections that are opened over this
/// time meet the fault in every phase.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(5);

/// How long to wait after the fault: the next keepalive packet is due after at most a second and would end a connection.
const SETTLED: Duration = Duration::from_secs(3);

const REQUEST: &[u8] = b"GET /whoami HTTP/1.1\r\nhost: kubernetes\r\nconnection: close\r\n\r\n";

/// The connections that ended so far, by each reason that a fault can give. The proxy's own check of its readiness is one
/// of them.
async fn ended(lab: &Lab) -> [u64; 3] {
    let proxy = lab.proxy();
    [
        proxy.ended("UpstreamTimeout").await,
        proxy.ended("UpstreamReset").await,
        proxy.ended("MemberSilent").await,
    ]
}

async fn is_answered(stream: &mut TlsStream<TcpStream>) -> io::Result<bool> {
    stream.write_all(REQUEST).await?;
    stream.flush().await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer.starts_with(b"HTTP/1.1 200"))
}

fn outlive(fault: Duration) -> Result<()> {
    serving(3, async move |lab| {
        let mut idle = Vec::new();
        for _ in 0..CONNECTIONS {
            idle.push(lab.client().connect().await.context("no connection")?);
            sleep(KEEPALIVE_IDLE / CONNECTIONS).await;
        }
        let before = ended(lab).await;
        lab.strike(Place::Node, Fault::Blackhole).await?;
        sleep(fault).await;
        lab.heal(Place::Node).await?;
        sleep(SETTLED).await;
        assert_eq!(ended(lab).await, before, "connections ended, by reason");
        for (index, stream) in idle.iter_mut().enumerate() {
            let answered = is_answered(stream).await;
            assert!(matches!(answered, Ok(true)), "connection {index}: {answered:?}");
        }
        Ok(())
    })
}

#[test]
fn of_five_seconds() -> Result<()> {
    outlive(5 * SECOND)
}

#[test]
fn of_seven_seconds() -> Result<()> {
    outlive(7 * SECOND)
}
