//! Who may read the metrics at the node's addresses: a caller with a bearer token that the API server knows (TokenReview)
//! and whose user may GET /metrics (SubjectAccessReview), as with kube-rbac-proxy and controller-runtime.
//!
//! The API is asked through the proxy's own upstreams, never in the path of a client. A caller of whom nothing is known gets
//! nothing while nobody can be asked. One that was allowed lately goes on: an outage is when somebody looks.

pub mod certificate;
mod grants;
mod review;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use hyper::{HeaderMap, StatusCode, header};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::{
    sync,
    time::{Instant, timeout},
};
use tracing::debug;

use self::grants::{Grants, Key, Known, Verdict};
use crate::{
    api::{Api, Credentials, Error, Failure, Verb},
    cause,
    upstream::Upstreams,
    warnings::{Topic, Warnings},
};

/// The limit of one review, from the dial to the second answer. A Prometheus waits ten seconds for its metrics.
const REVIEW_LIMIT: Duration = Duration::from_secs(3);

/// The longest token that is sent to the API. Those of service accounts have about one KiB.
const LONGEST_TOKEN: usize = 16 * 1024;

/// What a caller is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It gets the metrics.
    Allowed,
    /// It has no token, or one that the API server does not know.
    Unauthenticated,
    /// Its user may not GET /metrics.
    Forbidden,
    /// Nobody can be asked about its token.
    Unavailable,
    /// Too many unknown tokens came lately.
    Throttled,
}

impl Answer {
    /// One fixed word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "Allowed",
            Self::Unauthenticated => "Unauthenticated",
            Self::Forbidden => "Forbidden",
            Self::Unavailable => "Unavailable",
            Self::Throttled => "Throttled",
        }
    }

    /// The status of the response, and what its text says; none if the metrics are the answer.
    pub fn refusal(self) -> Option<(StatusCode, &'static str)> {
        match self {
            Self::Allowed => None,
            Self::Unauthenticated => Some((
                StatusCode::UNAUTHORIZED,
                "send the bearer token of a ServiceAccount of this cluster",
            )),
            Self::Forbidden => Some((
                StatusCode::FORBIDDEN,
                "this user may not get /metrics: bind it to the ClusterRole trivet-metrics-reader",
            )),
            Self::Unavailable => Some((
                StatusCode::SERVICE_UNAVAILABLE,
                "no apiserver says whose token this is; the proxy's log says why",
            )),
            Self::Throttled => Some((
                StatusCode::TOO_MANY_REQUESTS,
                "too many unknown tokens came lately: try again in some seconds",
            )),
        }
    }
}

impl From<Verdict> for Answer {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Allowed => Self::Allowed,
            Verdict::Unauthenticated => Self::Unauthenticated,
            Verdict::Forbidden => Self::Forbidden,
        }
    }
}

/// Asks the API about callers, and remembers the answers for some time.
#[derive(Debug)]
pub struct Reviewer {
    upstreams: Arc<Upstreams>,
    credentials: Credentials,
    warnings: Arc<Warnings>,
    grants: Mutex<Grants>,
    /// Held during a review: one at a time, however many callers there are.
    turn: sync::Mutex<()>,
}

impl Reviewer {
    /// Asks through these upstreams, as the user of these credentials.
    pub fn new(upstreams: Arc<Upstreams>, credentials: Credentials, warnings: Arc<Warnings>) -> Self {
        Self {
            upstreams,
            credentials,
            warnings,
            grants: Mutex::default(),
            turn: sync::Mutex::default(),
        }
    }

    /// The answer to a request with these headers. It is counted.
    pub async fn answer(&self, headers: &HeaderMap) -> Answer {
        let answer = match bearer(headers) {
            Some(token) => self.of_token(token).await,
            None => Answer::Unauthenticated,
        };
        self.upstreams.metrics().scraped(answer.as_str());
        answer
    }

    async fn of_token(&self, token: &str) -> Answer {
        // Only its hash stays in memory.
        let key = Sha256::digest(token).into();
        // Who is known does not wait for the review of somebody else.
        if let Some(answer) = told(self.look(key)) {
            return answer;
        }
        let _turn = self.turn.lock().await;
        // Another request may have asked meanwhile.
        if let Some(answer) = told(self.look(key)) {
            return answer;
        }
        if !self.grants().takes(key, Instant::now()) {
            return Answer::Throttled;
        }
        match timeout(REVIEW_LIMIT, self.review(token)).await {
            Ok(Ok(verdict)) => {
                self.warnings.clear(Topic::Scrapers);
                self.grants().learn(key, verdict, Instant::now());
                verdict.into()
            }
            Ok(Err(error)) => self.unanswered(key, &error),
            Err(_elapsed) => self.unanswered(key, &Error::Stalled),
        }
    }

    fn look(&self, key: Key) -> Known {
        self.grants().look(key, Instant::now(), self.nodes())
    }

    fn unanswered(&self, key: Key, error: &Error) -> Answer {
        let words = cause::chain(error);
        debug!(error = words, "failed to ask the API who reads the metrics");
        if error.failure() == Failure::Denied {
            self.warn(&words);
        }
        let verdict = self.grants().fail(key, Instant::now());
        verdict.map_or(Answer::Unavailable, Into::into)
    }

    fn grants(&self) -> MutexGuard<'_, Grants> {
        self.grants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn warn(&self, error: &str) {
        let message = format!(
            "spec.proxy.metrics.exposure is Node, but this proxy may not ask the API who reads its metrics ({error}): set the chart's value monitoring.nodeExposure.enabled to true"
        );
        self.warnings.raise(Topic::Scrapers, "ScrapersUnknown", message);
    }

    async fn review(&self, token: &str) -> Result<Verdict, Error> {
        let mut api = Api::connect(&self.upstreams, &self.credentials).await?;
        let reviewed = create(&mut api, review::TOKENS, &review::of_token(token)).await?;
        let Some(user) = review::user(&reviewed) else {
            return Ok(Verdict::Unauthenticated);
        };
        let reviewed = create(&mut api, review::ACCESSES, &review::of_access(user)).await?;
        Ok(if review::is_allowed(&reviewed) {
            Verdict::Allowed
        } else {
            Verdict::Forbidden
        })
    }

    fn nodes(&self) -> u32 {
        let settings = self.upstreams.settings();
        settings.map_or(0, |settings| settings.document.nodes)
    }
}

/// What a caller is told without a question to the API.
fn told(known: Known) -> Option<Answer> {
    match known {
        Known::Verdict(verdict) => Some(verdict.into()),
        Known::Unavailable => Some(Answer::Unavailable),
        Known::Nothing => None,
    }
}

async fn create(api: &mut Api, path: &str, object: &Value) -> Result<Value, Error> {
    let object = Bytes::from(serde_json::to_vec(object)?);
    api.request(Verb::Create(object), path).await
}

/// The token of a request, if it has one that can be right.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    let is_token = scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && token.len() <= LONGEST_TOKEN;
    is_token.then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(value: &str) -> Option<String> {
        let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())]);
        bearer(&headers).map(str::to_owned)
    }

    #[test]
    fn a_token_is_taken_from_the_header_and_nothing_else_is_sent_to_the_api() {
        assert_eq!(sent("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(sent("bearer  abc ").as_deref(), Some("abc"));
        for none in ["Basic abc", "Bearer", "Bearer  ", "abc"] {
            assert_eq!(sent(none), None, "{none}");
        }
        assert_eq!(sent(&format!("Bearer {}", "a".repeat(LONGEST_TOKEN + 1))), None);
        assert_eq!(bearer(&HeaderMap::new()), None);
    }

    #[test]
    fn whoever_is_not_allowed_gets_a_status_of_a_refusal() {
        for answer in [
            Answer::Unauthenticated,
            Answer::Forbidden,
            Answer::Unavailable,
            Answer::Throttled,
        ] {
            let (status, _) = answer.refusal().unwrap();
            assert!(!status.is_success(), "{answer:?}");
        }
        assert_eq!(Answer::Allowed.refusal(), None);
    }
}
