//! Who asks, and what may they do?

mod config;
mod grant;

pub use config::{Algorithm, Config};
pub use grant::Grant;
