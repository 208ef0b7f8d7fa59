//! Pools as requests see them.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use super::*;
use crate::exchange::{Origin, Passage};

mod peers;
mod tending;
mod tls;

const SECOND: Duration = Duration::from_secs(1);

fn some(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap()
}

/// An upstream of these peers.
fn upstream(peers: &[&str]) -> Upstream {
    let peer = |url: &&str| Peer { origin: url.parse::<Origin>().unwrap(), weight: some(1) };
    Upstream {
        name: "registry".into(),
        peers: peers.iter().map(peer).collect(),
        balance: Balance::RoundRobin,
        tls: UpstreamTls::default(),
        http2: false,
        health: None,
        ejection: Some(Ejection { failures: some(2), time: 10 * SECOND }),
        slow_start: Duration::ZERO,
        attempts: some(3),
        timeouts: UpstreamTimeouts { connect: SECOND, read: SECOND, write: SECOND, idle: SECOND },
        host: HostSent::Client,
        known_as: Vec::new(),
        location: LocationForm::Absolute,
        realms: Vec::new(),
        strict: false,
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
    }
}

const THREE: [&str; 3] = ["http://10.0.0.1:5000", "http://10.0.0.2:5000", "http://10.0.0.3:5000"];

fn upstreams(upstream: &Upstream, previous: Option<&Upstreams>) -> Upstreams {
    let all = vec![upstream.clone()];
    let credentials = Credentials::load(&all).unwrap();
    Upstreams::new(all, &credentials, &"https://hub.test:5050".parse().unwrap(), previous).unwrap()
}

fn pool(upstream: &Upstream) -> Arc<Pool> {
    upstreams(upstream, None).get("registry").unwrap().clone()
}

fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number], 5000))
}

/// The last number of the address of whoever gets a request with this key.
fn owner(pool: &Arc<Pool>, key: Option<&str>, now: Instant) -> u8 {
    match pool.choose(key, &[], now).unwrap().address() {
        SocketAddr::V4(address) => address.ip().octets()[3],
        SocketAddr::V6(_) => unreachable!("the tests have none"),
    }
}

#[test]
fn peers_take_turns_and_none_is_tried_twice() {
    let (pool, now) = (pool(&upstream(&THREE)), Instant::now());
    let turns: Vec<_> = (0..6).map(|_| owner(&pool, None, now)).collect();
    assert_eq!(turns, [1, 2, 3, 1, 2, 3]);
    let tried = [address(1), address(3)];
    assert!((0..3).all(|_| pool.choose(None, &tried, now).unwrap().address() == address(2)));
    assert!(pool.choose(None, &THREE.map(|_| ()).map(|()| address(1)), now).is_some());
    assert!(pool.choose(None, &[address(1), address(2), address(3)], now).is_none());
}

#[test]
fn a_request_counts_until_it_is_dropped() {
    let upstream = Upstream { balance: Balance::LeastLoaded, ..upstream(&THREE[..2]) };
    let (pool, now) = (pool(&upstream), Instant::now());
    let (first, second) = (pool.choose(None, &[], now).unwrap(), pool.choose(None, &[], now).unwrap());
    assert_ne!(first.address(), second.address());
    let freed = first.address();
    drop(first);
    assert_eq!(pool.choose(None, &[], now).unwrap().address(), freed);
    drop(second);
}

#[test]
fn who_fails_gets_nothing_for_a_while_and_then_again() {
    let (pool, now) = (pool(&upstream(&THREE[..2])), Instant::now());
    let first = pool.choose(None, &[], now).unwrap();
    first.failed(now);
    first.answered(StatusCode::BAD_GATEWAY, now);
    assert!((0..4).all(|_| owner(&pool, None, now) == 2));
    assert_eq!(pool.choose(None, &[address(2)], now).unwrap().address(), address(1), "better a bad peer than none");
    let later = now + 11 * SECOND;
    assert!((0..2).any(|_| owner(&pool, None, later) == 1));
    first.failed(later);
    assert!((0..4).all(|_| owner(&pool, None, later + 19 * SECOND) == 2), "on probation it goes at once, for longer");
}

#[test]
fn an_answer_ends_a_run_of_failures_and_the_last_that_is_well_stays() {
    let (pool, now) = (pool(&upstream(&THREE[..2])), Instant::now());
    let (first, second) = (pool.choose(None, &[], now).unwrap(), pool.choose(None, &[], now).unwrap());
    for _ in 0..3 {
        first.failed(now);
        first.answered(StatusCode::NOT_FOUND, now);
    }
    assert!((0..2).any(|_| owner(&pool, None, now) == 1));
    (0..2).for_each(|_| first.failed(now));
    (0..9).for_each(|_| second.failed(now));
    assert!((0..4).all(|_| owner(&pool, None, now) == 2));
}

#[test]
fn who_comes_back_gets_few_requests_at_first() {
    let upstream = Upstream { slow_start: 10 * SECOND, ..upstream(&THREE[..2]) };
    let (pool, now) = (pool(&upstream), Instant::now());
    let first = pool.choose(None, &[], now).unwrap();
    (0..2).for_each(|_| first.failed(now));
    let part = |now| (0..30).filter(|_| owner(&pool, None, now) == 1).count();
    assert_eq!(part(now + 9 * SECOND), 0);
    assert!((1..6).contains(&part(now + 10 * SECOND)), "a tenth of its weight");
    assert!((8..13).contains(&part(now + 15 * SECOND)), "half");
    assert!((14..17).contains(&part(now + 20 * SECOND)), "all of it");
}

#[test]
fn a_repository_has_its_peer_and_another_when_that_is_not_well() {
    let upstream = Upstream { balance: Balance::Repository, ..upstream(&THREE) };
    let (pool, now) = (pool(&upstream), Instant::now());
    let passage = Passage { repository: Some("a/b".to_owned()), ..Passage::default() };
    let key = pool.key(&passage);
    let home = owner(&pool, key, now);
    assert!((0..9).all(|_| owner(&pool, key, now) == home));
    let picked = pool.choose(key, &[], now).unwrap();
    (0..2).for_each(|_| picked.failed(now));
    let refuge = owner(&pool, key, now);
    assert!(refuge != home && (0..9).all(|_| owner(&pool, key, now) == refuge));
    assert_eq!(owner(&pool, key, now + 11 * SECOND), home);
}

#[test]
fn an_upload_stays_where_it_began_and_every_door_agrees_on_one_that_is_not_remembered() {
    let upstream = Upstream { balance: Balance::Upload, ..upstream(&THREE) };
    let (here, there, now) = (pool(&upstream), pool(&upstream), Instant::now());
    let begun: Vec<u8> = (0..30)
        .map(|n| {
            assert_eq!(here.key(&Passage::default()), None, "beginnings take turns");
            let picked = here.choose(None, &[], now).unwrap();
            here.learn(&format!("upload-{n}"), &picked);
            match picked.address() {
                SocketAddr::V4(address) => address.ip().octets()[3],
                SocketAddr::V6(_) => unreachable!("the tests have none"),
            }
        })
        .collect();
    assert_eq!(begun[..3], [1, 2, 3]);
    for (n, peer) in begun.iter().enumerate() {
        assert_eq!(owner(&here, Some(&format!("upload-{n}")), now), *peer);
        let forgotten = format!("other-{n}");
        assert_eq!(owner(&here, Some(&forgotten), now), owner(&there, Some(&forgotten), now));
    }
    let picked = here.choose(Some("upload-0"), &[], now).unwrap();
    (0..2).for_each(|_| picked.failed(now));
    assert_ne!(owner(&here, Some("upload-0"), now), begun[0], "another may find it on the storage they share");
}

#[test]
fn what_is_known_of_peers_outlives_a_reload_that_says_the_same_and_no_other() {
    let before = upstreams(&upstream(&THREE), None);
    let after = |upstream: &Upstream| Arc::clone(upstreams(upstream, Some(&before)).get("registry").unwrap());
    let pool = before.get("registry").unwrap();
    assert!(Arc::ptr_eq(pool, &after(&upstream(&THREE))));
    let slower = Upstream { slow_start: SECOND, ..upstream(&THREE) };
    assert!(!Arc::ptr_eq(pool, &after(&slower)));
    let external = "https://hub.test".parse().unwrap();
    let unread = Upstreams::new(vec![upstream(&THREE)], &Credentials::default(), &external, None);
    assert!(unread.unwrap_err().to_string().contains("not read"));
}
