//! Addresses for the proxies of tests.

use std::{
    net::{SocketAddr, TcpListener},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

const FIRST_PORT: u32 = 20_000;
const PORTS: u32 = 10_000;

/// A free loopback address whose port is below those that the kernel gives to `:0` and to connections
/// (`net.ipv4.ip_local_port_range`): one of these could be taken before the proxy binds it, also by the test's own
/// apiserver.
pub(crate) fn free_address() -> SocketAddr {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    // Test programs that run side by side begin at different ports.
    let begin = process::id() % 100 * 100;
    loop {
        let offset = (begin + GIVEN.fetch_add(1, Ordering::Relaxed)) % PORTS;
        let port = u16::try_from(FIRST_PORT + offset).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}
