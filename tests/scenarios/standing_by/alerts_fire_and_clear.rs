//! A real Prometheus scrapes every proxy at its node's address, as the API server lets it, and the operator. In a healthy
//! cluster no alert's expression holds. Each holds within a minute of its fault, for the node and the member that it is
//! about, and none a minute after the heal.

use std::time::Duration;

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use jiff::Timestamp;
use serde_json::json;
use tokio::time::Instant;
use trivet_instruments::eventually;
use trivet_testbed::images::Broken;
use trivet_testbed::{Component, Host};
use trivet_tests::alerts::faults::{CONNECTIONS, Faults, Injected, RENEWED, STRANGER};
use trivet_tests::attempts::LOOPBACKS;
use trivet_tests::broken_releases::{self, edit_of, edit_of_none};
use trivet_tests::held::Held;
use trivet_tests::installation::{Installation, NAMESPACE, POOL, condition};
use trivet_tests::prometheus::Prometheus;
use trivet_tests::rights_revoked::{OF_OPERATOR, OF_OPERATOR_IN_CLUSTER};
use trivet_tests::say::say;
use trivet_tests::serving_certificate;

use crate::FAULTY;

/// Within this time of a fault its alert's expression holds, and within this time of the heal none does.
const TOLD: Duration = Duration::from_secs(60);

/// What events tell of the master whose apiserver is dead, and comes back with a certificate of a few days.
const EVENTS: [(&str, &str); 3] = [
    ("MemberUnhealthy", "cp3 is "),
    ("MemberRecovered", "cp3 is Up"),
    ("CertificateExpiresSoon", "the certificate of cp3 expires on "),
];

#[tokio::test(flavor = "multi_thread")]
async fn alerts_fire_and_clear() -> Result<()> {
    let installation = Installation::standing_by().await?.told().await?;
    // A run that was killed may have left one.
    renew(&installation).await?;
    let mut faults = Faults::of(&installation).await?;
    only_readers_get_metrics(&installation, &faults.reached).await?;
    let prometheus = Prometheus::start(&installation, "cp1").await?;
    prometheus.tells_nothing(TOLD).await?;
    say("no alert in a healthy cluster");

    let since = Timestamp::now();
    let outcome = async {
        let injected = faults.inject(&installation).await?;
        nodes_and_members(&installation, &faults, injected, &prometheus).await
    }
    .await;
    serving_certificate::end_soon(&installation.cluster().host(RENEWED)?)?;
    faults.heal(&installation).await?;
    let told = match outcome {
        Ok(()) => healed_but_for_a_certificate(&installation, &prometheus).await,
        Err(error) => Err(error),
    };
    renew(&installation).await?;
    told?;
    all_clear(&prometheus, "a certificate that ends soon").await?;
    for (reason, words) in EVENTS {
        installation.told_by_event(reason, words, since).await?;
    }

    let outcome = a_release_that_fails(&installation, &prometheus).await;
    installation.edit_pool(edit_of_none()).await?;
    outcome?;
    all_clear(&prometheus, "a release that fails").await?;

    let outcome = pool_and_passes(&installation, &prometheus).await;
    OF_OPERATOR.give_back(&installation).await?;
    installation.edit_pool(json!({ "members": null })).await?;
    outcome?;
    all_clear(&prometheus, "a rejected spec, and operators without rights").await?;

    let replicas = operators(&installation, 0).await?;
    let outcome = prometheus.tells("TrivetOperatorDown", &[], TOLD).await;
    operators(&installation, replicas).await?;
    outcome?;
    all_clear(&prometheus, "no operator").await?;
    installation.nodes_ready().await
}

/// At the node's address the API server decides who gets them.
async fn only_readers_get_metrics(installation: &Installation, host: &Host) -> Result<()> {
    let at = format!("https://{}:7444/metrics", host.ipv4());
    let master = installation.cluster().host("cp1")?;
    for (user, wanted) in [
        (None, "401"),
        (Some("trivet-operator"), "403"),
        (Some("trivet-metrics-reader"), "200"),
    ] {
        let mut words: Vec<String> = [
            "curl",
            "--silent",
            "--insecure",
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code}",
        ]
        .map(str::to_owned)
        .into();
        if let Some(user) = user {
            let token = format!("create token {user} --namespace {NAMESPACE} --duration 10m");
            let token = installation.tools().kubectl(&token).await?;
            words.extend(["--oauth2-bearer".to_owned(), token.trim().to_owned()]);
        }
        words.push(at.clone());
        let output = master.exec(&words)?;
        let status = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(status == wanted, "{at} as {user:?}: {status}, not {wanted}");
        say(format!("{at} as {}: {status}", user.unwrap_or("nobody")));
    }
    Ok(())
}

async fn nodes_and_members(
    installation: &Installation,
    faults: &Faults,
    injected: Injected,
    prometheus: &Prometheus,
) -> Result<()> {
    let name = |host: &Host| host.name().to_string();
    let [severed, reached, hung, taken, unwritable] = [
        &faults.severed,
        &faults.reached,
        &faults.hung,
        &faults.taken,
        &faults.unwritable,
    ]
    .map(name);
    let Injected {
        in_nodes,
        in_network,
        in_spec,
    } = injected;
    let wanted = [
        (in_network, "TrivetNoUpstream", vec![("node", severed.as_str())]),
        (
            in_network,
            "TrivetMemberUnreachableFromNode",
            vec![("node", reached.as_str()), ("member", "cp2")],
        ),
        (in_network, "TrivetMemberDownOnManyNodes", vec![("member", "cp3")]),
        (in_spec, "TrivetDocumentStale", vec![("node", severed.as_str())]),
        (in_network, "TrivetReportsFail", vec![("node", severed.as_str())]),
        (in_nodes, "TrivetProxyNotScraped", vec![("node", hung.as_str())]),
        (
            in_network,
            "TrivetProxyNotListening",
            vec![("node", taken.as_str()), ("listener", "127.0.0.1:7443")],
        ),
        (in_nodes, "TrivetProxiesUnavailable", vec![("pool", POOL)]),
        (in_nodes, "TrivetStandbyMissing", vec![("pool", POOL)]),
        (in_spec, "TrivetCertificateRefused", vec![("member", STRANGER)]),
        (
            in_nodes,
            "TrivetCacheUnwritable",
            vec![("node", unwritable.as_str())],
        ),
        (
            in_nodes,
            "TrivetProxyWarns",
            vec![
                ("node", unwritable.as_str()),
                ("reason", "HandoverPathUnwritable"),
            ],
        ),
    ];
    let told = wanted
        .iter()
        .map(|(since, alert, labels)| tells(prometheus, *since, alert, labels));
    let full = async {
        let held = fill(installation, &faults.reached, prometheus).await?;
        let labels = [("node", reached.as_str())];
        tells(prometheus, Instant::now(), "TrivetConnectionsNearLimit", &labels).await?;
        anyhow::Ok(held)
    };
    // Beside each other: the connections that are held end with the last alert.
    tokio::try_join!(try_join_all(told), full).map(drop)
}

/// Waits until an alert's expression holds, and fails if that is later than a minute after its fault.
async fn tells(prometheus: &Prometheus, since: Instant, alert: &str, labels: &[(&str, &str)]) -> Result<()> {
    let left = TOLD.saturating_sub(since.elapsed());
    prometheus.tells(alert, labels, left).await?;
    say(format!(
        "{alert} {labels:?} after {:.0} s",
        since.elapsed().as_secs_f32()
    ));
    Ok(())
}

/// Holds so many connections of a node that nearly none is left.
async fn fill(installation: &Installation, host: &Host, prometheus: &Prometheus) -> Result<Held> {
    let of_node = |metric: &str| format!("{metric}{{node=\"{}\"}}", host.name());
    eventually(TOLD, "the proxy knows its limit", async || {
        let limit = prometheus
            .value(&of_node("trivet_proxy_client_connections_limit"))
            .await?;
        ensure!(limit <= 64.0, "it is {limit}");
        Ok(())
    })
    .await?;
    let open = prometheus
        .value(&of_node("trivet_proxy_client_connections"))
        .await?;
    // A small whole number.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at most 64"
    )]
    let left = CONNECTIONS.saturating_sub(open as usize + 3);
    Held::open(host, &installation.client()?, LOOPBACKS[0], left).await
}

/// The minute after the heal of everything else is not that of the certificate.
async fn healed_but_for_a_certificate(installation: &Installation, prometheus: &Prometheus) -> Result<()> {
    let begun = Instant::now();
    let cleared = async {
        let aside = ["TrivetCertificateExpires"];
        prometheus.tells_nothing_but(&aside, TOLD).await?;
        say(format!(
            "no other alert {:.0} s after the heal of nodes and members",
            begun.elapsed().as_secs_f32()
        ));
        anyhow::Ok(())
    };
    tokio::try_join!(cleared, a_certificate_that_ends_soon(installation, prometheus)).map(drop)
}

/// A master whose apiserver has come back with a certificate that ends within 30 days.
async fn a_certificate_that_ends_soon(installation: &Installation, prometheus: &Prometheus) -> Result<()> {
    let begun = Instant::now();
    prometheus
        .tells("TrivetCertificateExpires", &[("member", RENEWED)], TOLD)
        .await?;
    say(format!(
        "TrivetCertificateExpires after {:.0} s",
        begun.elapsed().as_secs_f32()
    ));
    let left = TOLD.saturating_sub(begun.elapsed());
    eventually(left, "the condition CertificateMatches", async || {
        let status = installation.pool_status().await?;
        let matches = condition(&status, "CertificateMatches")?;
        let words = format!("the certificate of {RENEWED} expires on ");
        ensure!(
            matches.reason == "ExpiresSoon" && matches.message.contains(&words),
            "{matches:?}"
        );
        Ok(())
    })
    .await?;
    say(format!(
        "CertificateMatches says so {:.0} s after the start of the apiserver",
        begun.elapsed().as_secs_f32()
    ));
    Ok(())
}

/// Gives the masters their own certificates back, and restarts the apiservers that have shown another.
async fn renew(installation: &Installation) -> Result<()> {
    installation
        .disturb(|cluster| {
            for master in cluster.masters() {
                if serving_certificate::restore(&master)? {
                    let name = master.name().to_string();
                    cluster.restart(&name, Component::KubeApiserver, &[])?;
                }
            }
            Ok(())
        })
        .await
}

/// A release of the proxy that does not start. If another scenario has brought it before, it is not tried, and named again.
async fn a_release_that_fails(installation: &Installation, prometheus: &Prometheus) -> Result<()> {
    broken_releases::load(installation, &[Broken::IsForeign], FAULTY.as_ref()).await?;
    installation.edit_pool(edit_of(Broken::IsForeign)).await?;
    prometheus
        .tells("TrivetRolloutHalted", &[("pool", POOL)], TOLD)
        .await
}

/// A spec that would leave no member, for an operator that may not say so; then operators that may not lead.
async fn pool_and_passes(installation: &Installation, prometheus: &Prometheus) -> Result<()> {
    OF_OPERATOR_IN_CLUSTER.revoke(installation).await?;
    let revoked = Instant::now();
    let disabled = ["cp1", "cp2", "cp3"].map(|name| json!({ "name": name, "state": "Disabled" }));
    installation.edit_pool(json!({ "members": disabled })).await?;
    let pool = [("pool", POOL)];
    tokio::try_join!(
        tells(prometheus, Instant::now(), "TrivetPoolRejected", &pool),
        tells(prometheus, revoked, "TrivetOperatorPassesFail", &pool),
    )?;
    OF_OPERATOR.revoke(installation).await?;
    tells(prometheus, Instant::now(), "TrivetNoLeader", &[]).await
}

/// Runs so many operators from now on; returns how many there were.
async fn operators(installation: &Installation, replicas: u32) -> Result<u32> {
    let of_operator = format!("deployment trivet-operator --namespace {NAMESPACE}");
    let tools = installation.tools();
    let before = tools
        .kubectl(&format!("get {of_operator} --output jsonpath={{.spec.replicas}}"))
        .await?;
    tools
        .kubectl(&format!("scale {of_operator} --replicas {replicas}"))
        .await?;
    Ok(before.parse()?)
}

async fn all_clear(prometheus: &Prometheus, after: &str) -> Result<()> {
    let begun = Instant::now();
    prometheus.tells_nothing(TOLD).await?;
    say(format!(
        "no alert {:.0} s after the heal of: {after}",
        begun.elapsed().as_secs_f32()
    ));
    Ok(())
}
