//! Which peer gets a request, and how do they all do?
//!
//! One lock for each pool, held for the moments in which a peer is chosen or what became of it is noted, never while
//! anybody waits.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::StatusCode;
use moka::sync::Cache;
use parking_lot::Mutex;
use pingora::upstreams::peer::HttpPeer;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::balance::{self, Candidate};
use super::check::{Checker, keep_checking};
use super::condition::{Change, Condition, Standing};
use super::credentials::{Loaded, asked_name};
use super::dial::Dial;
use super::resolve::{self, Lookup, System};
use super::{Balance, Health, Upstream};
use crate::exchange::{Origin, Passage};
use crate::telemetry::PeerState;

/// Uploads whose peers are remembered, at most.
const UPLOADS: u64 = 1 << 16;
/// How long, after their last request.
const UPLOAD_IDLE: Duration = Duration::from_secs(24 * 60 * 60);
/// Longer ids are not remembered.
const UPLOAD_ID: usize = 256;

/// The peers of an upstream as they are now.
#[derive(Debug)]
pub(in crate::front) struct Pool {
    config: Upstream,
    credentials: Arc<Loaded>,
    dial: Dial,
    members: Mutex<Vec<Member>>,
    /// Whether every name has been looked up once, with or without success.
    resolved: watch::Sender<usize>,
    /// Which peer has begun which upload, where that matters.
    uploads: Option<Cache<Box<str>, SocketAddr>>,
    lookup: Arc<dyn Lookup>,
    lookup_every: Duration,
    /// What goes on in the background, begun once. Ends with the pool.
    tasks: Mutex<JoinSet<()>>,
    checker: Mutex<Option<Checker>>,
}

/// A peer by its address: what does not change.
#[derive(Debug)]
pub(super) struct Place {
    /// Which of the upstream's peers it is, or one of whose addresses.
    pub(super) peer: usize,
    pub(super) address: SocketAddr,
    pub(super) origin: Origin,
    /// What its certificate must carry.
    pub(super) name: String,
    weight: u32,
    running: AtomicUsize,
}

/// And what does.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) place: Arc<Place>,
    pub(super) condition: Condition,
    owed: f64,
    ejections: u64,
    /// Checks that it failed, and that it passed.
    checks: [u64; 2],
}

impl Pool {
    pub(super) fn new(config: Upstream, credentials: Arc<Loaded>) -> Self {
        Self::with(config, credentials, Arc::new(System), resolve::EVERY)
    }

    /// The same with another resolver, asked as often as this.
    pub(super) fn with(
        config: Upstream,
        credentials: Arc<Loaded>,
        lookup: Arc<dyn Lookup>,
        lookup_every: Duration,
    ) -> Self {
        let remembers = config.balance == Balance::Upload;
        let cache = || Cache::builder().max_capacity(UPLOADS).time_to_idle(UPLOAD_IDLE).build();
        let pool = Self {
            dial: Dial::new(&config, &credentials),
            credentials,
            members: Mutex::default(),
            resolved: watch::Sender::new(0),
            uploads: remembers.then(cache),
            lookup,
            lookup_every,
            tasks: Mutex::default(),
            checker: Mutex::default(),
            config,
        };
        for (peer, origin) in pool.config.peers.iter().map(|peer| &peer.origin).enumerate() {
            if let Some(address) = literal(origin) {
                pool.settle(peer, vec![address]);
            }
        }
        pool
    }

    /// What the operator said.
    pub(in crate::front) fn config(&self) -> &Upstream {
        &self.config
    }

    /// Whether its files are these.
    pub(super) fn has(&self, credentials: &Loaded) -> bool {
        *self.credentials == *credentials
    }

    /// What decides which peer a request gets, where something does: the key for [`pick`](Self::pick).
    pub(in crate::front) fn key<'p>(&self, passage: &'p Passage) -> Option<&'p str> {
        match self.config.balance {
            Balance::RoundRobin | Balance::LeastLoaded => None,
            Balance::Repository => passage.repository.as_deref(),
            Balance::Upload => passage.upload.as_deref(),
        }
    }

    /// The peer for a request, and not one of those that it was tried at already. Waits only for the first addresses of
    /// names, and no longer than for a connection. `None`: there is nobody (else).
    pub(in crate::front) async fn pick(self: &Arc<Self>, key: Option<&str>, tried: &[SocketAddr]) -> Option<Picked> {
        self.wait_for_addresses(self.config.timeouts.connect).await;
        self.choose(key, tried, Instant::now())
    }

    /// Until every name has been looked up once, or this time is over: then we go by what there is.
    pub(super) async fn wait_for_addresses(&self, time: Duration) {
        let names = self.config.peers.iter().filter(|peer| literal(&peer.origin).is_none()).count();
        let mut resolved = self.resolved.subscribe();
        if *resolved.borrow() < names {
            let all = resolved.wait_for(|resolved| *resolved == names);
            let _ = tokio::time::timeout(time, all).await; // either way
        }
    }

    /// The same, by what there is now.
    pub(super) fn choose(self: &Arc<Self>, key: Option<&str>, tried: &[SocketAddr], now: Instant) -> Option<Picked> {
        let remembered = key.and_then(|key| self.uploads.as_ref()?.get(key));
        let mut members = self.members.lock();
        let free = |member: &&mut Member| !tried.contains(&member.place.address);
        let best = members.iter_mut().filter(free).map(|member| member.condition.standing(now)).min()?;
        // How slowly somebody starts says nothing about whose key it is: keys would move again and again.
        let slow_start = key.map_or(self.config.slow_start, |_| Duration::ZERO);
        let (places, mut candidates): (Vec<Arc<Place>>, Vec<Candidate<'_>>) = members
            .iter_mut()
            .filter(free)
            .filter(|member| member.condition.standing(now) == best)
            .map(|member| {
                let place = &member.place;
                let candidate = Candidate {
                    address: place.address,
                    weight: f64::from(place.weight) * member.condition.share(slow_start, now),
                    running: place.running.load(Ordering::Relaxed),
                    owed: &mut member.owed,
                };
                (Arc::clone(place), candidate)
            })
            .unzip();
        let chosen = match (remembered, key) {
            (Some(began), Some(key)) => {
                let there = candidates.iter().position(|candidate| candidate.address == began);
                there.or_else(|| balance::consistent(&candidates, key))
            }
            (_, Some(key)) => balance::consistent(&candidates, key),
            (_, None) if self.config.balance == Balance::LeastLoaded => balance::least_loaded(&mut candidates),
            (_, None) => balance::in_turns(&mut candidates),
        };
        let place = Arc::clone(&places[chosen?]);
        place.running.fetch_add(1, Ordering::Relaxed);
        Some(Picked { pool: Arc::clone(self), place })
    }

    /// Remembers that this peer has the upload: to be called with the id in every good answer to an upload's requests.
    ///
    /// The upstream chooses the id when the upload begins, so no rule could have led its beginning to where the id will
    /// lead. What is remembered here is lost with the process, another front door never knew it, and at some point it is
    /// too old: then the id alone decides, by which all of them agree on one peer from then on. Where that is not enough,
    /// because several front doors take the requests of one upload, `repository` is the balance to choose: it needs no
    /// memory.
    pub(in crate::front) fn learn(&self, upload: &str, picked: &Picked) {
        if let Some(uploads) = self.uploads.as_ref().filter(|_| upload.len() <= UPLOAD_ID) {
            uploads.insert(upload.into(), picked.place.address);
        }
    }

    /// Whether some peer is well; where there are no checks, whoever does not fail is.
    pub(super) fn has_somebody(&self, now: Instant) -> bool {
        let known = |member: &Member| self.config.health.is_none() || member.condition.is_known();
        self.members.lock().iter().any(|member| member.condition.standing(now) == Standing::Well && known(member))
    }

    /// Whether some peer may be well, for all that is known.
    pub(super) fn may_have_somebody(&self, now: Instant) -> bool {
        self.members.lock().iter().any(|member| member.condition.standing(now) == Standing::Well)
    }

    /// Whether a peer has one address, and nothing was wrong there of late.
    fn is_untroubled(&self, peer: usize) -> bool {
        let members = self.members.lock();
        let mut of_peer = members.iter().filter(|member| member.place.peer == peer);
        of_peer.next().is_some_and(|member| member.condition.is_untroubled()) && of_peer.next().is_none()
    }

    /// Where its peers are now.
    pub(super) fn places(&self) -> Vec<Arc<Place>> {
        self.members.lock().iter().map(|member| Arc::clone(&member.place)).collect()
    }

    /// What Pingora connects to there.
    pub(super) fn peer(&self, place: &Place) -> HttpPeer {
        self.dial.peer(place)
    }

    /// What connects for checks.
    pub(super) fn checker(&self) -> Option<Checker> {
        self.checker.lock().clone()
    }

    /// A check of a peer had this result. Gives what that changes.
    pub(super) fn checked(&self, place: &Arc<Place>, good: bool, health: &Health, now: Instant) -> Option<Change> {
        let note = |member: &mut Member| {
            member.checks[usize::from(good)] += 1;
            member.condition.checked(good, health, now)
        };
        self.with_member(place, note).flatten()
    }

    /// How its peers do, for who counts.
    pub(super) fn states(&self, now: Instant) -> Vec<PeerState> {
        let state = |member: &Member| PeerState {
            upstream: self.config.name.to_string(),
            peer: member.place.origin.to_string(),
            address: member.place.address.to_string(),
            well: member.condition.standing(now) == Standing::Well,
            running: member.place.running.load(Ordering::Relaxed) as u64,
            ejections: member.ejections,
            passed: member.checks[1],
            failed: member.checks[0],
        };
        self.members.lock().iter().map(state).collect()
    }

    /// Begins what goes on in the background, unless that is begun. Checks connect by this from now on.
    pub(super) fn tend(self: &Arc<Self>, checker: Option<Checker>) {
        *self.checker.lock() = checker;
        let mut tasks = self.tasks.lock();
        if !tasks.is_empty() {
            return;
        }
        for (peer, origin) in self.config.peers.iter().map(|peer| &peer.origin).enumerate() {
            if literal(origin).is_none() {
                tasks.spawn(keep_resolving(Arc::downgrade(self), peer, origin.clone(), Arc::clone(&self.lookup)));
            }
        }
        if let Some(health) = self.config.health.clone() {
            tasks.spawn(keep_checking(Arc::downgrade(self), health));
        }
    }

    /// These are the addresses of one of the peers now. Those that stay keep what is known of them.
    fn settle(&self, peer: usize, addresses: Vec<SocketAddr>) {
        let Some(configured) = self.config.peers.get(peer) else { return };
        let mut members = self.members.lock();
        let (mut of_peer, others): (Vec<_>, Vec<_>) = members.drain(..).partition(|member| member.place.peer == peer);
        *members = others;
        for address in addresses {
            let known = of_peer.iter().position(|member| member.place.address == address);
            let new = || Place {
                peer,
                address,
                origin: configured.origin.clone(),
                name: asked_name(&self.config, &configured.origin).to_owned(),
                weight: configured.weight.get(),
                running: AtomicUsize::new(0),
            };
            let member = known.map(|at| of_peer.swap_remove(at)).unwrap_or_else(|| Member {
                place: Arc::new(new()),
                condition: Condition::default(),
                owed: 0.0,
                ejections: 0,
                checks: [0; 2],
            });
            members.push(member);
        }
        members.sort_by_key(|member| (member.place.peer, member.place.address));
    }

    /// A lookup ended. One that failed, or found nothing, changes nothing.
    fn found(&self, peer: usize, origin: &Origin, found: io::Result<Vec<SocketAddr>>) {
        let upstream = &self.config.name;
        match found.map(resolve::tidy) {
            Ok(addresses) if addresses.is_empty() => {
                tracing::warn!(%upstream, peer = %origin, "the name has no address; what it had before stays");
            }
            Ok(addresses) => self.settle(peer, addresses),
            Err(error) => {
                tracing::warn!(%upstream, peer = %origin, %error, "the name cannot be resolved; what it had before stays");
            }
        }
    }

    fn with_member<T>(&self, place: &Arc<Place>, change: impl FnOnce(&mut Member) -> T) -> Option<T> {
        let mut members = self.members.lock();
        members.iter_mut().find(|member| Arc::ptr_eq(&member.place, place)).map(change)
    }
}

/// The address of a peer that is written as one.
fn literal(origin: &Origin) -> Option<SocketAddr> {
    let host = origin.host();
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, origin.port()))
}

async fn keep_resolving(pool: std::sync::Weak<Pool>, peer: usize, origin: Origin, lookup: Arc<dyn Lookup>) {
    let mut first = true;
    loop {
        let Some(tended) = pool.upgrade() else { return };
        if resolve::is_here(origin.host()) && tended.is_untroubled(peer) {
            let pause = resolve::jittered(tended.lookup_every);
            drop(tended);
            tokio::time::sleep(pause).await;
            continue;
        }
        drop(tended);
        let found = lookup.addresses(origin.host(), origin.port()).await;
        let Some(pool) = pool.upgrade() else { return };
        pool.found(peer, &origin, found);
        if std::mem::take(&mut first) {
            pool.resolved.send_modify(|resolved| *resolved += 1);
        }
        let pause = resolve::jittered(pool.lookup_every);
        drop(pool);
        tokio::time::sleep(pause).await;
    }
}

/// A peer that has a request, until this is dropped.
#[derive(Debug)]
pub(in crate::front) struct Picked {
    pool: Arc<Pool>,
    place: Arc<Place>,
}

impl Picked {
    /// What Pingora connects to.
    pub(in crate::front) fn http_peer(&self) -> HttpPeer {
        self.pool.dial.peer(&self.place)
    }

    /// Where it is.
    pub(in crate::front) fn address(&self) -> SocketAddr {
        self.place.address
    }

    /// What the operator calls it.
    pub(in crate::front) fn origin(&self) -> &Origin {
        &self.place.origin
    }

    /// It answered: 502, 503 and 504 are no better than no answer.
    pub(in crate::front) fn answered(&self, status: StatusCode, now: Instant) {
        match status {
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => self.failed(now),
            _ => self.succeeded(),
        }
    }

    /// It answered as it should.
    pub(in crate::front) fn succeeded(&self) {
        self.pool.with_member(&self.place, |member| member.condition.succeeded());
    }

    /// No connection, no answer in time, or half of one.
    pub(in crate::front) fn failed(&self, now: Instant) {
        let ejection = self.pool.config.ejection;
        let mut members = self.pool.members.lock();
        let here = |member: &&mut Member| Arc::ptr_eq(&member.place, &self.place);
        // The last one that is well stays: better a bad peer than none.
        let others = members.iter().filter(|member| !Arc::ptr_eq(&member.place, &self.place));
        let may = others.into_iter().any(|member| member.condition.standing(now) == Standing::Well);
        let Some(member) = members.iter_mut().find(here) else { return };
        if let Some(time) = member.condition.failed(ejection, may, now) {
            member.ejections += 1;
            let (upstream, Place { address, origin, .. }) = (&self.pool.config.name, &*self.place);
            tracing::warn!(%upstream, peer = %origin, %address, ?time, "its requests fail: it gets no more for a while");
        }
    }
}

impl Drop for Picked {
    fn drop(&mut self) {
        self.place.running.fetch_sub(1, Ordering::Relaxed);
    }
}
