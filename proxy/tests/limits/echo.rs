//! An upstream that says what it hears, and ends when its client does. It is no apiserver, so it never proves itself;
//! where nobody else is left it is used all the same.

use std::net::SocketAddr;

use tokio::{io, net::TcpSocket};
use tokio_util::task::AbortOnDropHandle;

/// A running echo.
pub(crate) struct Echo {
    pub(crate) address: SocketAddr,
    _process: AbortOnDropHandle<()>,
}

impl Echo {
    pub(crate) fn start() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(4096).unwrap();
        let address = listener.local_addr().unwrap();
        let process = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    // However a client ends is its own affair.
                    drop(io::copy(&mut read, &mut write).await);
                });
            }
        });
        Self {
            address,
            _process: AbortOnDropHandle::new(process),
        }
    }
}
