//! The metrics of a node's proxy, read on the node's own loopback.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use http::{Request, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use trivet_testbed::Host;

use crate::inside::inside;

/// Where every proxy serves /metrics when `spec` is empty.
const METRICS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7444);

/// The pause between two reads: short enough for a promise of two seconds, long enough for two cores with five nodes.
const LOOK: Duration = Duration::from_millis(50);

/// The limit of a read: a local request that takes longer fails.
const LIMIT: Duration = Duration::from_secs(2);

/// A proxy's metrics at one moment.
#[derive(Debug, Clone)]
pub struct Metrics {
    text: String,
}

impl Metrics {
    /// The revision of the wire document that the proxy obeys.
    pub fn revision(&self) -> Option<u64> {
        self.series("trivet_proxy_document_revision")
            .next()
            .and_then(|(_, value)| whole(value))
    }

    /// The established connections by member.
    pub fn connections(&self) -> BTreeMap<String, u64> {
        self.series("trivet_proxy_upstream_connections")
            .filter_map(|(labels, value)| Some((label(labels, "member")?.to_owned(), whole(value)?)))
            .collect()
    }

    /// The connections of clients that each member serves or has served.
    pub fn served(&self) -> BTreeMap<String, u64> {
        self.series("trivet_proxy_connections_total")
            .filter_map(|(labels, value)| Some((label(labels, "member")?.to_owned(), whole(value)?)))
            .collect()
    }

    /// The health of each member.
    pub fn states(&self) -> BTreeMap<String, String> {
        self.series("trivet_proxy_upstream_state")
            .filter(|(_, value)| whole(value) == Some(1))
            .filter_map(|(labels, _)| {
                Some((
                    label(labels, "member")?.to_owned(),
                    label(labels, "state")?.to_owned(),
                ))
            })
            .collect()
    }

    /// Whether any member has left Up since the proxy started.
    pub fn has_seen_falls(&self) -> bool {
        self.series("trivet_proxy_upstream_transitions_total")
            .any(|(labels, value)| label(labels, "to") != Some("Up") && whole(value) != Some(0))
    }

    /// Labels and value of each series of a metric.
    fn series<'a>(&'a self, name: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.text.lines().filter_map(move |line| {
            let rest = line.strip_prefix(name)?;
            let (labels, value) = rest.rsplit_once(' ')?;
            // The name of another metric may begin with this one's.
            (labels.is_empty() || labels.starts_with('{')).then_some((labels, value))
        })
    }
}

/// Reads the metrics of a node's proxy.
pub async fn metrics(host: &Host) -> Result<Metrics> {
    inside(host, read)
        .await?
        .with_context(|| format!("failed to read the metrics of {}'s proxy", host.name()))
}

/// When the last of these nodes' proxies was first seen to obey `revision` or a later one.
pub async fn all_follow(hosts: &[Host], revision: u64, within: Duration) -> Result<Timestamp> {
    let seen = try_join_all(hosts.iter().map(|host| follows(host, revision, within))).await?;
    seen.into_iter().max().context("there is no host")
}

/// When a node's proxy was first seen to obey `revision` or a later one.
async fn follows(host: &Host, revision: u64, within: Duration) -> Result<Timestamp> {
    let (at, _) = first(host, within, move |metrics| metrics.revision() >= Some(revision))
        .await
        .with_context(|| format!("revision {revision}"))?;
    Ok(at)
}

/// The first metrics of a node's proxy for which `wanted` holds, and when that was.
pub async fn first(
    host: &Host,
    within: Duration,
    wanted: impl Fn(&Metrics) -> bool + Send + 'static,
) -> Result<(Timestamp, Metrics)> {
    let poll = move || async move {
        let seen = async {
            loop {
                match read().await {
                    Ok(metrics) if wanted(&metrics) => return (Timestamp::now(), metrics),
                    Ok(_) | Err(_) => sleep(LOOK).await,
                }
            }
        };
        match timeout(within, seen).await {
            Ok(seen) => Ok(seen),
            Err(_) => Err(read().await),
        }
    };
    inside(host, poll).await?.map_err(|last| {
        let last = last.map(|metrics| (metrics.revision(), metrics.states()));
        anyhow::anyhow!("{}'s proxy is not there within {within:?}: {last:?}", host.name())
    })
}

/// Reads the metrics of the proxy in whose network the caller is.
pub(crate) async fn read() -> Result<Metrics> {
    timeout(LIMIT, fetch())
        .await
        .with_context(|| format!("no answer from {METRICS} within {LIMIT:?}"))?
}

async fn fetch() -> Result<Metrics> {
    let tcp = TcpStream::connect(METRICS)
        .await
        .with_context(|| format!("failed to connect to {METRICS}"))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(tcp)).await?;
    let request = Request::get("/metrics")
        .header(header::HOST, METRICS.to_string())
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        ensure!(
            response.status().is_success(),
            "{METRICS} answered {}",
            response.status()
        );
        let body = response.into_body().collect().await?.to_bytes();
        Ok(Metrics {
            text: String::from_utf8_lossy(&body).into_owned(),
        })
    };
    let (metrics, _) = tokio::join!(exchange, connection);
    metrics
}

fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = labels.split_once(&format!("{name}=\""))?;
    rest.split_once('"').map(|(value, _)| value)
}

/// Gauges are written as `3` or as `3.0`.
fn whole(value: &str) -> Option<u64> {
    value.strip_suffix(".0").unwrap_or(value).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Metrics {
        let text = r#"# HELP trivet_proxy_document_revision The revision.
# TYPE trivet_proxy_document_revision gauge
trivet_proxy_document_revision 12
trivet_proxy_document_revision_age_seconds 3.5
trivet_proxy_upstream_state{member="cp1",state="Up"} 1
trivet_proxy_upstream_state{member="cp1",state="Down"} 0
trivet_proxy_upstream_state{member="cp2",state="Down"} 1
trivet_proxy_upstream_transitions_total{member="cp1",to="Up"} 3
trivet_proxy_upstream_transitions_total{member="cp1",to="Unready"} 2
trivet_proxy_upstream_transitions_total{member="cp1",to="Down"} 1
trivet_proxy_upstream_transitions_total{member="cp2",to="Up"} 1
trivet_proxy_upstream_connections{member="cp1"} 3.0
trivet_proxy_upstream_connections{member="cp2"} 0
trivet_proxy_connections_total{member="cp1"} 7
"#;
        Metrics {
            text: text.to_owned(),
        }
    }

    #[test]
    fn metrics_are_found_by_their_whole_name() {
        assert_eq!(sample().revision(), Some(12));
        assert_eq!(
            sample().connections(),
            [("cp1".to_owned(), 3), ("cp2".to_owned(), 0)].into()
        );
        assert_eq!(sample().served(), [("cp1".to_owned(), 7)].into());
    }

    #[test]
    fn coming_up_is_no_fall() {
        assert!(sample().has_seen_falls());
        let text = r#"trivet_proxy_upstream_transitions_total{member="cp1",to="Up"} 3
trivet_proxy_upstream_transitions_total{member="cp1",to="Down"} 0
"#;
        let text = text.to_owned();
        assert!(!Metrics { text }.has_seen_falls());
    }

    #[test]
    fn a_member_has_the_one_state_that_is_1() {
        let states = sample().states();
        assert_eq!(states.get("cp1").map(String::as_str), Some("Up"));
        assert_eq!(states.get("cp2").map(String::as_str), Some("Down"));
    }
}
