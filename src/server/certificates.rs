//! What does TLS show, and who keeps it fresh?
//!
//! Read in two steps, because what only root may read must be read before the rights are given up, and the local authority
//! belongs to whoever we are then.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::task::{AbortHandle, JoinSet};

use super::control::{Answer, Outcome};
use super::privileges::current_user;
use super::{Error, folders};
use crate::config::Settings;
use crate::front;
use crate::telemetry::Metrics;
use crate::tls::acme::{self, Answers, Keeper, Orders, Refusal};
use crate::tls::{self, Board, Certificates, Demands, Files, Remark, Revocations, Rule, Shown, Tickets, Watch, local};

/// What was read from the files that the operator named.
pub(super) struct FromFiles {
    usual: Option<Certificates>,
    rules: Vec<Rule>,
    tickets: Option<Tickets>,
    internal: Option<(Arc<rustls::ServerConfig>, Arc<Certificates>)>,
    upstreams: front::Credentials,
}

/// Everything that TLS needs.
pub(super) struct Loaded {
    /// For the front door.
    pub(super) tls: front::Tls,
    /// To be watched.
    pub(super) shown: Vec<Shown>,
    /// The local authority, when there are no certificates of the operator's, or not yet all that are ordered.
    pub(super) authority: Option<local::Authority>,
}

impl Loaded {
    /// What is wrong with what is shown.
    pub(super) fn remarks(&self, now: SystemTime) -> Vec<Remark> {
        self.shown.iter().flat_map(|shown| shown.remarks(now)).collect()
    }
}

impl FromFiles {
    pub(super) fn read(settings: &Settings) -> Result<Self, Error> {
        let named = &settings.tls.certificates;
        let usual = if named.is_empty() { None } else { Some(Certificates::load(named)?) };
        let internal = settings.front.internal.tls.as_ref().map(tls::port_config).transpose()?;
        let rules = settings.tls.clients.iter().map(Rule::read).collect::<Result<_, _>>()?;
        let tickets = Tickets::load(&settings.tls.ticket_keys)?;
        let upstreams = front::Credentials::load(&settings.front.upstreams)?;
        Ok(Self { usual, rules, tickets, internal, upstreams })
    }

    /// Adds what is ordered, and the local authority's certificate where one is needed and none was named, or not yet
    /// all are there that are ordered. What was ordered and has been shown `before` never gives way to that.
    pub(super) fn complete(self, settings: &Settings, before: &[Shown], now: SystemTime) -> Result<Loaded, Error> {
        let Self { usual, rules, tickets, internal, upstreams } = self;
        let acme = settings.tls.acme.as_ref();
        acme.map(folders::prepare_orders).transpose()?;
        let ordered = acme.map(acme::Config::places).unwrap_or_default();
        let needed = usual.is_none() && settings.front.needs_certificates();
        let needs_local = if ordered.is_empty() { needed } else { !ordered.iter().all(is_there) };
        let authority = needs_local.then(|| local::ensure(&settings.tls.local, now)).transpose()?;
        let own = local::server(&settings.tls.local);
        let local = (needed && ordered.is_empty()).then(|| settings.tls.local.clone());
        let usual = match usual {
            None if local.is_some() => Some(Certificates::load(std::slice::from_ref(&own))?),
            None if ordered.is_empty() => None,
            usual => {
                let usual = usual.map_or_else(|| Certificates::load(&[]), Ok)?;
                Some(usual.with_ordered(ordered, before, &own, now)?)
            }
        };
        let certificates = usual.map(Arc::new);
        let policy = settings.tls.policy;
        let shown_to_all = certificates.clone();
        let usual = shown_to_all.map(|shown| tls::server_config(shown, policy, tickets)).transpose()?;
        // Without certificates nobody can prove anything here, and what is demanded is not forgotten for that.
        let nothing = || Certificates::load(&[]).map(Arc::new);
        let demands = Demands::new(rules, &certificates.clone().map_or_else(nothing, Ok)?, policy)?;
        let demands = Arc::new(demands);
        let mut shown = Vec::new();
        if let Some(certificates) = certificates.clone() {
            shown.push(Shown { certificates, names: settings.public_names(), local });
        }
        let (internal, own) = internal.unzip();
        shown.extend(own.map(|certificates| Shown { certificates, names: Vec::new(), local: None }));
        let answers = acme.map(|acme| Answers::of(&acme.storage));
        let tls = front::Tls { usual, demands, certificates, internal, upstreams, answers };
        Ok(Loaded { tls, shown, authority })
    }
}

/// Whether what was ordered is there, and can be shown.
fn is_there(ordered: &acme::Place) -> bool {
    Certificates::load(&[Files::new(ordered.pem.clone(), ordered.pem.clone())]).is_ok()
}

/// What keeps certificates fresh, until it is told otherwise, and what can be seen of it.
pub(super) fn watch(
    loops: &mut JoinSet<()>,
    shown: Vec<Shown>,
    revocations: Revocations,
    metrics: &Metrics,
) -> Watching {
    let watch = Watch::new(shown.clone(), metrics.clone(), &current_user(), SystemTime::now());
    let board = watch.board();
    let both = async {
        tokio::join!(watch.keep(), revocations.keep());
    };
    Watching { board, shown, task: loops.spawn(both) }
}

/// Somebody who watches files.
pub(super) struct Watching {
    /// What can be seen of it.
    pub(super) board: Arc<Board>,
    /// What is shown.
    pub(super) shown: Vec<Shown>,
    task: AbortHandle,
}

impl Watching {
    /// Stops watching: another process does, for whoever comes now.
    pub(super) fn end(&self) {
        self.task.abort();
    }

    /// Lets another watch from now on.
    pub(super) fn replace(&mut self, other: Self) {
        std::mem::replace(self, other).end();
    }
}

/// Who orders certificates, if any are, until it is told otherwise.
pub(super) struct Ordering {
    running: Option<(Orders, AbortHandle)>,
    metrics: Metrics,
}

impl Ordering {
    /// Begins with what a configuration says.
    pub(super) fn begin(loops: &mut JoinSet<()>, settings: &Settings, metrics: &Metrics) -> Self {
        let keeper = settings.tls.acme.clone().map(|acme| Keeper::new(acme, metrics.clone()));
        let running = keeper.map(|keeper| (keeper.orders(), loops.spawn(keeper.keep())));
        Self { running, metrics: metrics.clone() }
    }

    /// Whether it would go on as it does with these settings, and what is in their files by now.
    pub(super) fn is_of(&self, settings: &Settings) -> bool {
        match (&self.running, &settings.tls.acme) {
            (Some((orders, _)), Some(acme)) => orders.are_of(acme),
            (orders, acme) => orders.is_none() && acme.is_none(),
        }
    }

    /// Adds to what is shown how its orders go.
    pub(super) fn add_to(&self, shown: &mut [tls::Status], now: SystemTime) {
        if let Some((orders, _)) = &self.running {
            orders.add_to(shown, now);
        }
    }

    /// Has the certificates with one of these names ordered now, or all: their files.
    pub(super) fn order_now(&self, names: &[String], now: SystemTime) -> Result<Vec<String>, Answer> {
        let Some((orders, _)) = &self.running else {
            return Err(Answer::new(Outcome::Failed, "no certificates are ordered here (tls.acme); nothing to renew"));
        };
        orders.order_now(names, now).map_err(|refusal| {
            let outcome = match refusal {
                Refusal::Unknown { .. } => Outcome::Failed,
                Refusal::Spent { .. } => Outcome::Later,
            };
            Answer::new(outcome, refusal)
        })
    }

    /// Whether an order is under way.
    pub(super) fn is_at_it(&self, now: SystemTime) -> bool {
        self.running
            .as_ref()
            .is_some_and(|(orders, _)| orders.status(now).iter().any(|(_, status)| status.since.is_some()))
    }

    /// Begins no other order.
    pub(super) fn begin_no_more(&self) {
        if let Some((orders, _)) = &self.running {
            orders.begin_no_more();
        }
    }

    /// Orders no more: what is under way is given up, and what it holds of the storage folder.
    pub(super) fn end(&mut self) {
        if let Some((_, task)) = self.running.take() {
            task.abort();
        }
    }

    /// Lets another order from now on. Where nobody does, there is nothing more to count.
    pub(super) fn replace(&mut self, other: Self) {
        std::mem::replace(self, other).end();
        if self.running.is_none() {
            self.metrics.acme(Vec::new());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Exposition;

    #[test]
    fn where_nobody_orders_any_more_nothing_is_counted() {
        let metrics = Metrics::default();
        metrics.acme(vec![("registry.test".to_owned(), 1, 2)]);
        let nobody = || Ordering { running: None, metrics: metrics.clone() };
        nobody().replace(nobody());
        let page = metrics.page(Exposition::Prometheus);
        assert!(!page.contains("registry.test"), "{page}");
    }
}
