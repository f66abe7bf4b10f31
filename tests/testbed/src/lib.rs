//! A real multi-master Kubernetes cluster on one machine.
//!
//! Hosts are sets of namespaces and cgroups in which real apiservers, etcds, kubelets and container runtimes run.
//! [`Cluster`] is the way in for tests, [`cli::Testbed`] for people.

pub mod address;
pub mod audit;
pub mod binaries;
pub mod calls;
mod cgroup;
pub mod cli;
mod cluster;
mod component;
mod control;
mod down;
mod etcd;
pub mod fault;
mod host;
pub mod images;
mod membership;
mod network;
mod nodes;
mod output;
mod pki;
mod preflight;
mod process;
mod progress;
mod provision;
mod quiet;
pub mod rights;
pub mod setup;
pub mod skew;
mod spec;
mod state;
mod static_pod;
pub mod status;
mod up;
mod wait;

pub use cluster::Cluster;
pub use component::Component;
pub use down::down;
pub use fault::{Direction, Family, Fault};
pub use host::Host;
pub use membership::Joining;
pub use progress::{Progress, Stopwatch};
pub use spec::Spec;
