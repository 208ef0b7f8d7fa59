//! How much may one client hold of us at once, and all of them together?
//!
//! A connection costs memory and a file descriptor for as long as it lives, so connections are counted: in all, and for
//! each client ([`network`](crate::exchange::network): IPv6 by /64). What a request's header may be is bounded as well;
//! [`Limits`] has all the numbers.
//!
//! **Who is turned away hears why**, at a price that is bounded: saying it takes a TLS handshake (about a millisecond of
//! one core, all that an attacker could wish for) and a socket for as long as a header may take. So [`WORDS`] connections
//! a second are answered 429 with `Retry-After` and OCI JSON, which a person's `docker` prints; those above that are
//! closed before the first byte of a handshake. A flood thus costs a few percent of one core, and the engineer whose
//! build farm opens too many connections still reads the reason.
//!
//! **A connection's place pays for a few requests at once, and no more.** Over HTTP/2 one connection has many, each of which
//! may hold a file and a piece of it, or a connection to an upstream, for as long as its client has patience. The first
//! [`OWN_STREAMS`] of each connection, which are all that most clients have, are counted nowhere but there. Those beyond are
//! counted as connections are: for each client, and in all as many as there may be connections. What is over that is
//! refused before anything is opened for it.
//!
//! **Invariants**
//! - What was admitted counts until its guard is dropped, whatever becomes of it; a table of clients holds no more entries
//!   than there are such connections, or requests.
//! - A drain counts every connection, those turned away and those whose client is not known yet among them.
//! - A client behind a proxy on this machine that does not say for whom it speaks has no network of its own, and no limit
//!   of its own either: it would be everybody's. For a registry alone, which cannot be told of proxies, that holds for all.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::exchange::Limit;

/// How many connections a second are told why they are turned away.
const WORDS: u32 = 50;
/// How often the log says that connections are turned away.
const REMARK: Duration = Duration::from_secs(60);

/// How many requests at once a connection's own place pays for.
pub(super) const OWN_STREAMS: usize = 4;
/// How many more one client may have on all its connections together, or as many as it may have connections if that is
/// more. A build farm behind one address that pulls ten layers at a time on a hundred connections needs 600. With 512
/// connections a client thus has 3,072 requests at once, and not the 51,200 that streams and connections multiply to.
const FURTHER_STREAMS: usize = 1024;

/// How much clients may have at once (`limits`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections in all.
    pub connections: usize,
    /// Connections of one client.
    pub connections_per_client: usize,
    /// Whether an address is a client. Not where a proxy may stand before us and there is no key to say so
    /// (`pierhead registry serve`): then nobody has limits of their own but accounts.
    pub by_address: bool,
    /// Requests at once on one HTTP/2 connection.
    pub streams: u32,
    /// Requests at once of one client on HTTP/2 beyond the first few of each connection.
    pub further_streams: usize,
    /// Bytes of a request's header section, from the method to the empty line.
    pub header: usize,
    /// Fields of a request's header.
    pub fields: usize,
    /// Bytes of a request's path and query.
    pub target: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 20_000,
            connections_per_client: 512,
            by_address: true,
            streams: 100,
            further_streams: FURTHER_STREAMS,
            header: 64 << 10,
            fields: 100,
            target: 8 << 10,
        }
    }
}

impl Limits {
    /// How many requests there may be at once: the first few of each connection, and as many beyond as there may be
    /// connections.
    pub fn requests(&self) -> usize {
        self.connections.saturating_mul(OWN_STREAMS + 1)
    }
}

/// Which limit a connection, or a request beyond the first of one, found reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// That of all together.
    Everybody,
    /// That of its client.
    Client,
}

impl Full {
    /// How that is counted.
    pub(super) fn limit(self) -> Limit {
        match self {
            Self::Everybody => Limit::Connections,
            Self::Client => Limit::ConnectionsPerClient,
        }
    }
}

/// The connections that are open.
#[derive(Debug, Default)]
pub(super) struct Connections {
    open: AtomicUsize,
    none: Notify,
    admitted: Arc<Places>,
    turned_away: Mutex<TurnedAway>,
    /// Of requests beyond [`OWN_STREAMS`].
    streams: Arc<Places>,
    refused: Mutex<Remarks>,
}

/// The places that are taken.
#[derive(Debug, Default)]
struct Places(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    all: usize,
    clients: HashMap<IpAddr, usize>,
}

impl Places {
    /// One more of so many in all, and of so many of this client; `None`: of nobody in particular.
    fn take(self: &Arc<Self>, client: Option<IpAddr>, all: usize, of_client: usize) -> Result<Place, Full> {
        let mut table = self.0.lock();
        if table.all >= all {
            return Err(Full::Everybody);
        }
        if let Some(client) = client {
            if table.clients.get(&client).copied().unwrap_or_default() >= of_client {
                return Err(Full::Client);
            }
            *table.clients.entry(client).or_default() += 1;
        }
        table.all += 1;
        Ok(Place { places: self.clone(), client })
    }
}

/// A place under the limits, until dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    client: Option<IpAddr>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.places.0.lock();
        table.all -= 1;
        let Some(client) = self.client else { return };
        if let Some(count) = table.clients.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                table.clients.remove(&client);
            }
        }
    }
}

impl Connections {
    /// A connection begins.
    pub(super) fn enter(self: &Arc<Self>) -> Counted {
        self.open.fetch_add(1, Ordering::Relaxed);
        Counted(self.clone())
    }

    /// Whether there is room for a connection of this client; `None`: of nobody in particular.
    pub(super) fn admit(&self, client: Option<IpAddr>, limits: &Limits) -> Result<Place, Full> {
        self.admitted.take(client, limits.connections, limits.connections_per_client)
    }

    /// The same for a request beyond [`OWN_STREAMS`] of its connection.
    pub(super) fn admit_further(&self, client: Option<IpAddr>, limits: &Limits) -> Result<Place, Full> {
        self.streams.take(client, limits.connections, limits.further_streams)
    }

    /// Such a request was refused. The log hears of it once a minute.
    pub(super) fn refused(&self, full: Full, address: IpAddr, now: Instant) {
        let remark = self.refused.lock().next(now);
        match (remark, full) {
            (None, _) => {}
            (Some(count), Full::Everybody) => {
                tracing::warn!(count, "HTTP/2 requests refused, too many at once: limits.connections");
            }
            (Some(count), Full::Client) => {
                tracing::warn!(
                    count,
                    client = %address,
                    "HTTP/2 requests refused, too many at once: limits.connections_per_client"
                );
            }
        }
    }

    /// Whether a connection that is turned away hears why. The log hears of it once a minute.
    pub(super) fn tells(&self, full: Full, address: IpAddr, now: Instant) -> bool {
        let (tells, remark) = self.turned_away.lock().next(now);
        match (remark, full) {
            (None, _) => {}
            (Some(count), Full::Everybody) => tracing::warn!(count, "connections turned away: limits.connections"),
            (Some(count), Full::Client) => {
                tracing::warn!(count, client = %address, "connections turned away: limits.connections_per_client");
            }
        }
        tells
    }

    /// How many are open.
    pub(super) fn count(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// Returns when none is open.
    pub(super) async fn none(&self) {
        loop {
            let notified = self.none.notified(); // registered before the count is looked at: none can be missed
            if self.count() == 0 {
                return;
            }
            notified.await;
        }
    }
}

/// A connection that counts as long as this lives.
pub(super) struct Counted(Arc<Connections>);

impl Drop for Counted {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.none.notify_waiters();
        }
    }
}

/// Those turned away of late.
#[derive(Debug, Default)]
struct TurnedAway {
    /// When the words that were said are all paid for: each costs a [`WORDS`]th of a second.
    paid: Option<Instant>,
    remarks: Remarks,
}

impl TurnedAway {
    /// One more: whether it hears why, and, when it is time to say so, how many there were since that was last said.
    fn next(&mut self, now: Instant) -> (bool, Option<u64>) {
        let second = Duration::from_secs(1);
        let paid = self.paid.map_or(now, |paid| paid.max(now)) + second / WORDS;
        let tells = paid <= now + second;
        if tells {
            self.paid = Some(paid);
        }
        (tells, self.remarks.next(now))
    }
}

/// What is said once a minute and not each time.
#[derive(Debug, Default)]
struct Remarks {
    last: Option<Instant>,
    since: u64,
}

impl Remarks {
    /// One more: when it is time to say so, how many there were since that was last said.
    fn next(&mut self, now: Instant) -> Option<u64> {
        self.since += 1;
        if self.last.is_some_and(|last| now < last + REMARK) {
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        connections: 3,
        connections_per_client: 2,
        by_address: true,
        streams: 1,
        further_streams: 1,
        header: 0,
        fields: 0,
        target: 0,
    };

    fn client(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, last]))
    }

    #[test]
    fn one_client_has_its_limit_and_all_together_have_theirs() {
        let connections = Arc::new(Connections::default());
        let admit = |client| connections.admit(client, &LIMITS);
        let (_one, two) = (admit(client(1)).unwrap(), admit(client(1)).unwrap());
        assert_eq!(admit(client(1)).unwrap_err(), Full::Client);
        let _other = admit(client(2)).unwrap();
        assert_eq!(admit(client(3)).unwrap_err(), Full::Everybody);
        drop(two);
        assert!(admit(client(1)).is_ok(), "a place that was left is free");
    }

    #[test]
    fn who_speaks_for_many_counts_only_among_all() {
        let connections = Arc::new(Connections::default());
        let held: Vec<_> = (0..3).map(|_| connections.admit(None, &LIMITS).unwrap()).collect();
        assert_eq!(connections.admit(None, &LIMITS).unwrap_err(), Full::Everybody);
        drop(held);
        assert_eq!(connections.admitted.0.lock().all, 0);
    }

    #[test]
    fn requests_beyond_the_first_of_a_connection_have_limits_of_their_own() {
        let connections = Arc::new(Connections::default());
        let _connection = connections.admit(client(1), &LIMITS).unwrap();
        let further = |client| connections.admit_further(client, &LIMITS);
        let one = further(client(1)).unwrap();
        assert_eq!(further(client(1)).unwrap_err(), Full::Client);
        let _others = [further(client(2)).unwrap(), further(None).unwrap()];
        assert_eq!(further(client(3)).unwrap_err(), Full::Everybody);
        drop(one);
        assert!(further(client(1)).is_ok(), "a place that was left is free");
    }

    #[test]
    fn nothing_is_kept_of_clients_that_have_left_or_were_turned_away() {
        let connections = Arc::new(Connections::default());
        for last in 0..=255 {
            let held = (connections.admit(client(last), &LIMITS), connections.admit(client(last), &LIMITS));
            assert!(connections.admit(client(last), &LIMITS).is_err());
            drop(held);
        }
        assert!(connections.admitted.0.lock().clients.is_empty());
    }

    #[test]
    fn a_flood_is_told_why_fifty_times_a_second_and_the_log_once_a_minute() {
        let mut turned_away = TurnedAway::default();
        let start = Instant::now();
        let mut second = |second: u64| {
            let now = start + Duration::from_secs(second);
            let heard: Vec<_> = (0..1000).map(|_| turned_away.next(now)).collect();
            let remarks: Vec<u64> = heard.iter().filter_map(|(_, remark)| *remark).collect();
            (heard.iter().filter(|(tells, _)| *tells).count(), remarks)
        };
        assert_eq!(second(0), (50, vec![1]));
        assert_eq!(second(1), (50, vec![]));
        assert_eq!(second(60), (50, vec![2000]));
    }

    #[tokio::test]
    async fn a_drain_waits_for_connections_that_were_turned_away_too() {
        use futures_util::FutureExt as _;
        let connections = Arc::new(Connections::default());
        let counted = connections.enter();
        assert!(connections.admit(client(1), &Limits { connections: 0, ..LIMITS }).is_err());
        assert!(connections.none().now_or_never().is_none());
        drop(counted);
        assert!(connections.none().now_or_never().is_some());
    }
}
