//! A listener on loopback is for the node alone, even where the node forwards to it (CVE-2020-8558).

use std::net::SocketAddr;

use anyhow::Result;
use tokio::{io::AsyncReadExt, net::TcpStream};
use trivet_lab::Place;

use crate::support::serving;

#[test]
fn whatever_the_node_forwards() -> Result<()> {
    serving(1, async |lab| {
        let forward = "table ip forward { chain arriving { \
            type nat hook prerouting priority -100; iifname eth0 tcp dport 7443 dnat to 127.0.0.1; }; }";
        lab.rules(Place::Node, forward).await?;
        lab.sysctl(Place::Node, "net.ipv4.conf.eth0.route_localnet=1")
            .await?;
        let node = SocketAddr::new(Place::Node.ipv4(), 7443);
        let end = lab
            .at(Place::Member(1), move || async move {
                let mut stream = TcpStream::connect(node).await?;
                stream.read_u8().await
            })
            .await?;
        assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
        assert_eq!(lab.proxy().ended("NotLoopback").await, 1);
        assert_eq!(lab.client().who().await?, "cp1");
        Ok(())
    })
}
