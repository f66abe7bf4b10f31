//! What the comparison lets pass, each with its reason.

use crate::rights::{On, Request};

/// Requests that need no right of the chart: Kubernetes gives them to every user that has authenticated itself.
const OF_EVERYBODY: [(&str, &str, &str); 1] = [(
    "get",
    "/version",
    "the plugin's doctor reads the release of the API server (system:public-info-viewer)",
)];

/// Rights that no scenario makes an account use: account, right, reason.
const UNUSED: [(&str, &str, &str); 2] = [
    (
        "trivet-metrics-reader",
        "get /metrics",
        "it is used at the proxies, which ask by a SubjectAccessReview whether its holder has it",
    ),
    (
        "trivet-plugin-user",
        "get leases.coordination.k8s.io in kube-node-lease",
        "a plan needs it only while a new template runs on one node alone, for half a minute",
    ),
];

/// Why this request may be made without a right of the chart.
pub(crate) fn of_everybody(request: &Request) -> Option<&'static str> {
    let On::Path(path) = &request.on else {
        return None;
    };
    let is_it = |(verb, of, _): &&(&str, &str, &str)| *verb == request.verb && of == path;
    OF_EVERYBODY.iter().find(is_it).map(|(.., why)| *why)
}

/// Why this right of an account need not be used.
pub(crate) fn unused(account: &str, right: &str) -> Option<&'static str> {
    let is_it = |(of, which, _): &&(&str, &str, &str)| *of == account && *which == right;
    UNUSED.iter().find(is_it).map(|(.., why)| *why)
}
