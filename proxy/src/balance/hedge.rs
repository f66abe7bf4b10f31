//! Hedges: a client's first flight goes to a second upstream when the first one does not answer it in time.

pub mod budget;
pub mod delay;
