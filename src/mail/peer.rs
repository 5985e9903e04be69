//! Who is at the other end of a connection.

use std::fmt;
use std::net::{AddrParseError, IpAddr};
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
}
