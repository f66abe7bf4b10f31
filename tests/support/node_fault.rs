//! What can be wrong with a node when its proxy or the writer of its standby's manifest starts there.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use trivet_crds::wire::Document;
use trivet_testbed::Host;
use trivet_testbed::address::MACHINE_V6;

use crate::inside::{self, inside};

/// Where the proxies of the pool keep their last good documents, as each host sees it.
const CACHE: &str = "/var/lib/trivet/default";

/// Where the proxies of a node meet, as each host sees it.
const HAND_OVER: &str = "/run/trivet/default";

/// Where containerd puts the file systems of containers.
const CONTAINERS: &str = "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots";

/// Kubelet's directory of static pods.
const MANIFESTS: &str = "/etc/kubernetes/manifests";

/// An authority that has issued no apiserver's certificate.
const OTHER_AUTHORITY: &str = "/etc/kubernetes/pki/front-proxy-ca.crt";

/// What stands in a document that is damaged.
const GARBAGE: &str = "garbage";

/// The pause between two attempts to take a port: much shorter than a container's start.
const AGAIN: Duration = Duration::from_millis(5);

/// A port that its holder has left is free at once.
const TAKEN: Duration = Duration::from_secs(10);

/// A fault of a node. What a container has mounted stays in it, so a fault of a directory is met by the containers that
/// start later, and `lift_all` frees only those that start after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeFault {
    /// The disk with the cached documents is full, and none of them is left on it.
    DiskFull,
    /// The disk on which containerd makes the file systems of containers is full: those that run go on, and none starts.
    NoRoomForContainers,
    /// Every file of the cache is damaged.
    CacheCorrupt,
    /// The cache has a document of another cluster, with a higher revision than that of this cluster.
    CacheOfAnotherCluster,
    /// IPv6 is turned off on all links, the loopback included.
    Ipv6Off,
    /// The directory in which the proxies of the node meet is on a read-only file system.
    HandOverReadOnly,
    /// The cache cannot be written, also by a proxy that runs.
    CacheUnwritable,
    /// No socket can be where the proxies of the node meet, also that of a proxy that runs.
    HandOverPathTaken,
    /// Kubelet's directory of static pods is not there.
    NoManifests,
    /// Kubelet's directory of static pods is on a read-only file system.
    ManifestsReadOnly,
}

impl NodeFault {
    /// Makes it happen to a host.
    pub fn inject(self, host: &Host) -> Result<()> {
        let script = match self {
            Self::DiskFull => {
                // The smallest size of a tmpfs is a page.
                "mkdir -p $cache; mount -t tmpfs -o size=16k,mode=755 tmpfs $cache
                 ! head -c 1M /dev/zero >$cache/filler 2>/dev/null"
            }
            // Without a free inode. What would fill it instead, containerd would take for its own garbage.
            Self::NoRoomForContainers => {
                "mount -t tmpfs -o nr_inodes=1,mode=700 tmpfs $containers
                 ! mkdir $containers/full 2>/dev/null"
            }
            Self::CacheCorrupt => {
                // Without a document there is nothing to damage.
                "ls $cache/document-*.json >/dev/null
                 for file in $cache/document-*.json $cache/proven.json; do echo $garbage >$file; done"
            }
            Self::CacheOfAnotherCluster => return cache_of_another_cluster(host),
            Self::Ipv6Off => "echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6",
            Self::HandOverReadOnly => "mkdir -p $hand_over; read_only $hand_over",
            // Root without capabilities is bound by modes.
            Self::CacheUnwritable => "chmod 0555 $cache",
            // No socket replaces a directory. A proxy whose socket is gone makes another within a quarter of a second.
            Self::HandOverPathTaken => "until mkdir $socket 2>/dev/null; do rm -f $socket; done",
            Self::NoManifests => "mv $manifests $manifests.away",
            Self::ManifestsReadOnly => "read_only $manifests",
        };
        run(host, script)
    }
}

/// Replaces the cached documents of a host by one whose authority is not that of the apiservers.
fn cache_of_another_cluster(host: &Host) -> Result<()> {
    let cache = host.file(CACHE);
    let entries = fs::read_dir(&cache).with_context(|| format!("failed to read {}", cache.display()))?;
    let paths: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.to_string_lossy().contains("/document-"))
        .collect();
    // The names are those of the revisions.
    let newest = paths.iter().max().context("there is no document")?;
    let mut document = Document::parse(&fs::read_to_string(newest)?)?;
    document.revision += 1;
    document.tls.ca_bundle = fs::read_to_string(host.file(OTHER_AUTHORITY))?;
    let name = format!("document-{:020}.json", document.revision);
    let text = document.seal()?.to_text()?;
    for path in &paths {
        fs::remove_file(path)?;
    }
    Ok(fs::write(cache.join(name), text)?)
}

/// Makes room on a disk that [`NodeFault::DiskFull`] has filled.
pub fn make_room(host: &Host) -> Result<()> {
    run(host, "rm $cache/filler")
}

/// Turns IPv6 on again, if [`NodeFault::Ipv6Off`] has turned it off.
pub fn turn_ipv6_on(host: &Host) -> Result<()> {
    // The kernel forgets the addresses and routes of a link without IPv6.
    let script = format!(
        "if [ $(cat /proc/sys/net/ipv6/conf/all/disable_ipv6) = 1 ]; then
             echo 0 >/proc/sys/net/ipv6/conf/all/disable_ipv6
             ip address replace {}/64 dev eth0 nodad
             ip -6 route replace default via {MACHINE_V6}
         fi",
        host.ipv6()
    );
    run(host, &script)
}

/// Lifts every fault of a host. Nothing happens to one that has none.
pub fn lift_all(host: &Host) -> Result<()> {
    turn_ipv6_on(host)?;
    let script = "for directory in $cache $hand_over $manifests $containers; do
             while mountpoint -q $directory; do umount --lazy $directory; done
         done
         if [ -d $cache ]; then chmod 0755 $cache; fi
        if [ -d $socket ]; then rmdir $socket; fi
        if [ -d $manifests.away ]; then mv $manifests.away $manifests; fi
         for file in $cache/document-*.json $cache/proven.json; do
             if [ \"$(head -c 7 $file 2>/dev/null)\" = $garbage ]; then rm $file; fi
         done";
    run(host, script)
}

/// Runs this in a host, stopping at the first command that fails.
fn run(host: &Host, script: &str) -> Result<()> {
    let script = format!(
        "cache={CACHE} hand_over={HAND_OVER} socket={HAND_OVER}/socket manifests={MANIFESTS} containers={CONTAINERS} garbage={GARBAGE}
         # Of the whole file system: a container may be given a mount of its own that is writable.
         read_only() {{ mount -t tmpfs -o mode=755 tmpfs $1; mount -o remount,ro $1; }}
         {script}"
    );
    inside::script(host, &script)
}

/// Another program that listens where a node's proxy does. It accepts clients and says nothing.
#[derive(Debug)]
pub struct Stranger {
    stop: DropGuard,
    listens: oneshot::Receiver<()>,
    task: JoinHandle<Result<()>>,
}

impl Stranger {
    /// Takes an address of a host as soon as it is free.
    pub fn lurk(host: &Host, address: SocketAddr) -> Self {
        let (host, stop) = (host.clone(), CancellationToken::new());
        let (tell, listens) = oneshot::channel();
        let stopped = stop.clone();
        let work = move || async move {
            let hold = async {
                let listener = loop {
                    match TcpListener::bind(address).await {
                        Ok(listener) => break listener,
                        Err(_held) => sleep(AGAIN).await,
                    }
                };
                // The scenario may have ended.
                let _is_awaited = tell.send(());
                let mut clients = Vec::new();
                while let Ok((client, _)) = listener.accept().await {
                    clients.push(client);
                }
            };
            let _ends_by_the_stop = stopped.run_until_cancelled(hold).await;
        };
        let task = tokio::spawn(async move { inside(&host, work).await });
        Self {
            stop: stop.drop_guard(),
            listens,
            task,
        }
    }

    /// Waits until it has the address.
    pub async fn listens(&mut self) -> Result<()> {
        timeout(TAKEN, &mut self.listens)
            .await
            .context("the port does not become free")?
            .context("the other program has ended")
    }

    /// Ends, with all its connections.
    pub async fn leave(self) -> Result<()> {
        drop(self.stop);
        self.task.await.context("the other program was lost")?
    }
}
