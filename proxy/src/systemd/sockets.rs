//! The listening sockets that systemd passed.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    io,
    net::{SocketAddr, TcpListener},
    os::fd::AsRawFd,
    sync::Arc,
};

use listenfd::ListenFd;
use socket2::{Protocol, SockRef};

use super::Error;

/// The first file descriptor that systemd passes (`SD_LISTEN_FDS_START`).
const FIRST: usize = 3;

/// The passed sockets by their addresses. The address alone says which listener a socket serves; its name is for messages.
#[derive(Clone, Debug, Default)]
pub struct PassedSockets(Arc<BTreeMap<SocketAddr, PassedSocket>>);

/// A passed socket. The process keeps this file descriptor as long as it lives, so that nobody else gets the address.
#[derive(Debug)]
pub struct PassedSocket {
    name: String,
    listener: TcpListener,
}

impl PassedSockets {
    /// Takes the file descriptors that the environment announces, as many as there are names. See [`super::Service::take`].
    pub(super) fn take(names: &[String]) -> Result<Self, Error> {
        if names.is_empty() {
            return Ok(Self::default());
        }
        let mut passed = ListenFd::from_env();
        let mut listeners = Vec::new();
        for (index, name) in names.iter().enumerate() {
            let fault = |fault: String| Error::NotAListener {
                number: FIRST + index,
                name: name.clone(),
                fault,
            };
            let taken = passed.take_tcp_listener(index);
            let listener = taken.map_err(|error| fault(error.to_string()))?;
            let listener = listener.ok_or_else(|| fault("it is not there".to_owned()))?;
            listeners.push((name.clone(), listener));
        }
        Self::new(listeners)
    }

    /// Checks sockets, and prepares them for this proxy.
    pub fn new(listeners: impl IntoIterator<Item = (String, TcpListener)>) -> Result<Self, Error> {
        let mut sockets = BTreeMap::new();
        for (name, listener) in listeners {
            check(&name, &listener)?;
            let address = prepare(&listener).map_err(|source| Error::Io {
                name: name.clone(),
                source,
            })?;
            match sockets.entry(address) {
                Entry::Vacant(vacant) => vacant.insert(PassedSocket { name, listener }),
                Entry::Occupied(_) => return Err(Error::Twice(address)),
            };
        }
        Ok(Self(Arc::new(sockets)))
    }

    /// The socket with this address.
    pub fn get(&self, address: SocketAddr) -> Option<&PassedSocket> {
        self.0.get(&address)
    }

    /// The addresses of all sockets.
    pub fn addresses(&self) -> BTreeSet<SocketAddr> {
        self.0.keys().copied().collect()
    }

    /// Which sockets have none of these addresses, each with its name; none if there is no such socket.
    pub fn others(&self, wanted: &[SocketAddr]) -> Option<String> {
        let others = self.0.iter().filter(|(address, _)| !wanted.contains(address));
        let others: Vec<_> = others
            .map(|(address, socket)| format!("{address} ({})", socket.name))
            .collect();
        (!others.is_empty()).then(|| others.join(", "))
    }
}

impl PassedSocket {
    /// Another file descriptor of the socket, to accept on. Its drop ends nothing: clients wait in the queue for the next
    /// one that accepts, in this process or in the next.
    pub fn open(&self) -> io::Result<tokio::net::TcpListener> {
        tokio::net::TcpListener::from_std(self.listener.try_clone()?)
    }
}

fn check(name: &str, listener: &TcpListener) -> Result<(), Error> {
    let socket = SockRef::from(listener);
    let fault = match (socket.protocol(), socket.is_listener()) {
        (Ok(Some(Protocol::TCP)), Ok(true)) => return Ok(()),
        (Ok(Some(Protocol::TCP)), Ok(false)) => "it does not listen".to_owned(),
        (Ok(protocol), Ok(_)) => format!("its protocol is {protocol:?}"),
        (Err(error), _) | (_, Err(error)) => error.to_string(),
    };
    Err(Error::NotAListener {
        number: usize::try_from(listener.as_raw_fd()).unwrap_or_default(),
        name: name.to_owned(),
        fault,
    })
}

/// Sets what accepted sockets inherit, so that it does not depend on the socket unit. Returns the address.
fn prepare(listener: &TcpListener) -> io::Result<SocketAddr> {
    listener.set_nonblocking(true)?;
    SockRef::from(listener).set_tcp_nodelay(true)?;
    listener.local_addr()
}

#[cfg(test)]
mod tests {
    use socket2::{Domain, Socket, Type};

    use super::*;

    fn listener() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").unwrap()
    }

    #[test]
    fn a_socket_is_found_by_its_address_and_the_others_are_named() {
        let (api, stray) = (listener(), listener());
        let (address, other) = (api.local_addr().unwrap(), stray.local_addr().unwrap());
        let sockets =
            PassedSockets::new([("api".to_owned(), api), ("stray.socket".to_owned(), stray)]).unwrap();
        assert!(sockets.get(address).is_some());
        assert_eq!(
            sockets.others(&[address]).unwrap(),
            format!("{other} (stray.socket)")
        );
        assert_eq!(sockets.others(&[address, other]), None);
    }

    #[test]
    fn a_socket_that_does_not_listen_is_named() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket
            .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
            .unwrap();
        let error = PassedSockets::new([("api".to_owned(), socket.into())]).unwrap_err();
        assert!(error.to_string().contains("(\"api\")"), "{error}");
        assert!(error.to_string().contains("it does not listen"), "{error}");
    }

    #[test]
    fn two_sockets_with_one_address_are_an_error() {
        let first = listener();
        let second = first.try_clone().unwrap();
        let error = PassedSockets::new([("a".to_owned(), first), ("b".to_owned(), second)]).unwrap_err();
        assert!(error.to_string().contains("two sockets"), "{error}");
    }
}
