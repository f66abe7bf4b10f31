//! Fuzz targets for everything that the proxy parses.
//!
//! Each target runs its corpus (`corpus/TARGET/`), and for a few seconds mutations of it and random bytes. Longer:
//! `TRIVET_FUZZ_SECONDS=3600 cargo test -p trivet-proxy --test fuzz TARGET`. A failing input is shrunk and printed; put
//! it into the corpus.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test says by its panic what is wrong, its helpers too"
)]

mod disk;
mod first_flight;
mod handover;
mod pairs;
mod reply;
mod search;
mod vrrp;
mod wire_document;
