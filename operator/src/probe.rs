//! One health check of one apiserver: is it there, is it of this cluster, is it ready?

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use http::Request;
use kube::Client;
use tokio::time::timeout;
use trivet_trust::reason;

use crate::health::Answer;

/// How long a probe takes at most.
pub const TIMEOUT: Duration = Duration::from_secs(1);

/// `/readyz` asks etcd and is late when etcd is: after this long the server is asked about itself alone.
const LATE: Duration = Duration::from_millis(500);

/// Characters of an apiserver's words, or of a reason with its certificate's names, that are passed on.
const WORDS_LIMIT: usize = 400;

/// Characters of a release: what the status takes.
const VERSION_LIMIT: usize = 64;

/// Asks the apiserver that `client` talks to.
pub async fn ask(client: &Client) -> Answer {
    let both = async {
        let mut ready = Box::pin(get(client, "/readyz?verbose"));
        if let Ok(answer) = timeout(LATE, &mut ready).await {
            return answer;
        }
        tokio::select! {
            answer = ready => answer,
            alone = get(client, "/livez?exclude=etcd") => late(alone),
        }
    };
    timeout(TIMEOUT, both).await.unwrap_or(Answer::Silent)
}

/// The release that the apiserver names to strangers; empty if it names none.
pub async fn version(client: &Client) -> String {
    let Ok(request) = Request::get("/version").body(Vec::new()) else {
        return String::new();
    };
    let answered = timeout(TIMEOUT, client.request_text(request)).await;
    let text = answered.ok().and_then(Result::ok).unwrap_or_default();
    named(&text)
}

/// The release in an answer from `/version`.
fn named(text: &str) -> String {
    let answer: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    let version = answer.get("gitVersion").and_then(serde_json::Value::as_str);
    version.unwrap_or_default().chars().take(VERSION_LIMIT).collect()
}

/// What an answer about the server alone means while the one about its readiness is overdue.
fn late(alone: Answer) -> Answer {
    match alone {
        Answer::Ready | Answer::Withheld => Answer::NotReady("/readyz does not answer in time".to_owned()),
        other @ (Answer::NotReady(_) | Answer::Refused(_) | Answer::Untrusted(_) | Answer::Silent) => other,
    }
}

async fn get(client: &Client, path: &str) -> Answer {
    let Ok(request) = Request::get(path).body(Vec::new()) else {
        return Answer::Silent;
    };
    match client.request_text(request).await {
        Ok(_) => Answer::Ready,
        Err(kube::Error::Api(status)) => answered(status.code, &status.message),
        Err(error) => failed(&error),
    }
}

fn answered(code: u16, message: &str) -> Answer {
    if matches!(code, 401 | 403) {
        return Answer::Withheld;
    }
    let failing: Vec<_> = message.lines().filter(|line| line.starts_with("[-]")).collect();
    let words = if failing.is_empty() {
        message.to_owned()
    } else {
        failing.join(", ")
    };
    Answer::NotReady(format!(
        "{code} {}",
        words.chars().take(WORDS_LIMIT).collect::<String>()
    ))
}

fn failed(error: &(dyn StdError + 'static)) -> Answer {
    if let Some(error) = tls(error) {
        return Answer::Untrusted(reason(error).chars().take(WORDS_LIMIT).collect());
    }
    match kind(error) {
        Some(
            io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof,
        ) => Answer::Refused(innermost(error)),
        _ => Answer::Silent,
    }
}

/// The TLS error of the chain: it hides inside several layers of I/O errors.
fn tls<'error>(error: &'error (dyn StdError + 'static)) -> Option<&'error rustls::Error> {
    if let Some(found) = error.downcast_ref() {
        return Some(found);
    }
    let inner = error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref)
        .and_then(|inner| tls(inner));
    inner.or_else(|| error.source().and_then(tls))
}

/// The most telling I/O error of the chain, which may be inside several layers of `Other`.
fn kind(error: &(dyn StdError + 'static)) -> Option<io::ErrorKind> {
    if let Some(found) = error.downcast_ref::<io::Error>() {
        if found.kind() != io::ErrorKind::Other {
            return Some(found.kind());
        }
        if let Some(inner) = found.get_ref()
            && let Some(kind) = kind(inner)
        {
            return Some(kind);
        }
    }
    error.source().and_then(kind)
}

fn innermost(error: &(dyn StdError + 'static)) -> String {
    match error.source() {
        Some(source) => innermost(source),
        None => error.to_string().chars().take(WORDS_LIMIT).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_red_readyz_names_its_failing_checks() {
        let body = "[+]ping ok\n[-]etcd failed: reason withheld\n[+]log ok\nreadyz check failed";
        assert_eq!(
            answered(500, body),
            Answer::NotReady("500 [-]etcd failed: reason withheld".to_owned())
        );
    }

    #[test]
    fn a_release_is_what_the_server_says_and_never_a_guess() {
        assert_eq!(named(r#"{"major":"1","gitVersion":"v1.34.4"}"#), "v1.34.4");
        assert_eq!(
            named(&format!(r#"{{"gitVersion":"{}"}}"#, "v".repeat(99))).len(),
            64
        );
        for nothing in ["", "forbidden", "{}", r#"{"gitVersion":1}"#] {
            assert_eq!(named(nothing), "", "{nothing}");
        }
    }

    #[test]
    fn a_server_without_anonymous_access_is_alive() {
        assert_eq!(answered(401, "Unauthorized"), Answer::Withheld);
        assert_eq!(answered(403, "forbidden"), Answer::Withheld);
    }

    #[test]
    fn a_server_whose_etcd_is_slow_is_unready_not_silent() {
        assert!(late(Answer::Ready).is_verified());
        assert_eq!(late(Answer::Silent), Answer::Silent);
    }

    #[test]
    fn a_bad_certificate_is_told_from_a_closed_port() {
        let unknown = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let tls = io::Error::new(io::ErrorKind::InvalidData, unknown);
        let wrapped = io::Error::other(tls);
        assert_eq!(
            failed(&wrapped),
            Answer::Untrusted("invalid peer certificate: UnknownIssuer".to_owned())
        );
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert!(matches!(failed(&refused), Answer::Refused(_)));
        let timed_out = io::Error::from(io::ErrorKind::TimedOut);
        assert_eq!(failed(&timed_out), Answer::Silent);
    }
}
