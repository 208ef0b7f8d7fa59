//! How do bytes on a socket become requests, and answers bytes again?

mod config;

pub use config::{Config, Listener, Timeouts};
