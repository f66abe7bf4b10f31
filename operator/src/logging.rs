//! Log lines, written to standard error as text or JSON, and errors as text.

use std::error::Error;
use std::io::IsTerminal;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::cli::{LogFormat, LogLevel};

/// Starts logging. Called once, by `main`.
pub fn start(level: LogLevel, format: LogFormat) {
    let level = LevelFilter::from(level);
    // The libraries warn about every connection that ends. Our own lines tell what matters of that.
    let others = if level > LevelFilter::INFO {
        LevelFilter::WARN
    } else {
        LevelFilter::ERROR
    };
    let filter = Targets::new()
        .with_target("trivet_operator", level)
        .with_default(others.min(level));
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        LogFormat::Text => {
            let is_terminal = std::io::stderr().is_terminal();
            let layer = tracing_subscriber::fmt::layer()
                .with_ansi(is_terminal)
                .with_writer(std::io::stderr);
            registry.with(layer).init();
        }
        LogFormat::Json => {
            registry
                .with(
                    tracing_subscriber::fmt::layer()
                        .json()
                        .with_writer(std::io::stderr),
                )
                .init();
        }
    }
}

/// An error with its causes, each once: many libraries repeat their source in their own message.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    if let Some(kube::Error::Api(status)) = error.downcast_ref() {
        // The error's own text is a dump of the whole response.
        return format!("{} ({} {})", status.message, status.code, status.reason);
    }
    let words = error.to_string();
    let Some(source) = error.source() else {
        return words;
    };
    let own = words
        .strip_suffix(&source.to_string())
        .unwrap_or(&words)
        .trim_end_matches(": ");
    if own.is_empty() {
        chain(source)
    } else {
        format!("{own}: {}", chain(source))
    }
}

impl From<LogLevel> for LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("failed to apply")]
    struct Outer(#[source] kube::Error);

    #[test]
    fn an_error_is_printed_once_and_without_dumps() {
        let status = Status::failure("no such pool", "NotFound").with_code(404);
        let text = chain(&Outer(kube::Error::Api(status.boxed())));
        assert_eq!(text, "failed to apply: no such pool (404 NotFound)");
        let repeated = Outer(kube::Error::Service("connection refused".into()));
        assert_eq!(
            chain(&repeated),
            "failed to apply: ServiceError: connection refused"
        );
    }
}
