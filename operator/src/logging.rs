//! Where log lines go: standard error, as text or JSON.

use std::io::IsTerminal;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::cli::{LogFormat, LogLevel};

/// Starts logging. Called once, by `main`.
pub fn start(level: LogLevel, format: LogFormat) {
    let level = LevelFilter::from(level);
    // The libraries warn of every connection that ends; what matters of that, our own lines say.
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
