//! How do the orders of certificates go?

use parking_lot::Mutex;

use super::family::{Counters, Label};
use super::page::Page;

const OUTCOME: Label =
    Label { name: "outcome", values: &["issued", "validation", "rate_limited", "refused", "unreachable", "ours"] };

/// Orders, and certificates with when their next begins and how many failed.
#[derive(Debug)]
pub(super) struct Acme {
    orders: Counters<1>,
    certificates: Mutex<Vec<(String, i64, u32)>>,
}

impl Default for Acme {
    fn default() -> Self {
        Self { orders: Counters::new([OUTCOME]), certificates: Mutex::default() }
    }
}

impl Acme {
    pub(super) fn order(&self, outcome: &str) {
        self.orders.add([OUTCOME.position(outcome)], 1);
    }

    pub(super) fn set(&self, certificates: Vec<(String, i64, u32)>) {
        *self.certificates.lock() = certificates;
    }

    pub(super) fn show(&self, page: &mut Page) {
        const NEXT: &str = "pierhead_acme_next_attempt_seconds";
        const FAILURES: &str = "pierhead_acme_failures";
        self.orders.show(page, "pierhead_acme_orders_total", "Orders of certificates that came to an end, and how.");
        let certificates = self.certificates.lock();
        page.gauge(NEXT, "When the next order of a certificate begins, in seconds since 1970.");
        for (certificate, next, _) in certificates.iter() {
            page.sample(NEXT, &[("certificate", certificate)], next);
        }
        page.gauge(FAILURES, "Orders of a certificate that failed since one succeeded.");
        for (certificate, _, failures) in certificates.iter() {
            page.sample(FAILURES, &[("certificate", certificate)], failures);
        }
    }
}
