//! A real multi-master Kubernetes cluster on one machine.
