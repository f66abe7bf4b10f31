//! The test's handle of a fake apiserver: a process at a place, which obeys orders.

use std::{path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{ChildStdin, ChildStdout},
    time::timeout,
};

use crate::{
    behaviour::{Behaviour, Counts, Identity, Order},
    document::APISERVER,
    process::{self, Program},
};

/// Far beyond what an apiserver takes to start or to obey.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// The arguments of its process.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    pub(crate) program: PathBuf,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) identity: Identity,
    /// How long it still serves after SIGTERM, not ready.
    pub(crate) shutdown_delay: Duration,
}

/// A fake apiserver.
#[derive(Debug)]
pub struct Apiserver {
    recipe: Recipe,
    running: Option<Running>,
    behaviour: Behaviour,
}

#[derive(Debug)]
struct Running {
    program: Program,
    orders: ChildStdin,
    counts: Lines<BufReader<ChildStdout>>,
}

impl Apiserver {
    /// Starts one; returns once it listens.
    pub(crate) async fn start(recipe: Recipe) -> Result<Self> {
        let mut apiserver = Self {
            behaviour: Behaviour::good(recipe.identity.clone()),
            recipe,
            running: None,
        };
        apiserver.restart().await?;
        Ok(apiserver)
    }

    /// Starts its process again, healthy; returns once it listens.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill().await?;
        let Recipe {
            program,
            namespace,
            name,
            identity,
            shutdown_delay,
        } = &self.recipe;
        let mut command = process::command(namespace, program);
        command
            .args(["--name", name])
            .arg("--certificate")
            .arg(&identity.certificate)
            .arg("--key")
            .arg(&identity.key)
            .args(["--port", &APISERVER.to_string()])
            .args([
                "--shutdown-delay-milliseconds",
                &shutdown_delay.as_millis().to_string(),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut program = Program::start(&mut command)?;
        let orders = program.child().stdin.take().context("no way to order")?;
        let counts = program.child().stdout.take().context("no way to hear")?;
        let mut running = Running {
            program,
            orders,
            counts: BufReader::new(counts).lines(),
        };
        running
            .hear()
            .await
            .with_context(|| format!("{name} does not start"))?;
        self.behaviour = Behaviour::good(identity.clone());
        self.running = Some(running);
        Ok(())
    }

    /// Its name as a member and in its answers.
    pub fn name(&self) -> &str {
        &self.recipe.name
    }

    /// Changes how it behaves; returns once it does.
    pub async fn behave(&mut self, change: impl FnOnce(&mut Behaviour)) -> Result<()> {
        change(&mut self.behaviour);
        let order = Order::Behave(self.behaviour.clone());
        self.running()?.obey(&order).await.map(drop)
    }

    /// Shows this certificate from now on, after a restart too.
    pub async fn show(&mut self, identity: Identity) -> Result<()> {
        self.recipe.identity = identity.clone();
        self.behave(|behaviour| behaviour.identity = identity).await
    }

    /// What it has counted since it started.
    pub async fn counts(&mut self) -> Result<Counts> {
        self.running()?.obey(&Order::Count).await
    }

    /// SIGKILL; returns once the kernel has closed all of its sockets. Does nothing if it does not run.
    pub async fn kill(&mut self) -> Result<()> {
        match self.running.take() {
            Some(mut running) => running.program.kill().await,
            None => Ok(()),
        }
    }

    /// SIGSTOP; returns once it is stopped. The kernel still accepts connections and acknowledges packets.
    pub async fn stop(&mut self) -> Result<()> {
        self.running()?.program.stop().await
    }

    /// SIGCONT.
    pub fn cont(&mut self) -> Result<()> {
        self.running()?.program.signal(Signal::SIGCONT)
    }

    /// SIGTERM: it is not ready, serves on for its delay, closes its listener, finishes its requests and ends. Returns
    /// at its end.
    pub async fn drain(&mut self) -> Result<()> {
        let mut running = self.running.take().context("it does not run")?;
        running.program.signal(Signal::SIGTERM)?;
        let good = running.program.ended().await?;
        ensure!(good, "{} did not drain well", self.recipe.name);
        Ok(())
    }

    fn running(&mut self) -> Result<&mut Running> {
        let name = &self.recipe.name;
        self.running
            .as_mut()
            .with_context(|| format!("{name} does not run"))
    }
}

impl Running {
    async fn obey(&mut self, order: &Order) -> Result<Counts> {
        let mut line = serde_json::to_string(order)?;
        line.push('\n');
        self.orders
            .write_all(line.as_bytes())
            .await
            .context("an apiserver of the lab takes no orders")?;
        self.hear().await
    }

    async fn hear(&mut self) -> Result<Counts> {
        let line = timeout(ANSWER_LIMIT, self.counts.next_line())
            .await
            .context("an apiserver of the lab does not answer its test")??;
        let line = line.context("an apiserver of the lab has ended")?;
        Ok(serde_json::from_str(&line)?)
    }
}
