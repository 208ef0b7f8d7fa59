//! Several nodes, one storage: one order, and any node answers, serves and takes over.

use std::path::{Path, PathBuf};

use super::files;
use crate::support::balancers::passing_haproxy;
use crate::support::handshake::shown;
use crate::support::machine::{NAME, on_a_fresh_machine};
use crate::support::pebble::{Manners, Names, Pebble};
use crate::support::pierhead::{Pierhead, Site};
use crate::support::relay::{Relay, Way};
use crate::support::{free_port, wait_for};

/// Nodes behind a balancer, with a storage that they share; the authority looks by way of a relay.
struct Nodes {
    sites: [Site; 2],
    door: u16,
    storage: PathBuf,
    validation: Relay,
    pebble: Pebble,
    _names: Names,
}

impl Nodes {
    fn new(machine: &Path) -> Self {
        let names = Names::start(machine);
        let validation = Relay::start(Way::Nowhere);
        let manners = Manners { tls: validation.port(), dns: names.port(), ..Manners::default() };
        let pebble = Pebble::start(machine, manners);
        let door = free_port();
        let mut sites = [Site::named(NAME), Site::named(NAME)];
        let storage = machine.join("shared");
        for site in &mut sites {
            site.also_trust(&pebble.root);
            let own = site.port();
            let acme = format!(
                "acme: {{ enabled: true, directory: \"{}\", ca: \"{}\", challenges: [tls-alpn-01], storage: \"{}\" }}",
                pebble.directory(),
                pebble.ca().display(),
                storage.display()
            );
            site.configure(&[
                &format!("external_url: https://{NAME}:{door}"),
                &format!("aliases: [https://{NAME}:{own}]"),
                &format!("listeners: [{{ address: \":{own}\" }}]"),
                &format!("tls: {{ local: certs, {acme} }}"),
            ]);
        }
        Self { sites, door, storage, validation, pebble, _names: names }
    }

    /// A node's port.
    fn port(&self, node: usize) -> u16 {
        self.sites[node].port()
    }

    /// Whether clients that trust only the authority are served at a port.
    fn serves(&self, port: u16) -> bool {
        shown(&self.pebble.root, NAME, port).is_ok()
    }

    /// Waits until the authority was asked for something by whoever orders.
    fn asked(&self, what: &str) {
        wait_for(what, 30, || self.pebble.log().contains(what).then_some(()));
    }
}

#[test]
fn two_nodes_behind_a_balancer_order_once_and_the_one_that_does_not_order_can_answer() {
    on_a_fresh_machine(|machine| {
        let nodes = Nodes::new(machine);
        let _haproxy = passing_haproxy(machine, nodes.door, &[nodes.port(0), nodes.port(1)]);
        // The first begins, and waits for the authority until the second is there, which alone is asked for the proof.
        nodes.pebble.hang();
        let one = nodes.sites[0].start();
        wait_for("the first to begin", 30, || (!files(&nodes.storage).is_empty()).then_some(()));
        let other = nodes.sites[1].start();
        nodes.validation.set(Way::To(vec![nodes.port(1)]));
        nodes.pebble.go_on();
        for node in [0, 1] {
            wait_for("both to serve", 60, || nodes.serves(nodes.port(node)).then_some(()));
        }
        for _ in 0..6 {
            assert!(nodes.serves(nodes.door), "whichever the balancer chooses");
        }
        let ordered = |node: &Pierhead| node.process.stderr().contains("is ordered from");
        assert!(ordered(&one) && !ordered(&other), "{}", other.process.stderr());
        assert!(nodes.validation.accepted() >= 1, "the other answered");
        assert_eq!((nodes.pebble.orders(), nodes.pebble.issued()), (1, 1), "{}", nodes.pebble.log());
        assert_eq!((one.stop().code(), other.stop().code()), (Some(0), Some(0)));
    });
}

#[test]
fn when_the_node_that_orders_dies_in_the_middle_the_other_takes_over() {
    on_a_fresh_machine(|machine| {
        let nodes = Nodes::new(machine);
        // The authority looks and sees nothing but silence, until the one that ordered is dead.
        nodes.validation.set(Way::Silence);
        let one = nodes.sites[0].start();
        nodes.asked("orders in the db");
        let other = nodes.sites[1].start();
        wait_for("the authority to look", 30, || (nodes.validation.accepted() > 0).then_some(()));
        one.kill();
        nodes.validation.set(Way::To(vec![nodes.port(1)]));
        wait_for("the other to take over", 120, || nodes.serves(nodes.port(1)).then_some(()));
        assert_eq!((nodes.pebble.orders(), nodes.pebble.issued()), (2, 1), "{}", nodes.pebble.log());
        let again = nodes.sites[0].start();
        wait_for("the first to show it", 30, || nodes.serves(nodes.port(0)).then_some(()));
        assert_eq!((again.stop().code(), other.stop().code()), (Some(0), Some(0)));
    });
}
