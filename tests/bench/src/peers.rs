//! Whom the proxy is measured beside, each configured as its expert would for this job.

mod capacity;
mod envoy;
mod go_loadbalancer;
mod trivet;

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::Serialize;
use trivet_testbed::Progress;

use crate::authority::Authority;
use crate::measure;
use crate::process::Process;

/// Where the server listens.
pub(crate) const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7000);

/// A way from the client to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Peer {
    /// No proxy at all.
    Direct,
    /// The proxy under test.
    Trivet,
    /// HAProxy, `mode tcp`.
    Haproxy,
    /// The same with `option splice-auto`.
    HaproxySplice,
    /// nginx's stream module.
    Nginx,
    /// Envoy's `tcp_proxy`.
    Envoy,
    /// siderolabs/go-loadbalancer as Talos' KubePrism runs it.
    GoLoadbalancer,
    /// A loop that moves bytes and decides nothing: what the kernel alone costs.
    Bare,
}

impl Peer {
    pub(crate) const ALL: [Self; 8] = [
        Self::Direct,
        Self::Trivet,
        Self::Haproxy,
        Self::HaproxySplice,
        Self::Nginx,
        Self::Envoy,
        Self::GoLoadbalancer,
        Self::Bare,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Trivet => "trivet",
            Self::Haproxy => "haproxy",
            Self::HaproxySplice => "haproxy-splice",
            Self::Nginx => "nginx",
            Self::Envoy => "envoy",
            Self::GoLoadbalancer => "go-loadbalancer",
            Self::Bare => "bare",
        }
    }

    /// The proxy's configuration with its places filled in; none where it has none to show.
    pub(crate) fn configuration(self, setting: &Setting) -> Option<String> {
        let template = match self {
            Self::Direct | Self::Trivet | Self::Bare => return None,
            Self::Haproxy | Self::HaproxySplice => include_str!("peers/haproxy.cfg"),
            Self::Nginx => include_str!("peers/nginx.conf"),
            Self::Envoy => include_str!("peers/envoy.yaml"),
            Self::GoLoadbalancer => return Some(go_loadbalancer::PROGRAM.to_owned()),
        };
        let splice = if self == Self::HaproxySplice {
            "option splice-auto"
        } else {
            "# option splice-auto: a peer of its own"
        };
        let address = self.address();
        let places = [
            ("{name}", self.name().to_owned()),
            ("{directory}", setting.directory.display().to_string()),
            ("{connections}", self.capacity(setting.files).to_string()),
            ("{files}", setting.files.to_string()),
            ("{splice}", splice.to_owned()),
            ("{listen}", address.to_string()),
            ("{listen_port}", address.port().to_string()),
            ("{server}", SERVER.to_string()),
            ("{server_port}", SERVER.port().to_string()),
        ];
        let fill = |text: String, (place, value): &(&str, String)| text.replace(place, value);
        Some(places.iter().fold(template.to_owned(), fill))
    }

    fn address(self) -> SocketAddr {
        let port = match self {
            Self::Direct => return SERVER,
            Self::Trivet => 7443,
            Self::Haproxy => 7444,
            Self::HaproxySplice => 7445,
            Self::Nginx => 7446,
            Self::Envoy => 7447,
            Self::GoLoadbalancer => 7448,
            Self::Bare => 7449,
        };
        SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)
    }
}

/// What all peers share in one run.
#[derive(Debug)]
pub(crate) struct Setting {
    /// For configurations, sockets and logs.
    pub(crate) directory: PathBuf,
    /// The proxy under test.
    pub(crate) trivet: PathBuf,
    pub(crate) fetched: Fetched,
    pub(crate) authority: Authority,
    /// The limit of open files of every process.
    pub(crate) files: u64,
}

/// The programs of those peers that no Debian package has; nothing where they are not measured.
#[derive(Debug, Default)]
pub(crate) struct Fetched {
    envoy: PathBuf,
    go_loadbalancer: PathBuf,
}

/// A peer that runs.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) peer: Peer,
    pub(crate) address: SocketAddr,
    process: Option<Process>,
}

impl Running {
    /// Starts a peer and waits until it forwards.
    pub(crate) fn start(peer: Peer, setting: &Setting) -> Result<Self> {
        let process = match peer.command(setting)? {
            Some(command) => {
                let mut process = Process::start(peer.name(), &command, &setting.directory)?;
                process.wait_until(|| peer.is_ready(setting))?;
                Some(process)
            }
            None => None,
        };
        Ok(Self {
            peer,
            address: peer.address(),
            process,
        })
    }

    /// All its processes; none without a proxy.
    pub(crate) fn family(&self) -> Result<Option<Vec<u32>>> {
        self.process.as_ref().map(Process::family).transpose()
    }

    /// Lets it run on one CPU only.
    pub(crate) fn pin(&self, cpu: usize) -> Result<()> {
        self.family()?.map_or(Ok(()), |family| measure::pin(&family, cpu))
    }
}

impl Peer {
    fn command(self, setting: &Setting) -> Result<Option<Command>> {
        let mut command = match self {
            Self::Direct => return Ok(None),
            Self::Bare => return self.bare().map(Some),
            Self::GoLoadbalancer => return Ok(Some(go_loadbalancer::command(setting, self.address()))),
            Self::Trivet => trivet::command(setting),
            Self::Haproxy | Self::HaproxySplice => program("haproxy", &["-db", "-f"]),
            Self::Nginx => program("nginx", &["-e", "stderr", "-c"]),
            Self::Envoy => envoy::command(setting),
        };
        command.arg(match self.configuration(setting) {
            Some(text) => keep(&setting.directory, self.name(), &text)?,
            None => trivet::configuration(setting, self.address())?,
        });
        Ok(Some(command))
    }

    fn bare(self) -> Result<Command> {
        let program = std::env::current_exe().context("failed to find this program")?;
        let (listen, upstream) = (self.address().to_string(), SERVER.to_string());
        let arguments = ["bare", "--listen", &listen, "--upstream", &upstream];
        let mut command = Command::new(program);
        command.args(arguments);
        Ok(command)
    }

    /// Whether it forwards: the server's answer to a byte has come through it.
    fn is_ready(self, setting: &Setting) -> bool {
        echoes(self.address()).is_ok() && (self != Self::Trivet || trivet::is_ready(setting))
    }

    /// What it says its version is.
    pub(crate) fn version(self, setting: &Setting) -> Result<Option<String>> {
        let mut command = match self {
            Self::Direct | Self::HaproxySplice | Self::Bare => return Ok(None),
            Self::Trivet => program(&setting.trivet.to_string_lossy(), &["--version"]),
            Self::Haproxy => program("haproxy", &["-v"]),
            Self::Nginx => program("nginx", &["-v"]),
            Self::Envoy => program(&setting.fetched.envoy.to_string_lossy(), &["--version"]),
            Self::GoLoadbalancer => {
                program(&setting.fetched.go_loadbalancer.to_string_lossy(), &["--version"])
            }
        };
        let output = command
            .output()
            .with_context(|| format!("failed to ask {} for its version", self.name()))?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        let first = said.lines().map(str::trim).find(|line| !line.is_empty());
        // Envoy begins with its own path, which is nobody's business.
        let path = setting.fetched.envoy.display().to_string();
        Ok(first.map(|line| line.trim_start_matches(path.as_str()).trim().to_owned()))
    }
}

/// Has what must be fetched for these peers, and says where it is.
pub(crate) fn fetch(progress: &Progress, peers: &[Peer]) -> Result<Fetched> {
    let mut fetched = Fetched::default();
    if peers.contains(&Peer::Envoy) {
        fetched.envoy = envoy::ensure(progress)?;
    }
    if peers.contains(&Peer::GoLoadbalancer) {
        fetched.go_loadbalancer = go_loadbalancer::ensure(progress)?;
    }
    Ok(fetched)
}

fn program(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(name);
    command.args(arguments);
    command
}

fn keep(directory: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let extension = if name == "envoy" { "yaml" } else { "cfg" };
    let path = directory.join(format!("{name}.{extension}"));
    fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))?;
    Ok(path)
}

fn echoes(address: SocketAddr) -> io::Result<()> {
    use std::io::{Read as _, Write as _};
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(std::time::Duration::from_secs(1)))?;
    stream.write_all(&[crate::server::ECHO])?;
    stream.read_exact(&mut [0])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting() -> Setting {
        Setting {
            directory: "run".into(),
            trivet: PathBuf::new(),
            fetched: Fetched::default(),
            authority: Authority {
                bundle: PathBuf::new(),
                certificate: PathBuf::new(),
                key: PathBuf::new(),
            },
            files: 20_000,
        }
    }

    #[test]
    fn no_place_of_a_configuration_is_left_open() {
        for peer in Peer::ALL {
            let text = peer.configuration(&setting()).unwrap_or_default();
            for place in [
                "{name",
                "{directory",
                "{connections",
                "{files",
                "{splice",
                "{listen",
                "{server",
            ] {
                assert!(!text.contains(place), "{place} in that of {}", peer.name());
            }
        }
    }

    #[test]
    fn splicing_is_the_only_thing_that_its_peer_does_otherwise() {
        let splicing = Peer::HaproxySplice.configuration(&setting()).unwrap();
        let plain = Peer::Haproxy.configuration(&setting()).unwrap();
        let active = |text: &str| text.lines().any(|line| line.trim() == "option splice-auto");
        assert!(active(&splicing) && !active(&plain));
    }

    #[test]
    fn every_peer_has_an_address_of_its_own() {
        for (index, peer) in Peer::ALL.iter().enumerate() {
            for other in Peer::ALL.iter().skip(index + 1) {
                assert_ne!(peer.address(), other.address());
            }
        }
    }
}
