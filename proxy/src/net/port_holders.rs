//! Who else listens on an address: read from the kernel's tables of sockets and from /proc, as far as this process may.
//!
//! A process of another PID namespace, a pod's say, has a socket in the tables and no entry in /proc: then its user is all
//! that is known.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fmt, fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd, AsRawFd},
    path::{Path, PathBuf},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::Uid,
};

/// The state of a socket that listens (`TCP_LISTEN`), as the tables write it.
const LISTEN: &str = "0A";

/// The name of a proxy's program.
const PROGRAM: &str = "trivet-proxy";

/// The kernel's tables of TCP sockets in this network namespace.
const TABLES: [&str; 2] = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];

/// A listening socket of the kernel's tables.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Socket {
    inode: u64,
    uid: u32,
}

/// A process that holds a listening socket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    uid: u32,
    process: Option<Process>,
}

/// A process that /proc shows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Process {
    pid: u32,
    name: String,
    /// The file name of its executable; none where that may not be read.
    executable: Option<OsString>,
}

impl Holder {
    /// Whether it is another program for sure: this proxy shares its port with a predecessor only.
    pub fn is_stranger(&self) -> bool {
        let executable = self
            .process
            .as_ref()
            .and_then(|process| process.executable.as_ref());
        executable
            .is_some_and(|executable| executable != PROGRAM && Some(executable) != own_executable().as_ref())
    }

    /// The program's name, for metrics.
    pub fn name(&self) -> &str {
        self.process.as_ref().map_or("unknown", |process| &process.name)
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.process {
            Some(Process { pid, name, .. }) => write!(f, "{name} (pid {pid}, uid {})", self.uid),
            None => write!(f, "a process of uid {} that cannot be seen from here", self.uid),
        }
    }
}

/// The sockets that listen where a client of `address` may reach them, but for `own`. Listening sockets are the first
/// lines of the tables, so this is cheap.
pub fn sockets(address: SocketAddr, own: Option<&impl AsRawFd>) -> BTreeSet<Socket> {
    let own = own.and_then(|own| own_inode(own).ok()?);
    let mut found = BTreeSet::new();
    for table in TABLES {
        // Without IPv6 there is no table of it; what cannot be read names nobody.
        if let Ok(lines) = listening_lines(Path::new(table)) {
            found.extend(lines.iter().filter_map(|line| listening(line, address)));
        }
    }
    found.retain(|socket| Some(socket.inode) != own);
    found
}

/// Whether another socket of this user listens where a client of `address` may reach it.
pub fn is_shared(address: SocketAddr, own: &impl AsRawFd) -> bool {
    // Otherwise it would take itself for another.
    if !matches!(own_inode(own), Ok(Some(_))) {
        return false;
    }
    let user = Uid::effective().as_raw();
    sockets(address, Some(own))
        .iter()
        .any(|socket| socket.uid == user)
}

/// How many clients wait to be accepted from a listening socket; none if it does not listen any more. The kernel writes
/// the length of the accept queue where other sockets have their receive queue, and it is the same for all duplicates of
/// the socket, in whatever process. This reads the first lines of the tables only, and only where somebody waits: the kernel
/// walks the buckets of its hash tables for each read. It needs no TCP_INFO, which no safe crate reads.
pub fn queue_length(socket: &(impl AsRawFd + AsFd)) -> io::Result<Option<u32>> {
    if is_quiet(socket)? {
        return Ok(Some(0));
    }
    let Some(inode) = own_inode(socket)? else {
        return Ok(None);
    };
    for table in TABLES {
        let lines = match listening_lines(Path::new(table)) {
            // Without IPv6 there is no table of it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            lines => lines?,
        };
        if let Some(waiting) = lines.iter().find_map(|line| waiting(line, inode)) {
            return Ok(Some(waiting));
        }
    }
    Ok(None)
}

/// Whether a socket listens and nobody waits to be accepted.
fn is_quiet(socket: &impl AsFd) -> io::Result<bool> {
    let mut polled = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    Ok(poll(&mut polled, PollTimeout::ZERO)? == 0)
}

/// The processes that hold these sockets. This reads the open files of every process: not for the event loop.
pub fn holders(sockets: &BTreeSet<Socket>) -> Vec<Holder> {
    let mut holders = BTreeSet::new();
    for socket in sockets {
        let processes: Vec<_> = processes_with(socket.inode).collect();
        if processes.is_empty() {
            holders.insert(Holder {
                uid: socket.uid,
                process: None,
            });
        }
        holders.extend(processes.into_iter().map(|process| Holder {
            uid: socket.uid,
            process: Some(process),
        }));
    }
    holders.into_iter().collect()
}

/// The lines of a table up to the first socket that does not listen.
fn listening_lines(table: &Path) -> io::Result<Vec<String>> {
    use io::BufRead;

    let lines = io::BufReader::new(fs::File::open(table)?).lines().skip(1);
    lines
        .take_while(|line| {
            line.as_ref()
                .map_or(true, |line| line.split_whitespace().nth(3) == Some(LISTEN))
        })
        .collect()
}

/// The socket of a line, if it listens where a client of `address` may reach it.
fn listening(line: &str, address: SocketAddr) -> Option<Socket> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let &[_, local, _, state, _, _, _, uid, _, inode, ..] = fields.as_slice() else {
        return None;
    };
    let (ip, port) = local.split_once(':')?;
    let (ip, port) = (parse_ip(ip)?, u16::from_str_radix(port, 16).ok()?);
    let reached = ip.to_canonical() == address.ip().to_canonical()
        || ip == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        || ip == IpAddr::V4(Ipv4Addr::UNSPECIFIED) && address.is_ipv4();
    if state != LISTEN || port != address.port() || !reached {
        return None;
    }
    Some(Socket {
        inode: inode.parse().ok()?,
        uid: uid.parse().ok()?,
    })
}

/// The length of the accept queue in a line, if it is that of the socket with this inode.
fn waiting(line: &str, inode: u64) -> Option<u32> {
    let mut fields = line.split_whitespace();
    let (_sent, waiting) = fields.nth(4)?.split_once(':')?;
    if fields.nth(4)?.parse() != Ok(inode) {
        return None;
    }
    u32::from_str_radix(waiting, 16).ok()
}

/// Addresses are written as words of 32 bits, each in the machine's order.
fn parse_ip(text: &str) -> Option<IpAddr> {
    let word = |index: usize| {
        let digits = text.get(index * 8..index * 8 + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let bytes: Vec<u8> = words.concat();
            Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into())
        }
        _ => None,
    }
}

/// The processes that have this socket open, as far as this one may see.
fn processes_with(inode: u64) -> impl Iterator<Item = Process> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.filter_map(move |entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let mut files = fs::read_dir(entry.path().join("fd")).ok()?.flatten();
        files.find(|file| {
            fs::read_link(file.path())
                .ok()
                .and_then(|target| inode_of(&target))
                == Some(inode)
        })?;
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        Some(Process {
            pid,
            name: name.trim_end().to_owned(),
            executable: fs::read_link(entry.path().join("exe")).ok().and_then(file_name),
        })
    })
}

/// The inode of a socket of this process; none if the descriptor is no socket.
fn own_inode(own: &impl AsRawFd) -> io::Result<Option<u64>> {
    let link = fs::read_link(format!("/proc/self/fd/{}", own.as_raw_fd()))?;
    Ok(inode_of(&link))
}

/// The inode of a socket by its link: `socket:[4711]`.
fn inode_of(link: &Path) -> Option<u64> {
    let link = link.to_str()?;
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

fn own_executable() -> Option<OsString> {
    fs::read_link("/proc/self/exe").ok().and_then(file_name)
}

/// The file's name. The kernel appends a word to the link where the file was replaced, as an upgrade does.
fn file_name(executable: PathBuf) -> Option<OsString> {
    let name = executable.file_name()?;
    let name = name.to_str().map_or(name, |name| {
        OsStr::new(name.strip_suffix(" (deleted)").unwrap_or(name))
    });
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use std::{
        net::{Shutdown, TcpListener, TcpStream},
        thread,
        time::Duration,
    };

    use socket2::SockRef;
    use tokio::time::Instant;

    use super::*;

    const LOOPBACK: &str = "   0: 0100007F:1D13 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0000 100 0 0 10 0";
    const EVERYWHERE_V6: &str = "   1: 00000000000000000000000000000000:192B 00000000000000000000000000000000:0000 0A \
         00000000:00000000 00:00000000 00000000     0        0 4712 1 0000 100 0 0 10 0";
    const LOOPBACK_V6: &str = "   1: 00000000000000000000000001000000:1D13 00000000000000000000000000000000:0000 0A \
         00000000:00000000 00:00000000 00000000     0        0 4713 1 0000 100 0 0 10 0";

    fn inode(line: &str, address: &str) -> Option<u64> {
        listening(line, address.parse().unwrap()).map(|socket| socket.inode)
    }

    #[test]
    fn a_line_is_matched_by_address_and_port() {
        let loopback = listening(LOOPBACK, "127.0.0.1:7443".parse().unwrap()).unwrap();
        assert_eq!((loopback.inode, loopback.uid), (4711, 1000));
        assert_eq!(inode(LOOPBACK, "127.0.0.1:7444"), None);
        assert_eq!(inode(LOOPBACK, "127.0.0.2:7443"), None);
        assert_eq!(inode(LOOPBACK, "[::1]:7443"), None);
        assert_eq!(inode(LOOPBACK_V6, "[::1]:7443"), Some(4713));
        assert_eq!(inode(&LOOPBACK.replace(" 0A ", " 01 "), "127.0.0.1:7443"), None);
        assert_eq!(inode("nonsense", "127.0.0.1:7443"), None);
    }

    #[test]
    fn who_listens_everywhere_listens_on_either_loopback() {
        for address in ["127.0.0.1:6443", "[::1]:6443"] {
            assert_eq!(inode(EVERYWHERE_V6, address), Some(4712), "{address}");
        }
    }

    #[test]
    fn this_process_is_found_and_is_no_stranger() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let found = sockets(address, None::<&TcpListener>);
        assert_eq!(found.len(), 1, "{found:?}");
        let holders = holders(&found);
        assert_eq!(holders[0].process.as_ref().unwrap().pid, std::process::id());
        assert!(!holders[0].is_stranger());
        assert_eq!(sockets(address, Some(&listener)), BTreeSet::new());
    }

    #[test]
    fn a_line_tells_how_many_clients_wait() {
        assert_eq!(waiting(LOOPBACK, 4711), Some(0));
        assert_eq!(waiting(LOOPBACK, 4712), None);
        let waited_for = LOOPBACK_V6.replace("00000000:00000000", "00000000:0000001F");
        assert_eq!(waiting(&waited_for, 4713), Some(31));
        assert_eq!(waiting("nonsense", 4711), None);
    }

    #[test]
    fn every_duplicate_of_a_socket_counts_the_clients_that_wait() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let duplicate = listener.try_clone().unwrap();
        let address = listener.local_addr().unwrap();
        let _clients = [(); 3].map(|()| TcpStream::connect(address).unwrap());
        let seen = || queue_length(&duplicate).unwrap();
        // A client may be connected a moment before the kernel has queued it.
        let deadline = Instant::now() + Duration::from_secs(20);
        while seen() != Some(3) {
            assert!(Instant::now() < deadline, "{:?}", seen());
            thread::yield_now();
        }
        let _accepted = listener.accept().unwrap();
        assert_eq!(seen(), Some(2));
        SockRef::from(&listener).shutdown(Shutdown::Both).unwrap();
        assert_eq!(seen(), None);
    }

    #[test]
    fn a_file_has_no_clients() {
        let file = fs::File::open("/proc/self/net/tcp").unwrap();
        assert_eq!(queue_length(&file).unwrap(), None);
    }

    #[test]
    fn another_program_is_a_stranger_and_an_unseen_one_is_not_known_to_be() {
        let holder = |executable: Option<&str>| Holder {
            uid: 0,
            process: Some(Process {
                pid: 812,
                name: "haproxy".to_owned(),
                executable: executable.map(OsString::from),
            }),
        };
        assert!(holder(Some("haproxy")).is_stranger());
        assert!(!holder(Some("trivet-proxy")).is_stranger());
        assert!(!holder(None).is_stranger());
        assert_eq!(holder(None).to_string(), "haproxy (pid 812, uid 0)");
        let unseen = Holder {
            uid: 0,
            process: None,
        };
        assert!(!unseen.is_stranger());
        assert_eq!(
            unseen.to_string(),
            "a process of uid 0 that cannot be seen from here"
        );
    }

    #[test]
    fn a_replaced_executable_keeps_its_name() {
        let name = file_name(PathBuf::from("/usr/bin/trivet-proxy (deleted)"));
        assert_eq!(name.as_deref(), Some(OsStr::new(PROGRAM)));
    }
}
