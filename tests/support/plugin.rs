//! `kubectl trivet`, run by a user who has only the rights that the chart gives to users of the plugin.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::process::Command;
use trivet_testbed::rights::PLUGIN_USER as USER;

use crate::installation::{CHART, Installation, NAMESPACE, RELEASE};
use crate::tools::Tools;

/// The objects that give the user the chart's rights, and that go with it.
const BINDINGS: [(&str, &str); 6] = [
    ("clusterrolebinding trivet-plugin", ""),
    ("clusterrolebinding trivet-plugin-edit", ""),
    ("rolebinding trivet-plugin", NAMESPACE),
    ("rolebinding trivet-plugin", "default"),
    ("rolebinding trivet-plugin", "kube-node-lease"),
    ("rolebinding trivet-plugin", "kube-system"),
];

/// The plugin and its user.
#[derive(Debug)]
pub struct Plugin {
    program: PathBuf,
    directory: PathBuf,
    tools: Tools,
}

/// How a command ended and what it printed.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it told besides.
    pub stderr: String,
}

impl Plugin {
    /// Makes the user, with what the chart of this checkout gives to those whom its values name.
    pub async fn with_rights(installation: &Installation, program: &str) -> Result<Self> {
        let tools = installation.tools();
        let account = json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": USER, "namespace": NAMESPACE },
        });
        tools.apply(&account.to_string()).await?;
        let user = json!([{ "kind": "ServiceAccount", "name": USER, "namespace": NAMESPACE }]);
        let rights = tools
            .helm(&format!(
                "template {RELEASE} {CHART} --namespace {NAMESPACE} --show-only templates/plugin-rbac.yaml \
                 --set-json plugin.editors={user}"
            ))
            .await?;
        // The release has the roles already, and objects that kubectl writes are kubectl's for Helm ever after.
        let bindings: Vec<_> = rights
            .split("\n---\n")
            .filter(|object| object.contains("Binding\n"))
            .collect();
        tools.apply(&bindings.join("\n---\n")).await?;
        let directory = std::env::temp_dir().join(format!("trivet-plugin-{}", std::process::id()));
        fs::create_dir_all(&directory).with_context(|| format!("failed to make {}", directory.display()))?;
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o700))?;
        let plugin = Self {
            program: program.into(),
            directory,
            tools,
        };
        plugin.write_kubeconfig().await?;
        Ok(plugin)
    }

    /// Takes the user's rights away again.
    pub async fn remove(self) -> Result<()> {
        for (binding, namespace) in BINDINGS {
            let namespace = if namespace.is_empty() {
                String::new()
            } else {
                format!("--namespace {namespace}")
            };
            self.tools
                .kubectl(&format!("delete {binding} {namespace} --ignore-not-found"))
                .await?;
        }
        let account = format!("delete serviceaccount {USER} --namespace {NAMESPACE} --ignore-not-found");
        self.tools.kubectl(&account).await?;
        let directory = &self.directory;
        fs::remove_dir_all(directory).with_context(|| format!("failed to remove {}", directory.display()))
    }

    /// Runs a command of the plugin.
    pub async fn run(&self, arguments: &str) -> Result<Ended> {
        let mut command = Command::new(&self.program);
        command.args(arguments.split_whitespace());
        command
            .env("KUBECONFIG", self.file("kubeconfig"))
            .kill_on_drop(true);
        let output = command.output().await.context("failed to run the plugin")?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Ended {
            code: output.status.code().context("a signal ended the plugin")?,
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        })
    }

    /// Runs a command that prints JSON.
    pub async fn json(&self, arguments: &str) -> Result<(i32, Value)> {
        let ended = self.run(&format!("{arguments} --output json")).await?;
        let value = serde_json::from_str(&ended.stdout);
        Ok((
            ended.code,
            value.with_context(|| format!("{arguments}: {ended:?}"))?,
        ))
    }

    /// Writes a file beside the kubeconfig, and returns its path.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.file(name);
        fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))?;
        Ok(path)
    }

    /// Where a file of this name is.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// A kubeconfig with the server of the administrator's and the token of the user.
    async fn write_kubeconfig(&self) -> Result<()> {
        let config = self
            .tools
            .kubectl("config view --raw --minify --flatten --output json")
            .await?;
        let mut config: Value = serde_json::from_str(&config)?;
        let token = format!("create token {USER} --namespace {NAMESPACE} --duration=1h");
        let token = self.tools.kubectl(&token).await?;
        let Some(user) = config.pointer_mut("/users/0/user") else {
            bail!("the administrator's kubeconfig has no user");
        };
        *user = json!({ "token": token.trim() });
        self.write("kubeconfig", &config.to_string()).map(drop)
    }
}

impl Ended {
    /// Fails unless it ended with this code.
    pub fn with(self, code: i32) -> Result<Self> {
        ensure!(
            self.code == code,
            "it ended with {}, not {code}: {self:?}",
            self.code
        );
        Ok(self)
    }
}
