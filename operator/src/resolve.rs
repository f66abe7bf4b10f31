//! Resolves the DNS names of `spec.members`, so that no proxy ever needs DNS.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use futures::future::join_all;
use tokio::net::lookup_host;
use tokio::time::timeout;
use trivet_crds::pool::ApiserverPoolSpec;

use crate::plan::masters::is_usable;

/// A pass does not wait longer for names. The last known addresses stay in force meanwhile.
const TIMEOUT: Duration = Duration::from_millis(800);

/// Every address of the spec that is a name, resolved or with the reason why not.
pub async fn names(spec: &ApiserverPoolSpec) -> BTreeMap<String, Result<Vec<IpAddr>, String>> {
    let listed = spec.members.iter().flat_map(|member| &member.addresses);
    let names: BTreeSet<_> = listed
        .filter(|text| text.parse::<IpAddr>().is_err())
        .cloned()
        .collect();
    join_all(names.into_iter().map(resolve))
        .await
        .into_iter()
        .collect()
}

async fn resolve(name: String) -> (String, Result<Vec<IpAddr>, String>) {
    let found = match timeout(TIMEOUT, lookup_host((name.as_str(), 0))).await {
        Ok(Ok(sockets)) => {
            // In a fixed order: servers rotate theirs, and that is no change.
            let usable: BTreeSet<_> = sockets.map(|socket| socket.ip()).filter(is_usable).collect();
            if usable.is_empty() {
                Err("it has no address that other hosts can reach".to_owned())
            } else {
                Ok(usable.into_iter().collect())
            }
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} ms", TIMEOUT.as_millis())),
    };
    (name, found)
}
