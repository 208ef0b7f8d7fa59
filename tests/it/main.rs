//! The product as its users meet it: the real binary, real clients, real disks, and real faults.
//!
//! One module per promise; the name of a test is the claim that it checks. `support/` starts what the tests need.
//! Tests that use docker, podman, buildah or skopeo, that mount file systems or that change owners run on a *fresh
//! machine*, a set of namespaces of their own ([`support::machine`]), and need root; they fail, with a message, without
//! it. `tests/install-clients` installs the clients. `PIERHEAD_SOAK=1` makes the random tests long.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that cannot go on says why and fails"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "what a test writes need not outlive a power failure, and a process that lost its test ends at once"
)]

mod acme;
mod aws;
mod cert_commands;
mod certificates;
mod change;
mod client_certificates;
mod clients;
mod config;
mod conformance;
mod crash;
mod differential;
mod disk;
mod hostile;
mod import;
mod indexes;
mod interop;
mod limits;
mod link;
mod load;
mod logs;
mod metrics;
mod original;
mod original_doors;
mod original_guards;
mod peers;
mod power;
mod reindex;
mod services;
mod shapes;
mod shutdown;
mod support;
mod tickets;
mod tls;
#[cfg(feature = "opentelemetry")]
mod traces;
mod trees;
mod upgrade;
mod upstream;
mod upstream_balance;
mod upstream_faults;
