//! One life of a stream: kubectl is started, lines go through it, and each that comes back is compared.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{interval, timeout};
use trivet_testbed::Host;

use super::{Kind, Stream, Way};

/// From one line to the next.
const PAUSE: Duration = Duration::from_millis(100);

/// Lines at a time through a forwarded port: 16 KiB, more than one frame of whatever carries it.
const BLOCK: u64 = 256;

/// The pod's port with the echo.
const ECHO: &str = ":8080";

/// How long to wait for kubectl's message about the end of a stream.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Runs one life of a stream and returns how it ended. Fails only if a wrong byte came.
pub(super) async fn live(host: &Host, way: &Way, stream: &Stream, line: impl Fn()) -> Result<String> {
    let mut kubectl = match start(host, way, stream) {
        Ok(kubectl) => kubectl,
        Err(error) => return Ok(format!("{error:#}")),
    };
    let (Some(stdout), Some(mut stderr)) = (kubectl.stdout.take(), kubectl.stderr.take()) else {
        bail!("kubectl has no output");
    };
    let end = match stream.kind {
        Kind::Exec => {
            let stdin = kubectl.stdin.take().context("kubectl has no input")?;
            echo(stdout, stdin, 1, line).await?
        }
        Kind::Logs => compare(stdout, Next::AsItBegins, line).await?,
        Kind::PortForward => match forwarded(stdout).await {
            Ok((tcp, _keeps_it_open)) => {
                let (read, write) = tcp.into_split();
                echo(read, write, BLOCK, line).await?
            }
            Err(error) => format!("{error:#}"),
        },
    };
    let mut said = String::new();
    // kubectl may keep running without the stream, and then prints nothing.
    drop(timeout(LAST_WORDS, stderr.read_to_string(&mut said)).await);
    Ok(format!("{end}: {}", said.trim()))
}

fn start(host: &Host, way: &Way, stream: &Stream) -> Result<Child> {
    let mut kubectl = Command::from(host.command("kubectl")?);
    kubectl
        .env("KUBECONFIG", &way.kubeconfig)
        .args(["--server", &format!("https://{}", way.through)])
        .args(["--tls-server-name", "kubernetes", "--namespace", &way.namespace]);
    match stream.kind {
        Kind::Exec => kubectl.args(["exec", "--stdin", &stream.pod, "--", "/trivet-pod", "cat"]),
        Kind::Logs => kubectl.args(["logs", "--follow", "--tail=1", &stream.pod]),
        Kind::PortForward => kubectl.args(["port-forward", &format!("pod/{}", stream.pod), ECHO]),
    };
    kubectl
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("failed to start kubectl")
}

/// A connection to the port that kubectl says it listens on, and kubectl's output: closed, it would end kubectl.
async fn forwarded(stdout: ChildStdout) -> Result<(TcpStream, BufReader<ChildStdout>)> {
    let mut stdout = BufReader::new(stdout);
    let mut said = String::new();
    stdout.read_line(&mut said).await?;
    // "Forwarding from 127.0.0.1:41231 -> 8080"
    let address = said.split_whitespace().nth(2).unwrap_or_default();
    let tcp = TcpStream::connect(address)
        .await
        .with_context(|| format!("no port to connect to in {said:?}"))?;
    Ok((tcp, stdout))
}

/// Writes numbered lines, `block` at a time, and compares what comes back until either direction ends.
async fn echo(
    read: impl AsyncRead + Unpin,
    mut write: impl AsyncWrite + Unpin,
    block: u64,
    line: impl Fn(),
) -> Result<String> {
    let writing = async {
        let mut clock = interval(PAUSE);
        let mut number = 0;
        loop {
            clock.tick().await;
            let lines: String = (number..number + block).map(numbered).collect();
            number += block;
            if let Err(error) = write.write_all(lines.as_bytes()).await {
                return format!("writing ended ({error})");
            }
            if let Err(error) = write.flush().await {
                return format!("writing ended ({error})");
            }
        }
    };
    tokio::select! {
        end = compare(read, Next::Number(0), line) => end,
        end = writing => Ok(end),
    }
}

/// The number of the line that must come next.
enum Next {
    AsItBegins,
    Number(u64),
}

/// Reads numbered lines to their end; fails if one is not the expected line.
async fn compare(read: impl AsyncRead + Unpin, mut next: Next, line: impl Fn()) -> Result<String> {
    let mut lines = BufReader::new(read);
    let mut found = Vec::new();
    loop {
        found.clear();
        let outcome = lines.read_until(b'\n', &mut found).await;
        let number = match next {
            Next::Number(number) => number,
            Next::AsItBegins => std::str::from_utf8(&found)?.trim().parse().unwrap_or_default(),
        };
        let wanted = numbered(number);
        let whole = found.ends_with(b"\n");
        ensure!(
            wanted.as_bytes().starts_with(&found) && (!whole || found.len() == wanted.len()),
            "line {number} came as {:?}",
            String::from_utf8_lossy(&found)
        );
        match outcome {
            Ok(_) if whole => {
                line();
                next = Next::Number(number + 1);
            }
            Ok(_) => return Ok("reading ended".to_owned()),
            Err(error) => return Ok(format!("reading ended ({error})")),
        }
    }
}

/// As the pod writes them: 64 bytes a line.
fn numbered(number: u64) -> String {
    format!("{number:063}\n")
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    async fn compared(bytes: &[u8], next: Next) -> (Result<String>, u32) {
        let lines = Cell::new(0);
        let end = compare(bytes, next, || lines.set(lines.get() + 1)).await;
        (end, lines.get())
    }

    #[tokio::test]
    async fn lines_in_order_pass_and_a_last_one_may_be_torn() {
        let sent = [numbered(7), numbered(8), numbered(9)].concat();
        let (end, lines) = compared(&sent.as_bytes()[..150], Next::AsItBegins).await;
        assert_eq!((end.unwrap().as_str(), lines), ("reading ended", 2));
    }

    #[tokio::test]
    async fn a_lost_a_repeated_and_an_altered_line_fail() {
        for wrong in [
            [numbered(0), numbered(2)].concat(),
            [numbered(0), numbered(0)].concat(),
            numbered(0).replace('0', "x"),
            numbered(1),
        ] {
            assert!(
                compared(wrong.as_bytes(), Next::Number(0)).await.0.is_err(),
                "{wrong}"
            );
        }
    }
}
