//! A real multi-master Kubernetes cluster on one machine.

pub mod binaries;
pub mod images;
pub mod progress;
mod quiet;
pub mod setup;
