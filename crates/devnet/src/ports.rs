//! Which port belongs to which role, from one base.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Port base of interface.md.
pub const DEFAULT_PORT_BASE: u16 = 8_545;

/// The ports of a local network. Every listener is bound to the loopback address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports(pub u16);

impl Ports {
    /// JSON-RPC (HTTP and WebSocket) of validator `i`.
    #[must_use]
    pub fn rpc(self, i: u16) -> SocketAddr {
        local(self.0 + i)
    }

    /// Consensus p2p of validator `i`.
    #[must_use]
    pub fn p2p(self, i: u16) -> SocketAddr {
        local(self.0 + 20 + i)
    }

    /// The router.
    #[must_use]
    pub fn router(self) -> SocketAddr {
        local(self.0 + 55)
    }

    /// The model hub.
    #[must_use]
    pub fn hub(self) -> SocketAddr {
        local(self.0 + 155)
    }

    /// The inference node.
    #[must_use]
    pub fn inference(self) -> SocketAddr {
        local(self.0 + 65)
    }

    /// Metrics of validator `i`.
    #[must_use]
    pub fn metrics(self, i: u16) -> SocketAddr {
        local(self.0 + 555 + i)
    }

    /// Every address that a network of `validators` listens on.
    pub fn all(self, validators: u16) -> impl Iterator<Item = SocketAddr> {
        (0..validators)
            .flat_map(move |i| [self.rpc(i), self.p2p(i), self.metrics(i)])
            .chain([self.router(), self.inference(), self.hub()])
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_those_of_the_interface_and_never_collide() {
        let ports = Ports(DEFAULT_PORT_BASE);
        assert_eq!(ports.rpc(0).port(), 8_545);
        assert_eq!(ports.router().port(), 8_600);
        assert_eq!(ports.inference().port(), 8_610);
        assert_eq!(ports.hub().port(), 8_700);
        assert_eq!(ports.metrics(0).port(), 9_100);
        let mut all: Vec<_> = ports.all(16).collect();
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
