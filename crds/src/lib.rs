//! What Trivet's programs agree on.
