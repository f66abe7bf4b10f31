//! A log that nobody reads, or nobody can read, costs lines of the log and nothing else.

use std::{
    io::{BufRead, BufReader, Read, pipe},
    time::Duration,
};

use tokio::{task::spawn_blocking, time::timeout};

use crate::process::Proxy;

/// Each says several lines at level trace; together far more than the 64 KiB that a pipe holds.
const CLIENTS: usize = 500;

/// For the drain, the last lines, and a machine that does much else.
const END: Duration = Duration::from_secs(20);

async fn serves(proxy: &Proxy) {
    for client in 0..CLIENTS {
        let said = client.to_be_bytes();
        let heard = timeout(Duration::from_secs(10), proxy.ask(&said)).await;
        assert_eq!(heard.unwrap().unwrap(), said);
    }
}

#[tokio::test]
async fn a_log_that_nobody_reads_stops_nothing() {
    let (mut reader, writer) = pipe().unwrap();
    let mut proxy = Proxy::start_talkative(writer).await;
    serves(&proxy).await;
    assert!(proxy.terminate(END).await.success());
    let mut read = Vec::new();
    reader.read_to_end(&mut read).unwrap();
    let text = String::from_utf8_lossy(&read);
    assert!(!text.contains("drained"), "there was room for the last line");
}

#[tokio::test]
async fn a_log_whose_reader_has_gone_stops_nothing() {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let mut proxy = Proxy::start_talkative(writer).await;
    serves(&proxy).await;
    assert!(proxy.terminate(END).await.success());
}

#[tokio::test]
async fn the_last_lines_are_in_the_log_when_the_proxy_has_ended() {
    let (mut reader, writer) = pipe().unwrap();
    let mut proxy = Proxy::start_logging(writer).await;
    assert!(proxy.terminate(END).await.success());
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert!(text.lines().last().unwrap().contains("drained"), "{text}");
}

/// What is told when nobody is left, and how long that may take: it must have been so for eight seconds.
const GONE: &str = "NoMemberAnswers";
const TOLD: Duration = Duration::from_secs(20);

#[tokio::test]
async fn that_no_member_answers_is_said_once_with_each_and_why() {
    let (reader, writer) = pipe().unwrap();
    let mut proxy = Proxy::start_logging(writer).await;
    let mut lines = BufReader::new(reader).lines().map(Result::unwrap);
    // The echo is no apiserver, and so never a member that answers.
    let reading = spawn_blocking(move || (lines.find(|line| line.contains(GONE)), lines));
    let (told, rest) = timeout(TOLD, reading).await.unwrap().unwrap();
    assert!(told.unwrap().contains(": echo Unready "));
    assert!(proxy.terminate(END).await.success());
    assert_eq!(rest.filter(|line| line.contains(GONE)).count(), 0);
}
