//! The proxy under test, run as the DaemonSet runs it, but by a file and without a cluster.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use trivet_crds::wire::{
    API_VERSION, Balancing, Connection, Document, HealthCheck, Listener, Member, MemberState, RolloutTarget,
    Tls,
};

use super::{SERVER, Setting};
use crate::authority::NAME;

/// Writes the wire document: the defaults of a pool, with one member.
pub(super) fn configuration(setting: &Setting, listen: SocketAddr) -> Result<PathBuf> {
    let bundle = &setting.authority.bundle;
    let ca_bundle =
        fs::read_to_string(bundle).with_context(|| format!("failed to read {}", bundle.display()))?;
    let document = Document {
        api_version: API_VERSION.to_owned(),
        pool: "bench".to_owned(),
        revision: 1,
        hash: String::new(),
        members: vec![Member {
            name: "server".to_owned(),
            addresses: vec![SERVER.ip()],
            port: SERVER.port(),
            state: MemberState::Active,
            zone: String::new(),
            node_name: String::new(),
        }],
        disabled_members: Vec::new(),
        further_endpoints: Vec::new(),
        listeners: vec![Listener::apiserver(vec![listen.ip()], listen.port())],
        balancing: Balancing::default(),
        rollout: RolloutTarget::default(),
        health_check: HealthCheck {
            period_milliseconds: 1000,
            timeout_milliseconds: 1000,
            failure_threshold: 2,
            success_threshold: 2,
        },
        connection: Connection {
            connect_timeout_milliseconds: 1000,
            hedge_delay_milliseconds: 250,
            user_timeout_milliseconds: 5000,
            keep_alive_seconds: 5,
            drain_timeout_seconds: 1,
            max_connections: 16_384,
        },
        nodes: 5,
        tls: Tls {
            ca_bundle,
            server_name: NAME.to_owned(),
        },
    };
    let path = setting.directory.join("pool.json");
    fs::write(&path, document.seal()?.to_text()?)
        .with_context(|| format!("failed to write {}", path.display()))?;
    Ok(path)
}

/// All but the configuration's name.
pub(super) fn command(setting: &Setting) -> Command {
    let mut command = Command::new(&setting.trivet);
    command.args([
        "run",
        "--node-name",
        "bench",
        "--metrics-address",
        "127.0.0.1:9100",
    ]);
    command.arg("--socket").arg(socket(setting)).arg("--config");
    command
}

/// Whether the member has proved itself and been reached through the proxy's own listener.
pub(super) fn is_ready(setting: &Setting) -> bool {
    let mut probe = Command::new(&setting.trivet);
    probe.args(["probe", "ready", "--socket"]).arg(socket(setting));
    let probe = probe.stdout(Stdio::null()).stderr(Stdio::null());
    probe.status().is_ok_and(|status| status.success())
}

fn socket(setting: &Setting) -> PathBuf {
    setting.directory.join("trivet.sock")
}
