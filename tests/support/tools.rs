//! kubectl and helm, as a user runs them, through the apiserver of a master of our choice.

use std::process::{Output, Stdio};

use anyhow::{Context, Result, bail};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use trivet_testbed::Cluster;

/// The command-line tools of one cluster.
#[derive(Debug, Clone)]
pub struct Tools {
    cluster: Cluster,
    master: String,
}

impl Tools {
    /// Tools that talk to the apiserver of `master`.
    pub fn through(cluster: &Cluster, master: &str) -> Self {
        Self {
            cluster: cluster.clone(),
            master: master.to_owned(),
        }
    }

    /// What kubectl prints, or an error with its error output.
    pub async fn kubectl(&self, command_line: &str) -> Result<String> {
        let mut command = self.kubectl_command()?;
        command.args(command_line.split_whitespace());
        finish(command, "").await
    }

    /// What kubectl prints when it applies a manifest.
    pub async fn apply(&self, manifest: &str) -> Result<String> {
        let mut command = self.kubectl_command()?;
        command.args(["apply", "-f", "-"]);
        finish(command, manifest).await
    }

    /// The same by server-side apply, which leaves no annotation behind and takes fields over from their owners.
    pub async fn apply_at_the_server(&self, manifest: &str) -> Result<String> {
        let mut command = self.kubectl_command()?;
        command.args(["apply", "--server-side", "--force-conflicts", "-f", "-"]);
        finish(command, manifest).await
    }

    /// What kubectl prints when this user would create the objects of a manifest, or the API server's refusal.
    pub async fn create_as(&self, user: &str, manifest: &str) -> Result<String> {
        let mut command = self.kubectl_command()?;
        command.args(["create", "--dry-run=server", "-f", "-"]);
        command.arg(format!("--as={user}"));
        finish(command, manifest).await
    }

    /// The API server's error for a manifest that it must reject.
    pub async fn refusal(&self, manifest: &str) -> Result<String> {
        let mut command = self.kubectl_command()?;
        command.args(["apply", "-f", "-"]);
        let output = run(&mut command, manifest).await?;
        if output.status.success() {
            bail!("accepted, but must be refused:\n{manifest}");
        }
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// What helm prints, or an error with its error output.
    pub async fn helm(&self, command_line: &str) -> Result<String> {
        let mut command = Command::from(self.cluster.helm()?);
        command.env("KUBECONFIG", self.cluster.kubeconfig_of(&self.master)?);
        command.args(command_line.split_whitespace());
        finish(command, "").await
    }

    fn kubectl_command(&self) -> Result<Command> {
        Ok(Command::from(self.cluster.kubectl_through(&self.master)?))
    }
}

/// What a command prints, or an error with its error output.
async fn finish(mut command: Command, input: &str) -> Result<String> {
    let output = run(&mut command, input).await?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    bail!("`{}` failed ({}): {}", name(&command), output.status, said.trim())
}

async fn run(command: &mut Command, input: &str) -> Result<Output> {
    let failed = || format!("failed to run a program for {} bytes of input", input.len());
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().with_context(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command that does not read to the end says why by its status.
        drop(stdin.write_all(input.as_bytes()).await);
    }
    child.wait_with_output().await.with_context(failed)
}

/// The command as a person would type it.
fn name(command: &Command) -> String {
    let command = command.as_std();
    let program = command.get_program().to_string_lossy();
    let program = program.rsplit('/').next().unwrap_or_default().to_owned();
    let words = command
        .get_args()
        .map(|argument| argument.to_string_lossy().into_owned());
    std::iter::once(program)
        .chain(words)
        .collect::<Vec<_>>()
        .join(" ")
}
