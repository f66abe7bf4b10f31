//! Serves `/livez`, `/readyz` and `/metrics`.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::context::Pulse;
use crate::metrics::Metrics;
use crate::watch::Ledger;

/// What the endpoints speak of.
#[derive(Clone, Debug)]
pub struct Vitals {
    /// Whether the loops move.
    pub pulse: Arc<Pulse>,
    /// Whether everything that is watched has been read once.
    pub ledger: Arc<Ledger>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
}

/// A server whose port is taken.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    vitals: Vitals,
}

/// The address cannot be served on.
#[derive(Debug, thiserror::Error)]
#[error("failed to listen on {address} (--address)")]
pub struct Error {
    address: SocketAddr,
    source: std::io::Error,
}

impl Bound {
    /// Takes the port.
    pub async fn bind(address: SocketAddr, vitals: Vitals) -> Result<Self, Error> {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| Error { address, source })?;
        Ok(Self { listener, vitals })
    }

    /// Serves until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) -> std::io::Result<()> {
        let routes = Router::new()
            .route("/livez", get(livez))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(self.vitals);
        axum::serve(self.listener, routes)
            .with_graceful_shutdown(shutdown.cancelled_owned())
            .await
    }
}

/// Red when a loop is stuck, never because the API server is absent: a restart would not bring that back.
async fn livez(State(vitals): State<Vitals>) -> (StatusCode, String) {
    let stuck = vitals.pulse.stuck(Instant::now());
    if stuck.is_empty() {
        (StatusCode::OK, "ok".to_owned())
    } else {
        (
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("stuck: {}", stuck.join(", ")),
        )
    }
}

async fn readyz(State(vitals): State<Vitals>) -> (StatusCode, &'static str) {
    if vitals.ledger.is_complete() {
        (StatusCode::OK, "ok")
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "the watched objects have not been read yet",
        )
    }
}

async fn metrics(State(vitals): State<Vitals>) -> impl IntoResponse {
    const FORMAT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match vitals.metrics.to_text() {
        Ok(text) => Ok(([(header::CONTENT_TYPE, FORMAT)], text)),
        Err(error) => Err((StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}
