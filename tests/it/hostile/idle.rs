//! Connections that are only there.

use super::Fort;
use crate::support::soak;

/// What one of them may cost: its TLS session and a task.
const EACH: u64 = 48 << 10;

#[test]
fn thousands_of_idle_connections_cost_little_and_others_are_served() {
    let count = if soak() { 5000 } else { 500 };
    let fort = Fort::new(&["timeouts: { header: 5m }", "limits: { connections_per_client: 6000 }"]);
    fort.is_well_after("nobody");
    let before = fort.server.process.memory();
    let wires: Vec<_> = (0..count).map(|_| fort.door.tls("http/1.1")).collect();
    fort.is_well_after("all of them");
    let each = fort.server.process.memory().saturating_sub(before) / count;
    eprintln!("{count} idle connections; each costs {each} bytes");
    assert!(each < EACH, "{each}");
    drop(wires);
    fort.is_well_after("their end");
}
