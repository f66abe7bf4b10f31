//! Which servers the clients of a listener address reach. The document decides, then the process that lent the socket; an address
//! that neither names is for the apiservers, as in releases without extra listeners.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::Map;
use trivet_crds::wire::Listener;

use super::extras::Extras;
use crate::{connection::Shared, handover::record};

/// The routes of all listener addresses.
#[derive(Debug)]
pub(super) struct Routes {
    apiservers: Arc<Shared>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// The addresses of the document in force.
    in_document: BTreeSet<SocketAddr>,
    /// By the document in force, and by the last one of addresses that have left it and are still attended to.
    named: BTreeMap<SocketAddr, Route>,
    /// What another process has said of the sockets that it lent.
    lent: BTreeMap<SocketAddr, record::Listener>,
}

#[derive(Debug)]
struct Route {
    listener: record::Listener,
    shared: Arc<Shared>,
}

impl Routes {
    pub(super) fn new(apiservers: Arc<Shared>) -> Self {
        Self {
            apiservers,
            known: Mutex::default(),
        }
    }

    /// The document has these listeners. Of the other addresses only those are kept that are still attended to.
    pub(super) fn apply(&self, listeners: &[Listener], extras: &Extras, attended: &BTreeSet<SocketAddr>) {
        let mut known = self.known();
        known.in_document = listeners.iter().flat_map(Listener::sockets).collect();
        let named = &mut known.named;
        named.retain(|address, _| attended.contains(address));
        for listener in listeners {
            let shared = if listener.is_extra() {
                extras.get(&listener.name)
            } else {
                Some(Arc::clone(&self.apiservers))
            };
            let Some(shared) = shared else {
                continue;
            };
            for address in listener.sockets() {
                let route = Route {
                    listener: record::Listener {
                        name: listener.name.clone(),
                        kind: listener.kind.into(),
                        address,
                        other: Map::new(),
                    },
                    shared: Arc::clone(&shared),
                };
                named.insert(address, route);
            }
        }
    }

    /// Nobody attends to this address any more. Its route goes, unless the document has the address.
    pub(super) fn forget(&self, address: SocketAddr) {
        let mut known = self.known();
        if !known.in_document.contains(&address) {
            known.named.remove(&address);
        }
    }

    /// Another process has lent the sockets of these listeners, and no others.
    pub(super) fn lend(&self, listeners: &[record::Listener]) {
        let lent = listeners.iter();
        self.known().lent = lent
            .map(|listener| (listener.address, listener.clone()))
            .collect();
    }

    /// What the connections of clients of this address share; none if it is known to be of no use to this process.
    pub(super) fn of(&self, address: SocketAddr) -> Option<Arc<Shared>> {
        let known = self.known();
        if let Some(route) = known.named.get(&address) {
            return Some(Arc::clone(&route.shared));
        }
        let is_for_others = known
            .lent
            .get(&address)
            .is_some_and(|listener| !listener.is_of_apiservers());
        (!is_for_others).then(|| Arc::clone(&self.apiservers))
    }

    /// What is said of the socket of this address to the process that it is lent to.
    pub(super) fn record(&self, address: SocketAddr) -> record::Listener {
        let known = self.known();
        let named = known.named.get(&address).map(|route| &route.listener);
        let listener = named.or_else(|| known.lent.get(&address)).cloned();
        listener.unwrap_or_else(|| record::Listener::apiserver(address))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // A panic while the lock is held leaves the entries valid.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use trivet_crds::wire::ListenerKind;

    use super::*;
    use crate::upstream::fixture;

    #[tokio::test]
    async fn what_is_not_for_the_apiservers_never_leads_to_them() {
        let (upstreams, []) = fixture::proven([]);
        let apiservers = Arc::new(Shared::new(upstreams));
        let extras = Extras::new(Arc::clone(&apiservers));
        let routes = Routes::new(Arc::clone(&apiservers));
        let [of_apiservers, of_others]: [SocketAddr; 2] =
            ["127.0.0.1:7443", "127.0.0.1:18132"].map(|address| address.parse().unwrap());
        let leads = |address| {
            let shared = routes.of(address);
            shared.map(|shared| Arc::ptr_eq(&shared, &apiservers))
        };
        let lent = record::Listener {
            name: "konnectivity".to_owned(),
            kind: record::ListenerKind::Tls,
            ..record::Listener::apiserver(of_others)
        };
        routes.lend(&[record::Listener::apiserver(of_apiservers), lent.clone()]);
        assert_eq!([of_apiservers, of_others].map(leads), [Some(true), None]);
        // The document names it, and then does not any more, while its last clients are accepted.
        let extra = Listener {
            name: "konnectivity".to_owned(),
            kind: ListenerKind::Tls,
            member_port: Some(8132),
            ..Listener::apiserver(vec![of_others.ip()], of_others.port())
        };
        let shared = extras.adopt("konnectivity");
        routes.apply(&[extra], &extras, &BTreeSet::new());
        assert!(Arc::ptr_eq(&routes.of(of_others).unwrap(), &shared));
        assert_eq!(routes.record(of_others), lent);
        routes.forget(of_others);
        assert_eq!(leads(of_others), Some(false));
        routes.apply(&[], &extras, &BTreeSet::from([of_others]));
        assert_eq!(leads(of_others), Some(false));
        routes.forget(of_others);
        assert_eq!(leads(of_others), None);
    }
}
