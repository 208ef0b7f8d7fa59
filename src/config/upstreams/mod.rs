//! What may be written about registries that others run, and about which request goes where?
//!
//! ```text
//! written   the schema of `upstreams`
//! routes    the schema of `routes`, and what a route means
//! meant     the defaults, who answers what, and the front's own types
//! checks    do upstreams and routes fit each other, our names and our ports?
//! show      both as YAML
//! ```
//!
//! Names of upstreams are the operator's, so nothing below `upstreams` has a variable of its own: `PIERHEAD_UPSTREAMS` holds
//! all of them, `PIERHEAD_ROUTES` all routes.

pub(super) mod checks;
pub(super) mod meant;
mod routes;
mod show;
#[cfg(test)]
mod tests;
mod written;

pub(super) use routes::Route;
pub use show::ways;
pub(super) use written::{Upstream, is_ours_in_requests, name, whole_url};
