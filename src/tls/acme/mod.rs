//! How does a certificate come from an authority by ACME (RFC 8555)?
//!
//! ```text
//! config      what the operator wants: names, directory, challenges
//! challenge   proofs that a name is ours: answers that every node can give
//! order       the contract with an authority: one order, from names to a certificate
//! engine      who speaks with it, by which library
//! proofs      who puts proofs where it looks: files, another server's folder, the DNS
//!
//! keeper      who orders, with a task for each certificate; desk, status, voice: what can be seen of it
//! renewal     when: a function of what is there, of what was tried (history) and of now
//! lease       which of several nodes
//! storage     where all that lies; place: of one certificate
//! ```
//!
//! **Invariants**
//! - What is in the storage folder is all that there is to know: account, certificates, answers to challenges, failures.
//!   Every node that shares the folder can answer a challenge, and each shows a certificate as soon as it lies there.
//! - What is shown is never worse than before: a certificate takes its place by the same rules as one of files.

mod challenge;
mod config;
mod desk;
mod engine;
mod history;
mod keeper;
mod kept;
mod lease;
mod order;
mod place;
mod proofs;
mod renewal;
mod status;
mod storage;
mod task;
#[cfg(test)]
mod testing;
mod voice;

pub use challenge::{Answers, Challenge, is_asked_for};
pub use config::{Config, Dns, ExternalAccount, LETS_ENCRYPT, LETS_ENCRYPT_STAGING};
pub use keeper::{Keeper, Orders};
pub use kept::kept;
pub use place::Place;
pub(super) use renewal::overdue;
pub use status::{LastError, Refusal, Status};
pub use storage::is_of_storage;
