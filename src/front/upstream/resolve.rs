//! Which addresses does a name have now?

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::net::TcpStream;

/// How often names are looked up: the system's resolver does not say how long its answer is good. A quarter more or less,
/// so that front doors do not ask all at once.
pub(super) const EVERY: Duration = Duration::from_secs(10);
/// Addresses of one name, at most.
const MOST: usize = 32;
/// For a connection on this machine.
const LOCAL: Duration = Duration::from_millis(500);

/// Who knows the addresses of names.
pub(super) trait Lookup: fmt::Debug + Send + Sync {
    /// All that it has, in any order. Must not block.
    fn addresses<'l>(&'l self, host: &'l str, port: u16) -> BoxFuture<'l, io::Result<Vec<SocketAddr>>>;
}

/// The system's resolver.
#[derive(Debug)]
pub(super) struct System;

impl Lookup for System {
    fn addresses<'l>(&'l self, host: &'l str, port: u16) -> BoxFuture<'l, io::Result<Vec<SocketAddr>>> {
        if is_here(host) {
            return here(port).map(Ok).boxed();
        }
        async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) }.boxed()
    }
}

/// Whether a name is this machine's whatever anybody says (RFC 6761, section 6.3): `localhost`, and what ends in it. It is
/// looked up by connecting, which peers see, so that is done only where there is a reason.
pub(super) fn is_here(host: &str) -> bool {
    host == "localhost" || host.ends_with(".localhost")
}

/// This machine, on whichever of its two addresses somebody
/// listens, and one peer though it listens on both. While nobody does it may become either.
async fn here(port: u16) -> Vec<SocketAddr> {
    let both = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let both = both.map(|address| SocketAddr::new(address, port));
    for address in both {
        if matches!(tokio::time::timeout(LOCAL, TcpStream::connect(address)).await, Ok(Ok(_))) {
            return vec![address];
        }
    }
    both.to_vec()
}

/// In one order, each once, no more than we keep.
pub(super) fn tidy(mut addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    addresses.sort_unstable();
    addresses.dedup();
    addresses.truncate(MOST);
    addresses
}

/// A quarter more or less.
pub(super) fn jittered(time: Duration) -> Duration {
    use std::hash::{BuildHasher, Hasher};
    let random = std::hash::RandomState::new().build_hasher().finish();
    time.mul_f64(0.75 + 0.5 * (random as f64 / u64::MAX as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn localhost_is_where_somebody_listens_on_this_machine() {
        for family in ["127.0.0.1:0", "[::1]:0"] {
            let listener = std::net::TcpListener::bind(family).unwrap();
            let address = listener.local_addr().unwrap();
            assert_eq!(System.addresses("localhost", address.port()).await.unwrap(), [address]);
            drop(listener);
            assert_eq!(System.addresses("localhost", address.port()).await.unwrap().len(), 2);
        }
    }

    #[test]
    fn addresses_are_in_one_order_each_once_and_not_too_many() {
        let many = (0..100).rev().map(|n| SocketAddr::from(([10, 0, 0, n / 2], 5000))).collect();
        let tidied = tidy(many);
        assert_eq!(
            (tidied.len(), tidied[0], tidied[31]),
            (32, "10.0.0.0:5000".parse().unwrap(), "10.0.0.31:5000".parse().unwrap())
        );
        let (least, most) = (EVERY.mul_f64(0.75), EVERY.mul_f64(1.25));
        assert!((0..100).map(|_| jittered(EVERY)).all(|pause| pause >= least && pause <= most));
    }
}
