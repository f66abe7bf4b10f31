//! Adds and removes hosts while the cluster runs.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::address::HostName;
use crate::audit;
use crate::cgroup::Layout;
use crate::cluster::{Cluster, on_each};
use crate::component::Component;
use crate::control::{check_server, terminate};
use crate::host::Host;
use crate::progress::Stopwatch;
use crate::state::{self, Lock};
use crate::static_pod::MANIFESTS;
use crate::{network, output, pki, provision, up, wait};

/// How long a change of members may take: etcd refuses it for a while after one of them has started.
const MEMBER_CHANGE: Duration = Duration::from_secs(30);

/// How a worker joins.
#[derive(Debug, Clone, Copy)]
pub struct Joining<'a> {
    /// The only apiserver that its kubelet and kube-proxy are told of.
    pub server: &'a str,
    /// The name in the apiserver's certificate, where the server's is not in it.
    pub tls_server_name: Option<&'a str>,
    /// Archives of images, for its containerd.
    pub images: &'a [PathBuf],
    /// Files for its kubelet's directory of static pods.
    pub manifests: &'a [PathBuf],
}

impl Cluster {
    /// Adds a master: etcd member, control plane, Node with kubeadm's label and taint.
    ///
    /// One that is there already is repaired.
    pub fn add_master(&mut self, name: &str) -> Result<()> {
        let name: HostName = name.parse()?;
        ensure!(
            name.is_master(),
            "{name} is a worker's name: masters are cp1 to cp9"
        );
        let _lock = Lock::take(&self.progress)?;
        let watch = Stopwatch::start();
        self.extend(&[name])?;
        self.progress.done(format_args!("{name} is a master"), &watch);
        Ok(())
    }

    /// Removes a master as an administrator would: its apiserver drains, its Node and its etcd member are removed, and the
    /// host is switched off. No error if there is no such master.
    pub fn remove_master(&mut self, name: &str) -> Result<()> {
        let name: HostName = name.parse()?;
        ensure!(
            name.is_master(),
            "{name} is a worker: only masters can be removed"
        );
        let _lock = Lock::take(&self.progress)?;
        if !self.state.hosts.contains(&name) {
            self.progress.step(&format!("there is no {name}"));
            return Ok(());
        }
        let host = self.make_host(name);
        let other = self
            .masters()
            .into_iter()
            .find(|master| master.name() != name)
            .with_context(|| format!("{name} is the last master: `down` ends the testbed"))?;
        let watch = Stopwatch::start();
        // In this order kubelet does not register the Node again, and clients are drained before the host ends.
        terminate(&host, Component::Kubelet)?;
        let mut kubectl = self.kubectl_through(&other.name().to_string())?;
        output::of(kubectl.args(["delete", "node", "--ignore-not-found", &name.to_string()]))?;
        self.progress.done(format_args!("{name}: Node deleted"), &watch);
        terminate(&host, Component::KubeApiserver)?;
        remove_member(&other, &host)?;
        self.progress
            .done(format_args!("{name}: etcd member removed"), &watch);
        host.power_off()?;
        self.forget(&host)?;
        self.progress.done(format_args!("{name} is gone"), &watch);
        Ok(())
    }

    /// Adds a worker that joins as these say: a host with containerd, the images, kubelet, kube-proxy, and the manifests
    /// in its kubelet's directory of static pods.
    ///
    /// Returns when its programs have started; the node is Ready later, if its kubelet reaches the server.
    pub fn add_worker(&mut self, name: &str, joining: &Joining<'_>) -> Result<()> {
        let name = worker(name)?;
        check_server(joining.server)?;
        let _lock = Lock::take(&self.progress)?;
        ensure!(
            !self.state.hosts.contains(&name),
            "{name} is there already: `remove-worker {name}`"
        );
        let watch = Stopwatch::start();
        let host = self.boot_new(name)?;
        self.join(&host)?;
        for image in joining.images {
            up::import(&host, image)?;
        }
        self.set_server(&host, joining.server, joining.tls_server_name)?;
        for manifest in joining.manifests {
            let file = manifest.file_name().context("a manifest is a file")?;
            let to = host.file(MANIFESTS).join(file);
            fs::copy(manifest, &to)
                .with_context(|| format!("failed to copy {} to {}", manifest.display(), to.display()))?;
        }
        self.start_all(&host)?;
        self.progress.done(
            format_args!("{name}: its kubelet joins by {}", joining.server),
            &watch,
        );
        Ok(())
    }

    /// Removes a worker: its Node and its host. No error if there is no such worker.
    pub fn remove_worker(&mut self, name: &str) -> Result<()> {
        let name = worker(name)?;
        let _lock = Lock::take(&self.progress)?;
        if !self.state.hosts.contains(&name) {
            self.progress.step(&format!("there is no {name}"));
            return Ok(());
        }
        let watch = Stopwatch::start();
        let host = self.make_host(name);
        host.power_off()?;
        let mut kubectl = self.kubectl()?;
        output::of(kubectl.args(["delete", "node", "--ignore-not-found", &name.to_string()]))?;
        self.forget(&host)?;
        self.progress.done(format_args!("{name} is gone"), &watch);
        Ok(())
    }

    /// Cuts the power of a host, whose disk stays. It is off until [`switch_on`](Self::switch_on).
    pub fn switch_off(&self, host: &str) -> Result<()> {
        let _lock = Lock::take(&self.progress)?;
        let host = self.host(host)?;
        let watch = Stopwatch::start();
        host.power_off()?;
        self.progress
            .done(format_args!("{} is switched off", host.name()), &watch);
        Ok(())
    }

    /// Boots a host that is off, and starts all that it runs.
    pub fn switch_on(&self, host: &str) -> Result<()> {
        let _lock = Lock::take(&self.progress)?;
        let host = self.host(host)?;
        let watch = Stopwatch::start();
        network::ensure_host(host.name())?;
        host.boot()?;
        network::ensure_routes(&self.state.hosts)?;
        self.start_all(&host)?;
        self.progress
            .done(format_args!("{} is switched on", host.name()), &watch);
        Ok(())
    }

    /// Adds hosts to a cluster that works; the caller holds the lock.
    pub(crate) fn extend(&mut self, names: &[HostName]) -> Result<()> {
        for name in names {
            let host = self.boot_new(*name)?;
            self.join(&host)?;
            self.start_all(&host)?;
            self.wait_for_nodes(&[host])?;
        }
        Ok(())
    }

    fn boot_new(&mut self, name: HostName) -> Result<Host> {
        if !self.state.hosts.contains(&name) {
            self.state.hosts.push(name);
            self.state.hosts.sort_unstable();
            self.state.save()?;
        }
        let host = self.make_host(name);
        self.boot(std::slice::from_ref(&host))?;
        // Every host needs the new name in its files.
        on_each(&self.hosts(), |host| provision::host(host, &self.state))?;
        Ok(host)
    }

    fn join(&self, host: &Host) -> Result<()> {
        self.start(host, Component::Containerd)?;
        self.ensure_pause(std::slice::from_ref(host))?;
        let first = self
            .masters()
            .into_iter()
            .find(|master| master.name() != host.name())
            .context("the testbed has no master to join")?;
        if !host.name().is_master() {
            return up::credentials(host, &first);
        }
        let watch = Stopwatch::start();
        if !pki::is_complete(host) {
            pki::certificates(host, &first)?;
            self.progress
                .done(format_args!("{}: certificates made", host.name()), &watch);
        }
        add_member(&first, host.name())?;
        self.progress
            .done(format_args!("{}: member of etcd", host.name()), &watch);
        self.start_control_plane(host, &first)?;
        self.wait_for_apiserver(host)
    }

    fn forget(&mut self, host: &Host) -> Result<()> {
        let name = host.name();
        audit::keep(host)?;
        Layout::read()?.remove(Some(name))?;
        network::remove_host(name)?;
        match fs::remove_dir_all(state::files(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("failed to remove the files of {name}"));
            }
            _ => {}
        }
        self.state.hosts.retain(|host| *host != name);
        self.state.founders.retain(|host| *host != name);
        self.state.save()?;
        on_each(&self.hosts(), |host| provision::host(host, &self.state))
    }
}

fn worker(name: &str) -> Result<HostName> {
    let name: HostName = name.parse()?;
    ensure!(
        !name.is_master(),
        "{name} is a master's name: workers are w1 to w99"
    );
    Ok(name)
}

fn add_member(through: &Host, name: HostName) -> Result<()> {
    if member(&members(through)?, name).is_some() {
        return Ok(());
    }
    let new = json!({ "peerURLs": [name.etcd_peer()] });
    wait::until_every(
        Duration::from_millis(500),
        MEMBER_CHANGE,
        &format!("etcd's new member {name}"),
        || etcd(through, "cluster/member/add", &new).map(drop),
    )
}

/// Moves the leadership away first: what is being written when the leader is removed would wait for seven seconds.
fn remove_member(through: &Host, leaving: &Host) -> Result<()> {
    let name = leaving.name();
    let found = members(through)?;
    let Some(id) = member(&found, name) else {
        return Ok(());
    };
    let remaining = member(&found, through.name());
    let remaining = remaining.with_context(|| format!("{} is no member of etcd", through.name()))?;
    wait::until_every(
        Duration::from_millis(500),
        MEMBER_CHANGE,
        &format!("the end of etcd's member {name}"),
        || {
            let status = etcd(through, "maintenance/status", &json!({}))?;
            if status.get("leader").and_then(Value::as_str) == Some(&id) {
                let to = json!({ "targetID": remaining });
                etcd(leaving, "maintenance/transfer-leadership", &to)?;
            }
            etcd(through, "cluster/member/remove", &json!({ "ID": id })).map(drop)
        },
    )
}

fn members(through: &Host) -> Result<Value> {
    etcd(through, "cluster/member/list", &json!({}))
}

/// The id of a member, found by its URL, because a member that has not started has no name yet.
fn member(members: &Value, name: HostName) -> Option<String> {
    let url = name.etcd_peer();
    let of_host = |member: &&Value| {
        let urls = member.get("peerURLs").and_then(Value::as_array);
        urls.is_some_and(|urls| urls.iter().any(|peer| peer.as_str() == Some(&url)))
    };
    let member = members.get("members")?.as_array()?.iter().find(of_host)?;
    Some(member.get("ID")?.as_str()?.to_owned())
}

/// A request to the JSON gateway of a master's etcd, so that etcdctl need not be built.
fn etcd(master: &Host, method: &str, request: &Value) -> Result<Value> {
    let pki = |file: &str| master.file("/etc/kubernetes/pki/etcd").join(file);
    let mut curl = Command::new("curl");
    curl.args([
        "--silent",
        "--show-error",
        "--fail-with-body",
        "--max-time",
        "10",
        "--noproxy",
        "*",
    ]);
    curl.arg("--cacert").arg(pki("ca.crt"));
    curl.arg("--cert").arg(pki("healthcheck-client.crt"));
    curl.arg("--key").arg(pki("healthcheck-client.key"));
    curl.args(["--data", &request.to_string()]);
    curl.arg(format!("https://{}:2379/v3/{method}", master.ipv4()));
    let output = curl.output().context("failed to start curl")?;
    let answer = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!(
            "etcd of {} refused {method}: {} {}",
            master.name(),
            answer.trim(),
            said.trim()
        );
    }
    serde_json::from_str(&answer).with_context(|| format!("failed to understand etcd's answer {answer:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_known_by_its_url_also_before_it_has_a_name() {
        let members = json!({ "members": [
            { "ID": "11", "name": "cp1", "peerURLs": ["https://10.213.0.11:2380"] },
            { "ID": "14", "peerURLs": ["https://10.213.0.14:2380"] },
        ]});
        assert_eq!(member(&members, "cp4".parse().unwrap()).unwrap(), "14");
        assert_eq!(member(&members, "cp2".parse().unwrap()), None);
        assert_eq!(member(&json!({}), "cp2".parse().unwrap()), None);
    }
}
