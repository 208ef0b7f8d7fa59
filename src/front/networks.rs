//! Which addresses are meant?
//!
//! A list of networks in CIDR notation. An IPv4 address is the same whether it came over an IPv4 socket or, mapped, over
//! one that takes both.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};

/// One network: `10.0.0.0/8`, `2001:db8::/32`, or a single address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(IpNet);

/// The text is not a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// Neither an address nor a CIDR.
    #[error("must be a network such as 10.0.0.0/8 or 2001:db8::/32, or an address")]
    Malformed,
    /// Bits are set behind the prefix: what was meant cannot be known.
    #[error("names an address within the network {0}; write that, or the address alone")]
    HostBits(Network),
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self(IpNet::from(address.to_canonical())));
        }
        let network = unmapped(text.parse().map_err(|_| NetworkError::Malformed)?);
        if network.trunc() == network { Ok(Self(network)) } else { Err(NetworkError::HostBits(Self(network.trunc()))) }
    }
}

/// `::ffff:10.0.0.0/104` is `10.0.0.0/8`.
fn unmapped(network: IpNet) -> IpNet {
    let length = network.prefix_len().checked_sub(96);
    match (network.addr().to_canonical(), length) {
        (IpAddr::V4(address), Some(length)) if network.addr().is_ipv6() => {
            Ipv4Net::new(address, length).map_or(network, IpNet::V4)
        }
        _ => network,
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() { self.0.addr().fmt(f) } else { self.0.fmt(f) }
    }
}

/// Any number of networks; by default none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks(Vec<Network>);

impl Networks {
    /// Whether no address is meant.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this address is meant.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.0.contains(&address))
    }

    /// Each of them, in the order in which they were written.
    pub fn iter(&self) -> impl Iterator<Item = &Network> {
        self.0.iter()
    }
}

impl FromIterator<Network> for Networks {
    fn from_iter<I: IntoIterator<Item = Network>>(networks: I) -> Self {
        Self(networks.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(list: &[&str]) -> Networks {
        list.iter().map(|text| text.parse::<Network>().unwrap()).collect()
    }

    #[test]
    fn an_address_is_in_its_network_however_it_is_written() {
        let networks = networks(&["10.0.0.0/8", "2001:db8::/32", "192.0.2.7", "::ffff:172.16.0.0/108"]);
        for inside in ["10.255.0.1", "::ffff:10.1.2.3", "2001:db8:1::1", "192.0.2.7", "::ffff:192.0.2.7", "172.31.0.1"]
        {
            assert!(networks.contains(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["11.0.0.1", "192.0.2.8", "2001:db9::1", "::1", "172.32.0.1", "::a00:1"] {
            assert!(!networks.contains(outside.parse().unwrap()), "{outside}");
        }
        assert!(!Networks::default().contains("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn what_is_no_network_is_refused_and_one_with_host_bits_names_the_network() {
        for bad in ["", "10.0.0.0/33", "10.0.0/8", "example.com", "10.0.0.0/", "10.0.0.0/8 ", "::/129"] {
            assert_eq!(bad.parse::<Network>(), Err(NetworkError::Malformed), "{bad}");
        }
        let message = "10.0.0.1/8".parse::<Network>().unwrap_err().to_string();
        assert!(message.contains("10.0.0.0/8"), "{message}");
    }

    proptest::proptest! {
        #[test]
        fn a_network_that_was_written_is_read_again_and_holds_its_addresses(address: IpAddr, length in 0..=32u8) {
            let network = IpNet::new(address, length).unwrap().trunc();
            let read: Network = network.to_string().parse().unwrap();
            proptest::prop_assert_eq!(read.to_string().parse::<Network>(), Ok(read));
            proptest::prop_assert!(Networks::from_iter([read]).contains(address) || address.to_canonical() != address);
        }
    }
}
