//! A fake apiserver that looks real to a layer-4 proxy and its clients, and can fail in every way.
//!
//! It is a separate process, so that tests can send it SIGKILL and SIGSTOP. It reads one order per line from its standard
//! input, obeys it, and answers with its counters; it ends when its standard input ends. On SIGTERM it drains as
//! kube-apiserver does: `/readyz` fails at once, the listener closes after a delay, requests finish.

mod answer;
mod counters;
mod identity;
mod server;

use std::{io, net::Ipv6Addr, path::PathBuf, sync::Arc, thread, time::Duration};

use anyhow::{Context, Result};
use clap::Parser;
use tokio::{
    io::{AsyncWriteExt, stdout},
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    time::sleep,
};
use trivet_lab::behaviour::{Behaviour, Identity, Order};

use self::{
    counters::Counters,
    server::{Server, Stage},
};

/// A fake apiserver.
#[derive(Debug, Parser)]
struct Cli {
    /// Its name.
    #[arg(long)]
    name: String,
    /// The port, on all addresses.
    #[arg(long)]
    port: u16,
    /// Its certificate, PEM.
    #[arg(long)]
    certificate: PathBuf,
    /// The key, PEM.
    #[arg(long)]
    key: PathBuf,
    /// How long it still serves after SIGTERM before it closes its listener.
    #[arg(long)]
    shutdown_delay_milliseconds: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let cli = Cli::parse();
    let (behave, behaviour) = watch::channel(Behaviour::good(Identity {
        certificate: cli.certificate,
        key: cli.key,
    }));
    let (step, stage) = watch::channel(Stage::Serving);
    let counters = Arc::new(Counters::default());
    let server = Server::new(cli.name, behaviour, stage, Arc::clone(&counters));
    let mut terminated = signal(SignalKind::terminate()).context("failed to listen for SIGTERM")?;
    let mut serving = Box::pin(server.serve((Ipv6Addr::UNSPECIFIED, cli.port).into()));
    let mut orders = orders();
    // The listener must be open before the first line is printed.
    tokio::select! {
        ended = &mut serving => return ended,
        listening = counters.listening() => listening,
    }
    say(&counters).await?;
    loop {
        tokio::select! {
            ended = &mut serving => return ended,
            _ = terminated.recv() => {
                step.send_replace(Stage::Draining);
                let delay = Duration::from_millis(cli.shutdown_delay_milliseconds);
                let step = step.clone();
                tokio::spawn(async move {
                    sleep(delay).await;
                    step.send_replace(Stage::Closing);
                });
            }
            line = orders.recv() => match line {
                Some(line) => {
                    let line = line.context("failed to read orders")?;
                    let order = serde_json::from_str(&line).with_context(|| format!("no order: {line}"))?;
                    if let Order::Behave(behaviour) = order {
                        behave.send_replace(behaviour);
                        // The listener opens or closes before the order is answered.
                        tokio::select! {
                            ended = &mut serving => return ended,
                            obeyed = counters.obeyed(behave.borrow().door) => obeyed,
                        }
                    }
                    say(&counters).await?;
                }
                None => return Ok(()),
            }
        }
    }
}

/// The lines of the standard input. They have a thread of their own: a runtime ends only when a read of tokio's does, and
/// this process must end while its test still holds the other side.
fn orders() -> mpsc::Receiver<io::Result<String>> {
    let (sender, receiver) = mpsc::channel(1);
    thread::spawn(move || {
        for line in io::stdin().lines() {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

async fn say(counters: &Counters) -> Result<()> {
    let mut line = serde_json::to_string(&counters.read())?;
    line.push('\n');
    let mut stdout = stdout();
    stdout.write_all(line.as_bytes()).await?;
    stdout.flush().await.context("failed to answer an order")
}
