//! The HTTP server for `/livez`, `/readyz` and `/metrics`, and the state behind these endpoints.

pub mod metrics;
pub mod readiness;
pub mod watchdog;

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

use self::metrics::Metrics;
use self::readiness::Readiness;
use self::watchdog::Watchdog;

/// The state behind the endpoints.
#[derive(Clone, Debug, Default)]
pub struct Telemetry {
    /// Behind `/livez`.
    pub watchdog: Arc<Watchdog>,
    /// Behind `/readyz`.
    pub readiness: Arc<Readiness>,
    /// Behind `/metrics`.
    pub metrics: Arc<Metrics>,
}

/// A server that has bound its port.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    telemetry: Telemetry,
}

/// The server cannot bind its address.
#[derive(Debug, thiserror::Error)]
#[error("failed to listen on {address} (--address)")]
pub struct Error {
    address: SocketAddr,
    source: std::io::Error,
}

impl Bound {
    /// Binds the port.
    pub async fn bind(address: SocketAddr, telemetry: Telemetry) -> Result<Self, Error> {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| Error { address, source })?;
        Ok(Self { listener, telemetry })
    }

    /// Serves until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) -> std::io::Result<()> {
        let routes = Router::new()
            .route("/livez", get(livez))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(self.telemetry);
        axum::serve(self.listener, routes)
            .with_graceful_shutdown(shutdown.cancelled_owned())
            .await
    }
}

/// Fails while a loop is stuck, but not while the API server is absent: a restart of the operator does not help then.
async fn livez(State(telemetry): State<Telemetry>) -> (StatusCode, String) {
    let stuck = telemetry.watchdog.stuck(Instant::now());
    if stuck.is_empty() {
        (StatusCode::OK, "ok".to_owned())
    } else {
        (
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("stuck: {}", stuck.join(", ")),
        )
    }
}

/// Fails while the operator cannot do its work, and says why.
async fn readyz(State(telemetry): State<Telemetry>) -> (StatusCode, String) {
    match telemetry.readiness.check(Instant::now()) {
        Ok(()) => (StatusCode::OK, "ok".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
    }
}

async fn metrics(State(telemetry): State<Telemetry>) -> impl IntoResponse {
    const FORMAT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match telemetry.metrics.to_text() {
        Ok(text) => Ok(([(header::CONTENT_TYPE, FORMAT)], text)),
        Err(error) => Err((StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}
