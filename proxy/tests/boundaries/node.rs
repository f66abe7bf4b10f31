//! A node: the port, the document and the directory that its proxies share.

use std::{fs, net::SocketAddr, path::PathBuf};

use tempfile::TempDir;
use trivet_crds::wire::{
    API_VERSION, Balancing, Connection, Document, HealthCheck, Listener, Member, MemberState, RolloutTarget,
    Tls,
};

use crate::{addresses::free_address, apiserver::Apiserver, authority::NAME};

/// A node on which nothing runs yet.
pub(crate) struct Node {
    pub(crate) address: SocketAddr,
    disk: TempDir,
}

impl Node {
    pub(crate) fn new(apiserver: &Apiserver) -> Self {
        let address = free_address();
        let disk = tempfile::tempdir().unwrap();
        fs::write(disk.path().join("pool.json"), document(address, apiserver)).unwrap();
        Self { address, disk }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.disk.path().join(name)
    }
}

fn document(address: SocketAddr, apiserver: &Apiserver) -> String {
    let document = Document {
        api_version: API_VERSION.to_owned(),
        pool: "default".to_owned(),
        revision: 1,
        hash: String::new(),
        members: vec![Member {
            name: "cp1".to_owned(),
            addresses: vec![apiserver.address.ip()],
            port: apiserver.address.port(),
            state: MemberState::Active,
            zone: String::new(),
            node_name: String::new(),
        }],
        disabled_members: Vec::new(),
        further_endpoints: Vec::new(),
        listeners: vec![Listener::apiserver(vec![address.ip()], address.port())],
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
            max_connections: 1000,
        },
        nodes: 5,
        tls: Tls {
            ca_bundle: apiserver.authority.bundle.clone(),
            server_name: NAME.to_owned(),
        },
    };
    document.seal().unwrap().to_text().unwrap()
}
