//! An apiserver's reply to a probe, and the outcome that follows from it.

use hyper::StatusCode;

use crate::{
    balance::health::Outcome,
    trust::{Certificate, CertificateStatus, Dates},
};

/// A reply, with the status of the certificate that its connection has shown.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: StatusCode,
    /// The body, up to a limit.
    pub body: String,
    /// Whether the certificate is one of this cluster.
    pub certificate: CertificateStatus,
    /// What the certificate says of itself.
    pub shown: Certificate,
}

impl Reply {
    /// The outcome that changes the health of the path.
    pub fn outcome(&self) -> Outcome {
        if !self.trusted() {
            return Outcome::Untrusted;
        }
        match self.status {
            _ if self.withheld() => Outcome::Withheld,
            status if status.is_success() => Outcome::Ready,
            _ if self.lacks_etcd() => Outcome::EtcdFailed,
            _ => Outcome::NotReady,
        }
    }

    /// Whether the apiserver is alive but withholds its readiness from this caller.
    pub fn withheld(&self) -> bool {
        matches!(self.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
    }

    /// Whether the certificate is one of this cluster; its dates do not matter.
    pub fn trusted(&self) -> bool {
        match self.certificate {
            CertificateStatus::Verified | CertificateStatus::OutOfDate(_) => true,
            CertificateStatus::Untrusted(_) => false,
        }
    }

    /// Whether the certificate is one of this cluster and valid now.
    pub fn verified(&self) -> bool {
        self.certificate == CertificateStatus::Verified
    }

    /// What is wrong, for the log; empty if nothing is wrong.
    pub fn detail(&self) -> String {
        match &self.certificate {
            CertificateStatus::Untrusted(why) => return format!("certificate refused: {why}"),
            CertificateStatus::OutOfDate(Dates::Expired) => {
                return "certificate has expired, or this node's clock is ahead".to_owned();
            }
            CertificateStatus::OutOfDate(Dates::NotYetValid) => {
                return "certificate is not valid yet, or this node's clock is behind".to_owned();
            }
            CertificateStatus::Verified => {}
        }
        if self.outcome().is_good() {
            return String::new();
        }
        format!(
            "answers {}, failing: {}",
            self.status.as_u16(),
            self.failing_checks().join(", ")
        )
    }

    /// Whether the apiserver has lost its etcd. One that shuts down does not count, even if its etcd check fails too: it
    /// closes its connections itself.
    fn lacks_etcd(&self) -> bool {
        let failing = self.failing_checks();
        failing.iter().any(|check| check.starts_with("etcd")) && !failing.contains(&"shutdown")
    }

    /// The names of the checks that failed (`[-]etcd failed: reason withheld`).
    fn failing_checks(&self) -> Vec<&str> {
        let failed = self.body.lines().filter_map(|line| line.strip_prefix("[-]"));
        let names = failed.filter_map(|line| line.split(char::is_whitespace).next());
        names.filter(|name| !name.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_check_follows_its_mark_without_a_space() {
        let reply = Reply {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            body: "[-]\u{c}etcd failed\n[-]poststarthook/x failed\n[-] etcd\n".to_owned(),
            certificate: CertificateStatus::Verified,
            shown: Certificate::default(),
        };
        assert_eq!(reply.failing_checks(), ["poststarthook/x"]);
        assert_eq!(reply.outcome(), Outcome::NotReady);
    }

    fn reply(status: u16, body: &str) -> Reply {
        Reply {
            status: StatusCode::from_u16(status).unwrap(),
            body: body.to_owned(),
            certificate: CertificateStatus::Verified,
            shown: Certificate::default(),
        }
    }

    #[test]
    fn an_apiserver_that_withholds_its_readiness_is_alive() {
        assert_eq!(reply(200, "").outcome(), Outcome::Ready);
        for status in [401, 403] {
            assert_eq!(reply(status, "").outcome(), Outcome::Withheld, "{status}");
        }
        for status in [302, 404, 429, 500, 503] {
            assert_eq!(reply(status, "").outcome(), Outcome::NotReady, "{status}");
        }
    }

    #[test]
    fn the_failing_checks_are_named() {
        let body = "[+]ping ok\n[-]etcd failed: reason withheld\n[-]etcd-readiness failed: reason withheld\n";
        assert_eq!(
            reply(500, body).detail(),
            "answers 500, failing: etcd, etcd-readiness"
        );
    }

    #[test]
    fn an_apiserver_that_shuts_down_is_not_ready_rather_than_without_etcd() {
        let etcd = "[+]ping ok\n[-]etcd failed: reason withheld\n";
        assert_eq!(reply(500, etcd).outcome(), Outcome::EtcdFailed);
        let ending = format!("{etcd}[-]shutdown failed: reason withheld\n");
        assert_eq!(reply(500, &ending).outcome(), Outcome::NotReady);
        let starting = "[-]informer-sync failed: reason withheld\n";
        assert_eq!(reply(500, starting).outcome(), Outcome::NotReady);
    }

    #[test]
    fn a_good_reply_under_a_foreign_certificate_is_untrusted() {
        let foreign = Reply {
            certificate: CertificateStatus::Untrusted("unknown issuer".to_owned()),
            ..reply(200, "ok")
        };
        assert_eq!(foreign.outcome(), Outcome::Untrusted);
        assert!(!foreign.verified());
    }

    #[test]
    fn an_expired_certificate_does_not_change_the_outcome() {
        let expired = Reply {
            certificate: CertificateStatus::OutOfDate(Dates::Expired),
            ..reply(200, "ok")
        };
        assert_eq!(expired.outcome(), Outcome::Ready);
        assert!(!expired.verified());
        assert!(expired.detail().contains("clock"));
    }
}
