//! What the chart's roles grant to whom. Pure but for the reading: a right covers a request as Kubernetes' RBAC authorizer
//! decides it.

mod chart;
#[cfg(test)]
mod documented;
mod right;
mod templates;

pub use self::chart::{Account, Grant, PLUGIN_USER, Roles};
pub(crate) use self::chart::{GROUP, Id, Kind, Object, Rendered, render};
pub use self::right::{On, Request, Right};
