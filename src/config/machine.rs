//! Where are we?
//!
//! What defaults depend on, asked once at the edge and passed, so that the rest is a function of its arguments.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::path::{Path, PathBuf};

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;
use nix::unistd;

use super::scalar::is_host;

/// Where the configuration is when nobody says where.
const SYSTEM_FILE: &str = "/etc/pierhead/pierhead.yml";
/// Where GitLab's packages look for the certificates of its hosts.
const GITLAB_CERTIFICATES: &str = "/etc/gitlab/ssl";
/// The folder from which the NGINX of GitLab's packages answers the challenges of HTTP-01 on port 80.
const GITLAB_WEBROOT: &str = "/var/opt/gitlab/nginx/www";
/// More addresses than this are those of a router or a host of containers; clients use a name there.
const MOST_ADDRESSES: usize = 16;

/// What defaults depend on.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The machine's name, if it has one that can be part of a URL.
    pub host_name: Option<String>,
    /// The addresses under which other machines reach this one.
    pub addresses: Vec<IpAddr>,
    /// Whether IPv6 sockets can be opened.
    pub ipv6: bool,
    /// The working directory.
    pub folder: PathBuf,
    /// The file that is read when none is named: `/etc/pierhead/pierhead.yml`.
    pub system_file: PathBuf,
    /// Where GitLab looks for certificates: `/etc/gitlab/ssl`.
    pub gitlab_certificates: PathBuf,
    /// Where GitLab's NGINX finds answers to challenges: `/var/opt/gitlab/nginx/www`.
    pub gitlab_webroot: PathBuf,
    /// Who we are, for messages: `pierhead (uid 998)`.
    pub user: String,
    /// Whether this process will serve: only then must keys and certificates be readable for it.
    pub serves: bool,
}

impl Machine {
    /// This machine.
    ///
    /// # Errors
    /// When the working directory does not exist any more.
    pub fn here(serves: bool) -> io::Result<Self> {
        let uid = unistd::geteuid();
        let name = unistd::User::from_uid(uid).ok().flatten().map(|user| user.name);
        Ok(Self {
            host_name: host_name(),
            addresses: addresses(),
            ipv6: UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok(),
            folder: std::env::current_dir()?,
            system_file: PathBuf::from(SYSTEM_FILE),
            gitlab_certificates: PathBuf::from(GITLAB_CERTIFICATES),
            gitlab_webroot: PathBuf::from(GITLAB_WEBROOT),
            user: format!("{} (uid {uid})", name.as_deref().unwrap_or("a user without a name")),
            serves,
        })
    }

    /// Every address at once; with IPv6 this takes IPv4 as well.
    pub(super) fn any(&self) -> IpAddr {
        if self.ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }
    }

    /// The names by which a client can call this machine, those of the loopback first.
    pub(super) fn names(&self) -> Vec<String> {
        let loopback = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let addresses = self.addresses.iter().map(ToString::to_string);
        loopback.into_iter().chain(self.host_name.clone()).chain(addresses).collect()
    }

    /// A path as the operator gave it on the command line.
    pub(super) fn absolute(&self, path: &Path) -> PathBuf {
        self.folder.join(path).components().collect()
    }
}

fn host_name() -> Option<String> {
    let name = unistd::gethostname().ok()?.into_string().ok()?.to_ascii_lowercase();
    is_host(&name).then_some(name)
}

/// Addresses of interfaces, without those that mean something only on the machine itself or on one cable.
fn addresses() -> Vec<IpAddr> {
    let of_interface = |address: SockaddrStorage| {
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    };
    let useful = |address: &IpAddr| match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local() && !v4.is_unspecified(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local() && !v6.is_unspecified(),
    };
    let Ok(interfaces) = getifaddrs() else { return Vec::new() };
    let mut found: Vec<IpAddr> =
        interfaces.filter_map(|interface| interface.address).filter_map(of_interface).filter(useful).collect();
    found.sort();
    found.dedup();
    found.truncate(MOST_ADDRESSES);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_can_be_asked() {
        let machine = Machine::here(true).unwrap();
        assert!(machine.folder.is_absolute());
        assert!(machine.user.contains("(uid "));
        assert!(machine.addresses.iter().all(|address| !address.is_loopback()));
        assert!(machine.names().len() >= 3);
    }
}
