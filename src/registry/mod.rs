//! How is a registry's request answered?

mod config;

pub use config::Config;
