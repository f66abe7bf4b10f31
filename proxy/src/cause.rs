//! Errors told whole: what failed, and why, and why that.

use std::error::Error;

/// An error and all its sources in one line. No error of this crate repeats its source, so nothing is said twice.
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
    struct Outer(#[source] Middle);

    #[derive(Debug, thiserror::Error)]
    #[error("the disk is gone")]
    struct Middle(#[source] io::Error);

    #[test]
    fn the_whole_story_is_one_line() {
        let error = Outer(Middle(io::ErrorKind::NotFound.into()));
        assert_eq!(
            chain(&error),
            "failed to read the token: the disk is gone: entity not found"
        );
    }
}
