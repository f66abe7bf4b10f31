//! One etcd and one apiserver, in this process's own network, with authorities of their own.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rcgen::KeyPair;
use serde_json::json;
use trivet_testbed::binaries::Binaries;

use super::access::{Access, ENDPOINT};
use crate::authority::{Authority, NAME};
use crate::process::Process;

/// The addresses of the masters. One apiserver listens on all of them: what the operator probes is reached.
pub(crate) const MASTERS: [&str; 3] = ["10.90.0.11", "10.90.0.12", "10.90.0.13"];

/// The user as whom the operator writes.
pub(crate) const OPERATOR: &str = "trivet-operator";

const ADMINISTRATOR_TOKEN: &str = "administrator";
const OPERATOR_TOKEN: &str = "operator";

const ETCD: &str = "127.0.0.1:2379";

/// An apiserver waits for its hooks; on a busy machine that takes a while.
const START_LIMIT: Duration = Duration::from_secs(120);

/// What is written down of each write: who, what, when.
const AUDIT_POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  verbs: [create, update, patch, delete, deletecollection]
- level: None
";

/// The two, until this value is dropped. The apiserver ends first.
#[derive(Debug)]
pub(crate) struct Cluster {
    _apiserver: Process,
    _etcd: Process,
    access: Arc<Access>,
    kubeconfig: PathBuf,
    audit: PathBuf,
}

impl Cluster {
    /// Starts both and waits until the apiserver is ready.
    pub(crate) fn start(programs: &Binaries, directory: &Path) -> Result<Self> {
        for address in MASTERS {
            add_address(address)?;
        }
        let authority = Authority::create(directory)?;
        let audit = directory.join("audit.log");
        let mut etcd = Process::start("etcd", &etcd(programs, directory), directory)?;
        etcd.wait_at_most(START_LIMIT, || TcpStream::connect(ETCD).is_ok())?;
        let command = apiserver(programs, directory, &authority, &audit)?;
        let mut apiserver = Process::start("kube-apiserver", &command, directory)?;
        apiserver.wait_at_most(START_LIMIT, is_ready)?;
        Ok(Self {
            _apiserver: apiserver,
            _etcd: etcd,
            access: Arc::new(Access::new(&authority.bundle, ADMINISTRATOR_TOKEN)?),
            kubeconfig: kubeconfig(directory, &authority.bundle)?,
            audit,
        })
    }

    /// The way to the apiserver for this program.
    pub(crate) fn access(&self) -> &Arc<Access> {
        &self.access
    }

    /// The way to the apiserver for the operator.
    pub(crate) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The log with all writes.
    pub(crate) fn audit(&self) -> &Path {
        &self.audit
    }
}

fn add_address(address: &str) -> Result<()> {
    let status = Command::new("ip")
        .args(["address", "add", &format!("{address}/32"), "dev", "lo"])
        .status()
        .context("failed to start ip")?;
    ensure!(
        status.success(),
        "`ip address add {address}/32` ended with {status}"
    );
    Ok(())
}

fn etcd(programs: &Binaries, directory: &Path) -> Command {
    let mut etcd = Command::new(programs.etcd.join("etcd"));
    etcd.arg("--data-dir").arg(directory.join("etcd"));
    etcd.args([
        format!("--listen-client-urls=http://{ETCD}"),
        format!("--advertise-client-urls=http://{ETCD}"),
        "--listen-peer-urls=http://127.0.0.1:2380".to_owned(),
        "--initial-advertise-peer-urls=http://127.0.0.1:2380".to_owned(),
        "--initial-cluster=default=http://127.0.0.1:2380".to_owned(),
        // This data is not kept, and the disk is not what is measured.
        "--unsafe-no-fsync=true".to_owned(),
        "--log-level=error".to_owned(),
    ]);
    etcd
}

fn apiserver(programs: &Binaries, directory: &Path, authority: &Authority, audit: &Path) -> Result<Command> {
    let write = |name: &str, text: &str| {
        let path = directory.join(name);
        fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))?;
        Ok::<_, anyhow::Error>(path)
    };
    let accounts = KeyPair::generate()?;
    let tokens = format!(
        "{ADMINISTRATOR_TOKEN},administrator,1,system:masters\n{OPERATOR_TOKEN},{OPERATOR},2,system:masters\n"
    );
    let files = [
        ("tls-cert-file", authority.certificate.clone()),
        ("tls-private-key-file", authority.key.clone()),
        ("token-auth-file", write("tokens.csv", &tokens)?),
        (
            "service-account-signing-key-file",
            write("accounts-key.pem", &accounts.serialize_pem())?,
        ),
        (
            "service-account-key-file",
            write("accounts.pem", &accounts.public_key_pem())?,
        ),
        ("audit-policy-file", write("audit-policy.yaml", AUDIT_POLICY)?),
        ("audit-log-path", audit.to_owned()),
    ];
    let mut apiserver = Command::new(programs.kubernetes.join("kube-apiserver"));
    for (flag, path) in files {
        apiserver.arg(format!("--{flag}={}", path.display()));
    }
    apiserver.args([
        format!("--etcd-servers=http://{ETCD}"),
        format!("--advertise-address={}", MASTERS[0]),
        "--bind-address=0.0.0.0".to_owned(),
        "--secure-port=6443".to_owned(),
        "--authorization-mode=RBAC".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
        "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
        // Nobody makes the pods' service account, and nobody says of the nodes that they are ready.
        "--disable-admission-plugins=ServiceAccount,TaintNodesByCondition".to_owned(),
    ]);
    Ok(apiserver)
}

/// Whether the apiserver says that it is ready.
fn is_ready() -> bool {
    let asked = Command::new("curl")
        // Who answers here is this apiserver, and who verifies comes later.
        .args(["--silent", "--fail", "--insecure", "--output", "/dev/null"])
        .arg(format!("https://{ENDPOINT}/readyz"))
        .status();
    asked.is_ok_and(|status| status.success())
}

/// JSON is YAML too.
fn kubeconfig(directory: &Path, bundle: &Path) -> Result<PathBuf> {
    let text = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "bench",
        "contexts": [{ "name": "bench", "context": { "cluster": "bench", "user": OPERATOR } }],
        "clusters": [{ "name": "bench", "cluster": {
            "server": format!("https://{ENDPOINT}"), "tls-server-name": NAME, "certificate-authority": bundle,
        } }],
        "users": [{ "name": OPERATOR, "user": { "token": OPERATOR_TOKEN } }],
    });
    let path = directory.join("kubeconfig");
    fs::write(&path, text.to_string()).with_context(|| format!("failed to write {}", path.display()))?;
    Ok(path)
}
