//! Errors with all of their sources.

use std::error::Error;

/// An error and all of its sources in one line. No error of this crate repeats its source, so nothing appears twice.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(next) = source {
        text.push_str(": ");
        text.push_str(&next.to_string());
        source = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("failed to read the token")]
    struct TokenError(#[source] DiskError);

    #[derive(Debug, thiserror::Error)]
    #[error("the disk is gone")]
    struct DiskError(#[source] io::Error);

    #[test]
    fn an_error_and_its_sources_are_one_line() {
        let error = TokenError(DiskError(io::ErrorKind::NotFound.into()));
        assert_eq!(
            chain(&error),
            "failed to read the token: the disk is gone: entity not found"
        );
    }
}
