//! What keeps the operator from following the cluster: what the API server does not let it read. It goes on with what it has
//! read before, and says so, because nothing else would tell that masters and edits are not seen.

use tokio::time::Instant;

use crate::plan::Hindrance;
use crate::serve::readiness::{Readiness, refusal};

/// The reason word where the operator lacks a right that the chart gives it.
const RIGHTS_MISSING: &str = "RightsMissing";

/// What the watches are refused.
pub(super) fn of_watches(readiness: &Readiness) -> Vec<Hindrance> {
    let refused = readiness.refused(Instant::now());
    refused
        .iter()
        .map(|(what, words)| hindrance(what, words))
        .collect()
}

/// Whether the EndpointSlices of the apiservers are refused.
pub(super) fn of_endpoints<T>(read: &Result<T, kube::Error>) -> Option<Hindrance> {
    let words = read.as_ref().err().and_then(refusal)?;
    Some(hindrance("EndpointSlice", words))
}

fn hindrance(what: &str, words: &str) -> Hindrance {
    Hindrance {
        reason: RIGHTS_MISSING,
        note: format!(
            "the operator may not use {what} objects, and goes on with what it has read of them before ({words}): \
             `helm upgrade` puts the chart's roles and bindings back"
        ),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn failure(code: u16) -> kube::Error {
        kube::Error::Api(
            Status::failure("it is forbidden", "Forbidden")
                .with_code(code)
                .boxed(),
        )
    }

    #[test]
    fn only_a_refusal_is_told_and_it_has_the_words_of_the_api_server() {
        let readiness = Readiness::default();
        assert_eq!(of_watches(&readiness), []);
        readiness.observe_request("Node", Some(&failure(503)));
        assert_eq!(of_watches(&readiness), []);
        readiness.observe_request("Node", Some(&failure(403)));
        let told = of_watches(&readiness);
        assert_eq!(told[0].reason, "RightsMissing");
        assert!(
            told[0].note.contains("Node objects") && told[0].note.contains("it is forbidden"),
            "{told:?}"
        );
        readiness.observe_request("Node", None);
        assert_eq!(of_watches(&readiness), []);
    }

    #[test]
    fn endpoints_that_are_refused_are_told_and_those_of_a_lost_request_are_not() {
        assert_eq!(of_endpoints(&Ok(())), None);
        assert_eq!(of_endpoints::<()>(&Err(failure(500))), None);
        let told = of_endpoints::<()>(&Err(failure(403))).unwrap();
        assert!(told.note.contains("EndpointSlice"), "{told:?}");
    }
}
