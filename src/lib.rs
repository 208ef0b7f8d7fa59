//! Pierhead: a TLS front door for container registries, with the registry and the token service inside.
//!
//! This page is the map. A request comes in at the top of this list and its bytes rest at the bottom.
//!
//! - [`server`]: the composition root. Settings become rooms, listeners and background loops; it drains them at the end.
//! - [`cli`]: one module per command, thin: parse, call, show.
//! - [`config`]: what the operator wrote, checked: all problems at once, with file, line and key.
//! - [`front`]: the front door. TLS streams with deadlines, HTTP/1.1 and HTTP/2 through Pingora, the Pingora session as
//!   an [`exchange::Exchange`]. The only room that names Pingora (with [`server`], which starts its listeners).
//! - [`origin`]: the embedded origin: which service answers a path, and who may ask. Never fails, always answers.
//! - [`registry`]: the embedded registry: blobs, uploads, manifests, tags, catalog, and their layout on storage.
//! - [`auth`]: who asks and what they may do: accounts, grants, the issuer, the verifier and the token endpoint.
//! - [`tls`]: certificates: where they come from and which one to show.
//! - [`metadata`]: the metadata database: accounts, projects, members, what was read of manifests.
//! - [`storage`]: bytes under keys: the driver's contract, the file system, durable writes.
//! - [`oci`]: the vocabulary: digest, name, reference, media type, manifest, endpoint, scope, range. Pure.
//! - [`exchange`]: one request and its answer, as the services see them, without sockets.
//! - [`gitlab`]: the files of those whose place we take (gitlab.rb, gitlab.yml, an NGINX block), read as text, to a
//!   `pierhead.yml` and a report. Pure.
//! - [`telemetry`]: logs of what goes wrong, of requests and of operations; counts; request ids.
//!
//! Which room may name which is a table in `tests/architecture.rs`.

pub mod auth;
pub mod cli;
pub mod config;
pub mod exchange;
pub mod front;
pub mod gitlab;
pub mod metadata;
pub mod oci;
pub mod origin;
pub mod registry;
pub mod server;
pub mod storage;
pub mod telemetry;
pub mod tls;

#[cfg(test)]
mod heard; // what tests of all rooms hear of the log
