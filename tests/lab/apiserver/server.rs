//! Connections, from accept to end, in every way that a test may need.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use trivet_lab::behaviour::{Behaviour, Door};

use crate::{answer::Answerer, counters::Counters, identity};

/// The stage of an apiserver's shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Not shutting down.
    Serving,
    /// After SIGTERM: not ready, but still serving.
    Draining,
    /// It accepts no new connection and no further request, and ends its watches.
    Closing,
}

/// All that a connection needs.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    name: Arc<str>,
    behaviour: watch::Receiver<Behaviour>,
    stage: watch::Receiver<Stage>,
    counters: Arc<Counters>,
}

impl Server {
    pub(crate) fn new(
        name: String,
        behaviour: watch::Receiver<Behaviour>,
        stage: watch::Receiver<Stage>,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            name: name.into(),
            behaviour,
            stage,
            counters,
        }
    }

    /// Serves until it has drained.
    pub(crate) async fn serve(mut self, address: SocketAddr) -> Result<()> {
        let mut connections = JoinSet::new();
        while *self.stage.borrow() != Stage::Closing {
            let (mut door, mut stage) = (self.behaviour.clone(), self.stage.clone());
            if self.door() == Door::Closed {
                self.counters.listens(false);
                tokio::select! {
                    opened = self.behaviour.wait_for(|behaviour| behaviour.door != Door::Closed) => drop(opened?),
                    closing = stage.wait_for(|stage| *stage == Stage::Closing) => drop(closing?),
                }
                continue;
            }
            let listener = TcpListener::bind(address)
                .await
                .with_context(|| format!("failed to listen on {address}"))?;
            self.counters.listens(true);
            tokio::select! {
                failed = self.accept(&listener, &mut connections) => failed?,
                closed = door.wait_for(|behaviour| behaviour.door == Door::Closed) => drop(closed?),
                closing = stage.wait_for(|stage| *stage == Stage::Closing) => drop(closing?),
            }
        }
        connections.join_all().await;
        Ok(())
    }

    fn door(&self) -> Door {
        self.behaviour.borrow().door
    }

    async fn accept(&self, listener: &TcpListener, connections: &mut JoinSet<()>) -> Result<()> {
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let (stream, _peer) = accepted.context("failed to accept")?;
                    self.counters.accepted();
                    connections.spawn(self.clone().converse(stream));
                }
                Some(ended) = connections.join_next() => ended.context("a connection panicked")?,
            }
        }
    }

    async fn converse(mut self, stream: TcpStream) {
        if self.door() == Door::Resets {
            // A failure here shows as a connection that is not reset, which the test asserts.
            drop(SockRef::from(&stream).set_linger(Some(Duration::ZERO)));
            return;
        }
        self.unless(Door::SilentBeforeHandshake).await;
        let identity = self.behaviour.borrow().identity.clone();
        let config = match identity::load(&identity) {
            Ok(config) => config,
            Err(error) => return eprintln!("{error:#}"),
        };
        let Ok(stream) = TlsAcceptor::from(config).accept(stream).await else {
            return;
        };
        self.unless(Door::SilentAfterHandshake).await;
        let answerer = Answerer {
            name: Arc::clone(&self.name),
            behaviour: self.behaviour.clone(),
            stage: self.stage.clone(),
            counters: Arc::clone(&self.counters),
        };
        let service = service_fn(|request| {
            let answerer = answerer.clone();
            async move { Ok::<_, Infallible>(answerer.answer(request).await) }
        });
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        let mut connection = Box::pin(connection);
        let mut stage = self.stage.clone();
        // The errors of a connection do not matter: the test asked for its end.
        tokio::select! {
            ended = &mut connection => return drop(ended),
            closing = stage.wait_for(|stage| *stage == Stage::Closing) => drop(closing),
        }
        connection.as_mut().graceful_shutdown();
        drop(connection.await);
    }

    /// Waits until the door changes.
    async fn unless(&mut self, door: Door) {
        // The sender lives as long as the process.
        drop(self.behaviour.wait_for(|behaviour| behaviour.door != door).await);
    }
}
