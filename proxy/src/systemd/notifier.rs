//! Messages to systemd, one datagram each.

use std::{
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
};

/// The socket at which systemd hears this service.
///
/// It is written here because the crates for it read the environment at every message, know no abstract addresses, and
/// block while systemd is busy.
#[derive(Clone, Debug)]
pub struct Notifier {
    address: SocketAddr,
}

impl Notifier {
    /// The socket with this address: a path, or `@` and a name of the abstract namespace. None if it is neither.
    pub fn new(address: &OsStr) -> Option<Self> {
        let address = match address.as_bytes() {
            [b'/', ..] => SocketAddr::from_pathname(address),
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
            _ => return None,
        };
        Some(Self {
            address: address.ok()?,
        })
    }

    /// Sends lines such as `READY=1`. Fails rather than waits if systemd does not read its messages.
    pub fn send(&self, message: &str) -> io::Result<()> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.send_to_addr(message.as_bytes(), &self.address)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn a_message_reaches_a_path_and_an_abstract_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let name = [b"@".to_vec(), path.clone().into_os_string().into_vec()].concat();
        let abstract_address = SocketAddr::from_abstract_name(&name[1..]).unwrap();
        for (server, address) in [
            (UnixDatagram::bind(&path).unwrap(), path.as_os_str()),
            (
                UnixDatagram::bind_addr(&abstract_address).unwrap(),
                OsStr::from_bytes(&name),
            ),
        ] {
            Notifier::new(address).unwrap().send("READY=1").unwrap();
            let mut message = [0; 64];
            let length = server.recv(&mut message).unwrap();
            assert_eq!(&message[..length], b"READY=1");
        }
    }

    #[test]
    fn an_address_of_another_kind_is_none() {
        for address in ["", "relative", "vsock:2:9999"] {
            assert!(Notifier::new(address.as_ref()).is_none(), "{address:?}");
        }
    }
}
