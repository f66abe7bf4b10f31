//! Whoever hangs while it reads metrics keeps neither kubelet nor other scrapers from asking.

use std::{io, time::Duration};

use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::{Instant, sleep, timeout},
};

use crate::process::Proxy;

/// More than the proxy talks with at once.
const SCRAPERS: usize = 20;

/// A question after the other, together for far more than both sides' buffers hold.
const QUESTIONS: usize = 500;

/// A conversation's limit, and a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(40);

const QUESTION: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: proxy\r\n\r\n";

/// Asks much and never reads.
async fn hanging(proxy: &Proxy) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4096)?;
    // The proxy's buffer is as small as the segments it may send.
    SockRef::from(&socket).set_tcp_mss(536)?;
    let mut stream = socket.connect(proxy.metrics).await?;
    stream.write_all(&QUESTION.repeat(QUESTIONS)).await?;
    Ok(stream)
}

/// The first words of an answer; an error where there is none.
async fn scrape(proxy: &Proxy) -> io::Result<String> {
    let scraped = async {
        let mut stream = TcpStream::connect(proxy.metrics).await?;
        stream.write_all(QUESTION).await?;
        let mut words = [0; 15];
        stream.read_exact(&mut words).await?;
        Ok(String::from_utf8_lossy(&words).into_owned())
    };
    timeout(Duration::from_secs(5), scraped).await?
}

#[tokio::test]
async fn scrapers_that_hang_cost_no_probe_and_lose_their_places() {
    let proxy = Proxy::start().await;
    let mut hung = Vec::new();
    for _ in 0..SCRAPERS {
        hung.push(hanging(&proxy).await);
    }
    let refused = scrape(&proxy).await;
    assert!(refused.is_err(), "there is a place left: {refused:?}");
    for _ in 0..10 {
        let told = proxy.probe("live").await;
        assert!(told.status.success(), "{told:?}");
    }
    let deadline = Instant::now() + PATIENCE;
    let words = loop {
        match scrape(&proxy).await {
            Ok(words) => break words,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(words, "HTTP/1.1 200 OK");
    drop(hung);
}
