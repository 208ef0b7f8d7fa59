//! Who answers where somebody else runs the registry?

mod config;

pub use config::{
    Balance, Ejection, HeaderEdits, Health, HostSent, LocationForm, Peer, Realm, Upstream, UpstreamTimeouts,
    UpstreamTls,
};
