//! Who is at the other end of a connection.

use std::fmt;
use std::net::{AddrParseError, IpAddr, Ipv6Addr};
use std::str::FromStr;

/// A client: an address, or a program on this machine that came through a Unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// The canonical address ([`IpAddr::to_canonical`]): never an IPv4 address in the form of IPv6.
    Address(IpAddr),
    /// Through a Unix socket; shown as `local`.
    Local,
}

impl Peer {
    /// Its address, if it has one.
    #[must_use]
    pub const fn address(self) -> Option<IpAddr> {
        match self {
            Self::Address(address) => Some(address),
            Self::Local => None,
        }
    }

    /// Whose address it is, for everything that is counted for each client: an IPv4 address, or an IPv6 /64, of which
    /// one client has all addresses (RFC 6177 §2).
    #[must_use]
    pub fn source(self) -> Self {
        match self {
            Self::Address(IpAddr::V6(ip)) if !ip.is_loopback() => {
                Self::Address(IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64))))
            }
            other => other,
        }
    }

    /// True for programs on this machine: many of them are behind one address.
    #[must_use]
    pub fn is_this_machine(self) -> bool {
        self.address().is_none_or(|address| address.is_loopback())
    }
}

impl From<IpAddr> for Peer {
    fn from(address: IpAddr) -> Self {
        Self::Address(address.to_canonical())
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Local => f.write_str("local"),
        }
    }
}

impl FromStr for Peer {
    type Err = AddrParseError;

    /// What [`fmt::Display`] writes.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "local" => Ok(Self::Local),
            address => address.parse().map(Self::Address),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_and_read_again() {
        for text in ["192.0.2.1", "2001:db8::1", "local"] {
            let peer: Peer = text.parse().unwrap();
            assert_eq!(peer.to_string(), text);
            assert_eq!(peer.address().is_none(), text == "local");
        }
        assert!("".parse::<Peer>().is_err() && "Local".parse::<Peer>().is_err());
        let mapped: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
        assert_eq!(Peer::from(mapped).to_string(), "192.0.2.1");
    }

    #[test]
    fn one_client_has_a_whole_ipv6_network() {
        let source = |text: &str| text.parse::<Peer>().unwrap().source().to_string();
        for (peer, expected) in [
            ("192.0.2.1", "192.0.2.1"),
            ("2001:db8:0:1:2:3:4:5", "2001:db8:0:1::"),
            ("::1", "::1"),
            ("local", "local"),
        ] {
            assert_eq!(source(peer), expected);
            assert_eq!(source(expected), expected);
        }
    }

    #[test]
    fn this_machine_is_known() {
        for (peer, here) in [
            ("127.9.9.9", true),
            ("::1", true),
            ("local", true),
            ("192.0.2.1", false),
            ("fe80::1", false),
        ] {
            assert_eq!(peer.parse::<Peer>().unwrap().is_this_machine(), here, "{peer}");
        }
    }
}
