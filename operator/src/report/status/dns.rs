//! What is published of the pool in DNS, and the condition DNSPublished.

use trivet_crds::pool::DnsStatus;

use super::Seen;
use super::undated::{Holds, Undated};
use crate::dns::published::Published;

/// What is published, once something is.
pub(super) fn status(seen: &Seen<'_>) -> Option<DnsStatus> {
    let status = seen.published.map(|published| published.status.clone());
    status.filter(|status| *status != DnsStatus::default())
}

/// The condition DNSPublished, if the spec asks for a name.
pub(super) fn published(seen: &Seen<'_>) -> Option<Undated> {
    seen.published.map(judge)
}

fn judge(published: &Published) -> Undated {
    if !published.is_known {
        let message = "the operator has not looked at the names yet".to_owned();
        return Undated::unknown("NotYetPublished", message);
    }
    if let Some(trouble) = &published.trouble {
        return Undated::no(trouble.reason, trouble.words.clone());
    }
    let status = &published.status;
    let addresses = |count: usize| match count {
        1 => "1 address".to_owned(),
        count => format!("{count} addresses"),
    };
    let mut sentences = Vec::new();
    if published.is_open {
        sentences.push("no Active member is Up, so all of them are published".to_owned());
    }
    if !status.service_name.is_empty() {
        let count = addresses(status.service_addresses.len());
        sentences.push(format!("{} has {count}", status.service_name));
    }
    if !status.hostname.is_empty() {
        let observed = if published.is_observed == Some(true) {
            "external-dns has observed"
        } else {
            "external-dns has not observed yet"
        };
        let count = addresses(status.targets.len());
        sentences.push(format!("{} has {count}, which {observed}", status.hostname));
    }
    Undated {
        holds: Holds::True,
        reason: if published.is_open {
            "FailOpen"
        } else {
            "Published"
        },
        message: sentences.join("; "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::published::Trouble;

    fn published() -> Published {
        Published {
            status: DnsStatus {
                service_name: "default-apiservers.trivet-system.svc".to_owned(),
                service_addresses: vec!["10.0.0.1".to_owned(), "10.0.0.2".to_owned()],
                hostname: "api.example.com".to_owned(),
                targets: vec!["10.0.0.1".to_owned()],
            },
            is_observed: Some(false),
            is_known: true,
            ..Published::default()
        }
    }

    #[test]
    fn what_is_published_is_counted_with_what_external_dns_has_observed() {
        let told = judge(&published());
        assert_eq!((told.holds, told.reason), (Holds::True, "Published"));
        assert_eq!(
            told.message,
            "default-apiservers.trivet-system.svc has 2 addresses; api.example.com has 1 address, which external-dns has not \
             observed yet"
        );
        let observed = Published {
            is_observed: Some(true),
            ..published()
        };
        assert!(
            judge(&observed)
                .message
                .ends_with("which external-dns has observed")
        );
    }

    #[test]
    fn an_answer_of_last_resort_is_true_and_said_and_what_is_not_written_is_false() {
        let open = Published {
            is_open: true,
            ..published()
        };
        let told = judge(&open);
        assert_eq!((told.holds, told.reason), (Holds::True, "FailOpen"));
        assert!(
            told.message.starts_with("no Active member is Up"),
            "{}",
            told.message
        );
        let refused = Published {
            trouble: Some(Trouble {
                reason: "NameTaken",
                words: "Service a cannot be written".to_owned(),
            }),
            ..published()
        };
        assert_eq!(
            (judge(&refused).holds, judge(&refused).reason),
            (Holds::False, "NameTaken")
        );
        assert_eq!(judge(&Published::default()).holds, Holds::Unknown);
    }
}
