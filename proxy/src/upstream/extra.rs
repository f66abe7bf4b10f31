//! The upstreams of an extra listener: other servers of the members, each with a health of its own.
//!
//! They have other authorities than the cluster's, so their certificates prove nothing. A path to one is proven once its
//! member's apiserver has proved itself to this node at the same IP address, and the server has answered there.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use trivet_crds::wire::{Listener, ListenerBalancing};

use super::{Proven, Upstreams};
use crate::{
    balance::{Disabled, PathKey},
    settings::Settings,
};

/// What distinguishes the upstreams of an extra listener.
#[derive(Debug)]
pub(super) struct Extra {
    /// The name of the listener.
    name: String,
    /// Where apiservers have proved themselves to this node.
    apiservers: watch::Receiver<Proven>,
    /// What its servers are asked.
    check: Mutex<Check>,
}

/// What a server is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Check {
    /// To complete a TLS handshake.
    #[default]
    Handshake,
    /// To answer this path.
    Path(Arc<str>),
}

impl Check {
    fn of(listener: &Listener) -> Self {
        let path = listener.check_path();
        path.map_or(Self::Handshake, |path| Self::Path(path.into()))
    }
}

impl Extra {
    /// The port of its servers by this document, in which members there are paths to; none if the listener is not in it.
    pub(super) fn port(&self, settings: &Settings) -> Option<u16> {
        settings.extra_listener(&self.name)?.member_port
    }

    /// The members that this document disables, as servers of the listener.
    pub(super) fn disabled(&self, settings: &Settings) -> Disabled {
        let disabled = Disabled::of(&settings.document.disabled_members);
        match self.port(settings) {
            Some(port) => disabled.at_port(port),
            None => disabled,
        }
    }

    /// Takes over what this document says of the listener. Of one that is not in it, the last word stays: its servers are
    /// probed while they have connections. Returns whether its servers take turns.
    pub(super) fn follow(&self, settings: &Settings) -> bool {
        let Some(listener) = settings.extra_listener(&self.name) else {
            return false;
        };
        *self.check.lock().unwrap_or_else(PoisonError::into_inner) = Check::of(listener);
        match listener.balancing {
            ListenerBalancing::Spread => true,
            ListenerBalancing::LeastConnections => false,
        }
    }
}

impl Upstreams {
    /// The upstreams of the extra listener of this name, beside those of the apiservers. There are none before a document is
    /// applied.
    pub fn of_listener(apiservers: &Arc<Self>, name: &str) -> Arc<Self> {
        let extra = Extra {
            name: name.to_owned(),
            apiservers: apiservers.subscribe_proven(),
            check: Mutex::default(),
        };
        Arc::new(Self {
            inner: Mutex::new(super::Inner::new(&apiservers.place.node)),
            place: apiservers.place.clone(),
            metrics: Arc::new(apiservers.metrics.of_listener(name)),
            token_file: None,
            proven: watch::Sender::default(),
            probed: tokio::sync::Notify::new(),
            tasks: TaskTracker::new(),
            vital: Arc::clone(&apiservers.vital),
            clock: Arc::clone(&apiservers.clock),
            stop: apiservers.stop.child_token(),
            extra: Some(extra),
        })
    }

    /// The name of the extra listener whose servers these are; none for the apiservers.
    pub fn listener_name(&self) -> Option<&str> {
        self.extra.as_ref().map(|extra| extra.name.as_str())
    }

    /// What the servers of an extra listener are asked; none for the apiservers.
    pub fn check(&self) -> Option<Check> {
        let check = &self.extra.as_ref()?.check;
        Some(check.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Whether the apiserver of this path's member has proved itself to this node at the same IP address.
    pub fn is_vouched_for(&self, path: &PathKey) -> bool {
        let is_same =
            |known: &PathKey| known.member == path.member && known.address.ip() == path.address.ip();
        self.extra
            .as_ref()
            .is_some_and(|extra| extra.apiservers.borrow().iter().any(is_same))
    }

    /// Whether the document in force has the extra listener whose servers these are.
    pub fn is_in_document(&self) -> bool {
        let settings = self.settings();
        let named = settings.as_ref().zip(self.listener_name());
        named.is_some_and(|(settings, name)| settings.extra_listener(name).is_some())
    }

    /// Whether nothing is left of a listener that the document in force does not have.
    pub fn is_over(&self) -> bool {
        !self.is_in_document() && self.lock().live.is_empty()
    }

    /// Ends all tasks of the upstreams, without waiting for them.
    pub fn abandon(&self) {
        self.stop.cancel();
    }
}
