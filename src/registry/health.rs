//! May requests be answered at all?

mod config;

pub use config::{Config, File, Http, INTERVAL, Pace, TIMEOUT, Tcp};
