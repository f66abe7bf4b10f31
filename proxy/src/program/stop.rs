//! SIGTERM and SIGINT.
//!
//! A thread waits for them. Tokio would hear of them over a pair of unix sockets, which a node may deny (AppArmor's default
//! profile on some kernels), and then no runtime would start.

use std::{future::pending, thread};

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};
use tokio::sync::mpsc;
use tracing::{error, info};

/// How many signals count: the first and the second.
const SIGNALS: usize = 2;

/// The signals that end this process.
pub(crate) struct Stop {
    signals: mpsc::Receiver<Signal>,
}

impl Stop {
    /// Listens from now on. Called before the process has a second thread: one that does not hold the signals back would
    /// end the process. A process with id 1, as in a pod, would not end by a signal that it does not listen to.
    pub(crate) fn listen() -> Result<Self> {
        let ending = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
        ending
            .thread_block()
            .context("failed to hold the signals back that end this process")?;
        let (sender, signals) = mpsc::channel(SIGNALS);
        thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                while let Ok(signal) = ending.wait() {
                    if sender.blocking_send(signal).is_err() {
                        return;
                    }
                }
                error!("failed to wait for signals: this process ends by SIGKILL only");
            })
            .context("failed to start the thread that waits for signals")?;
        Ok(Self { signals })
    }

    /// Waits for the first signal. The second one ends the process at once.
    pub(crate) async fn requested(mut self) {
        self.next().await;
        tokio::spawn(async move {
            self.next().await;
            info!("second signal: aborting");
            std::process::exit(1);
        });
    }

    async fn next(&mut self) {
        if self.signals.recv().await.is_none() {
            pending::<()>().await;
        }
    }
}
