//! What keeps a standby warm: the holder's snapshots, and their use by its peers.

use std::{collections::BTreeSet, future::pending, io, os::fd::OwnedFd, sync::Arc};

use tokio::sync::watch;
use tracing::warn;

use crate::{
    balance::PathKey,
    document::{Documents, InForce},
    handover::{
        record::Snapshot,
        sealed,
        snapshot::{Error, WarmState},
    },
    net::spare,
    source::Source,
    upstream::Upstreams,
};

/// Writes and applies snapshots.
#[derive(Debug)]
pub struct Warmth {
    documents: Arc<Documents>,
    upstreams: Arc<Upstreams>,
    in_force: watch::Receiver<Option<InForce>>,
    proven: watch::Receiver<BTreeSet<PathKey>>,
    serial: u64,
    last: Option<(Snapshot, OwnedFd)>,
}

impl Warmth {
    /// Nothing is written yet.
    pub fn new(documents: Arc<Documents>, upstreams: Arc<Upstreams>) -> Self {
        let mut in_force = documents.subscribe();
        // What is in force already is written at once.
        in_force.mark_changed();
        Self {
            in_force,
            proven: upstreams.subscribe_proven(),
            documents,
            upstreams,
            serial: 0,
            last: None,
        }
    }

    /// Whether a document is in force.
    pub(super) fn has_document(&self) -> bool {
        self.in_force.borrow().is_some()
    }

    /// Whether the document in force names this template. One that names none matches nobody.
    pub(super) fn names(&self, template: &str) -> bool {
        let in_force = self.in_force.borrow();
        let named = in_force
            .as_ref()
            .map(|in_force| &in_force.settings.document.rollout.template);
        !template.is_empty() && named.is_some_and(|named| named == template)
    }

    /// The template whose gate the document in force closes on this node.
    pub(super) fn closed_template(&self) -> Option<String> {
        let in_force = self.in_force.borrow();
        let target = &in_force.as_ref()?.settings.document.rollout;
        let is_closed = target.is_closed_at(&self.upstreams.place().node);
        is_closed.then(|| target.template.clone())
    }

    /// The last one that was written.
    pub(super) fn last(&self) -> Option<Snapshot> {
        self.last.as_ref().map(|(snapshot, _)| snapshot.clone())
    }

    /// Waits until there is something new to know, and writes it.
    pub(super) async fn changed(&mut self) -> Snapshot {
        loop {
            let changed = tokio::select! {
                changed = self.in_force.changed() => changed,
                changed = self.proven.changed() => changed,
            };
            if changed.is_err() {
                pending::<()>().await;
            }
            match self.write() {
                Ok(snapshot) => return snapshot,
                Err(error) => {
                    warn!(%error, "failed to write a snapshot for the standby of this node");
                }
            }
        }
    }

    /// The serial number of the last snapshot.
    pub(super) fn serial(&self) -> u64 {
        self.serial
    }

    fn write(&mut self) -> Result<Snapshot, Error> {
        let in_force = self.in_force.borrow_and_update().clone();
        let proven = self.proven.borrow_and_update().clone();
        let state = WarmState {
            document: in_force.as_ref().map(|in_force| in_force.text.to_string()),
            replacements: in_force.as_ref().map_or(0, |in_force| in_force.replacements),
            proven,
            zone: self.upstreams.place().zone.clone(),
            ..WarmState::default()
        };
        let (descriptor, bytes) = state.write()?;
        self.serial += 1;
        let snapshot = Snapshot {
            serial: self.serial,
            revision: in_force.map_or(0, |in_force| in_force.settings.document.revision),
            bytes,
        };
        self.last = Some((snapshot.clone(), descriptor));
        Ok(snapshot)
    }

    /// The file of a snapshot, which is the last one.
    pub(super) fn descriptor(&self, snapshot: &Snapshot) -> Result<OwnedFd, Error> {
        match &self.last {
            Some((last, descriptor)) if last == snapshot => {
                Ok(spare::with(|| descriptor.try_clone()).map_err(sealed::Error::from)?)
            }
            Some(_) | None => Err(missing(io::ErrorKind::NotFound)),
        }
    }

    /// Follows the document of a snapshot, and trusts what the holder has proven. Returns whether this process has a
    /// document then: without one it could not serve.
    pub(super) fn apply(&self, snapshot: &Snapshot, descriptors: Vec<OwnedFd>) -> Result<bool, Error> {
        let missing = || missing(io::ErrorKind::UnexpectedEof);
        let descriptor = descriptors.into_iter().next().ok_or_else(missing)?;
        let state = WarmState::read(descriptor, snapshot.bytes)?;
        self.upstreams.learn_proofs(state.proven);
        if let Some(text) = state.document {
            self.documents.offer(&text, Source::Handover);
        }
        Ok(self.documents.in_force().is_some())
    }
}

fn missing(kind: io::ErrorKind) -> Error {
    sealed::Error::from(io::Error::from(kind)).into()
}
