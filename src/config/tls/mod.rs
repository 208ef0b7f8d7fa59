//! What may be written about certificates, and who orders them?
//!
//! ```text
//! names    which names are DNS names, and which of those the world can reach
//! written  the schema of `tls`
//! checks   does it fit together, our names and our ports?
//! acme     the same for `tls.acme`
//! meant    the defaults, whether certificates are ordered, and for which names
//! show     all of it as YAML
//! ```
//!
//! **Invariant:** nothing is ordered for a name that the operator did not write as `external_url`, as an alias, or in
//! `tls.acme.certificates`; without `enabled: true` nothing but for public names where no certificate is given or found.

mod acme;
pub(super) mod checks;
pub(super) mod meant;
mod names;
mod show;
#[cfg(test)]
mod tests;
mod written;

pub(super) use written::Tls;
