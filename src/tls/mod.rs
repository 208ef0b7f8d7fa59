//! Which certificate is shown, and where does it come from?

mod config;

pub use config::{Config, Files, Local};
