//! What do the words of a container registry mean?
//!
//! The vocabulary of the OCI distribution and image specifications and of Docker's registry API, parsed once at the
//! edge: a [`Digest`], a [`RepositoryName`], a [`Tag`], an [`Endpoint`] or a [`Scope`] that exists is valid.
//!
//! **Invariant:** pure. No I/O, no clock, no HTTP types beyond `http::Method`.

pub mod digest;
pub mod endpoint;
pub mod manifest;
pub mod media_type;
pub mod name;
mod query;
pub mod range;
pub mod reference;
mod route;
pub mod scope;
pub mod upload;

pub use digest::{Algorithm, Digest, Hasher};
pub use endpoint::Endpoint;
pub use manifest::{Descriptor, Manifest, Platform};
pub use media_type::MediaType;
pub use name::RepositoryName;
pub use query::Page;
pub use reference::{Reference, Tag};
pub use scope::{Access, Action, Resource, Scope};
pub use upload::UploadId;
