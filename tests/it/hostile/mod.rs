//! Promise: nobody holds the server open, knocks it over or makes it misread a request.
//!
//! Tables of hostile clients. After each of them a normal request is answered, and after all of them the server has not
//! needed more memory than [`BOUND`].

mod forwarded;
mod frames;
mod http1;
mod http2;
mod idle;
mod names;
mod registry;
mod slow;
mod wire;

use std::thread;

use crate::support::pierhead::{Pierhead, Site};
use wire::{Door, statuses};

/// What the server may need whatever they do: the bound of the README for honest clients.
const BOUND: u64 = 150 << 20;

/// Times so short that a test can wait for their end.
const IMPATIENT: &str = "timeouts: { handshake: 2s, header: 2s, idle: 3s, stall: 2s, minimum_rate: 4KiB }";

/// A server under attack.
struct Fort {
    site: Site,
    server: Pierhead,
    door: Door,
}

impl Fort {
    fn new(settings: &[&str]) -> Self {
        let site = Site::new();
        site.configure(settings);
        let server = site.start();
        let door = Door::of(&site);
        Self { site, server, door }
    }

    /// A request that an honest client sends, on a connection of its own.
    fn is_well_after(&self, name: &str) {
        let mut wire = self.door.tls("http/1.1");
        wire.send(format!("GET /v2/ HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.door.authority));
        assert_eq!(statuses(&wire.rest()), [401], "an honest client after {name:?}");
    }

    /// Runs cases at the same time, since most of them wait.
    fn withstands<C: Sync>(&self, cases: &[C], name: impl Fn(&C) -> &str + Sync, run: impl Fn(&C) + Sync) {
        thread::scope(|scope| {
            for case in cases {
                let (name, run) = (&name, &run);
                let attack = move || {
                    run(case);
                    self.is_well_after(name(case));
                };
                // The name is what a panic shows.
                let attacker = thread::Builder::new().name(name(case).to_owned());
                attacker.spawn_scoped(scope, attack).expect("a thread");
            }
        });
        let peak = self.server.process.peak_memory();
        assert!(peak < BOUND, "{} MiB", peak >> 20);
        eprintln!("{} hostile clients; the server never had more than {} MiB", cases.len(), peak >> 20);
    }
}
