//! Listening sockets that whoever started us holds and passed on (sd_listen_fds(3)): connections wait in their backlog while one
//! process ends and the next one starts, so that a restart refuses nobody.

use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;

/// Sockets passed on and not taken yet.
#[derive(Debug, Default)]
pub(crate) struct Inherited(Vec<(SocketAddr, TcpListener)>);

impl Inherited {
    /// Those that `LISTEN_FDS` names. Call before there are threads, since it reads and clears the environment.
    pub(crate) fn from_environment() -> Result<Self, String> {
        let mut passed = ListenFd::from_env();
        let mut sockets = Vec::new();
        for number in 0..passed.len() {
            let said = |error: std::io::Error| {
                format!(
                    "descriptor {} of LISTEN_FDS is no listening TCP socket: {error}",
                    number + 3
                )
            };
            if let Some(socket) = passed.take_tcp_listener(number).map_err(said)? {
                let address = socket.local_addr().map_err(said)?;
                socket.set_nonblocking(true).map_err(said)?;
                sockets.push((address, socket));
            }
        }
        Ok(Self(sockets))
    }

    /// Takes the socket that listens where `wanted` says.
    pub(crate) fn take(&mut self, wanted: SocketAddr) -> Option<TcpListener> {
        let at = self
            .0
            .iter()
            .position(|(address, _)| serves(*address, wanted));
        at.map(|at| self.0.remove(at).1)
    }

    /// Where those listen that nobody took.
    pub(crate) fn left(&self) -> Vec<SocketAddr> {
        self.0.iter().map(|(address, _)| *address).collect()
    }
}

/// The same address; and a socket for all of IPv6 serves all of IPv4 too (systemd's `ListenStream=25`).
fn serves(address: SocketAddr, wanted: SocketAddr) -> bool {
    let all = address.is_ipv6() && address.ip().is_unspecified() && wanted.ip().is_unspecified();
    address.port() == wanted.port() && (address.ip() == wanted.ip() || all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_serves_its_address() {
        for (address, wanted, expected) in [
            ("192.0.2.1:25", "192.0.2.1:25", true),
            ("192.0.2.1:25", "192.0.2.1:26", false),
            ("192.0.2.1:25", "0.0.0.0:25", false),
            ("0.0.0.0:25", "192.0.2.1:25", false),
            ("[::]:25", "0.0.0.0:25", true),
            ("[::]:25", "[::]:25", true),
            ("0.0.0.0:25", "[::]:25", false),
            ("[::1]:25", "0.0.0.0:25", false),
        ] {
            let (address, wanted) = (address.parse().unwrap(), wanted.parse().unwrap());
            assert_eq!(serves(address, wanted), expected, "{address} for {wanted}");
        }
    }

    #[test]
    fn each_socket_is_taken_once() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let mut inherited = Inherited(vec![(address, socket)]);
        assert_eq!(inherited.left(), [address]);
        assert!(inherited.take(address).is_some());
        assert!(inherited.take(address).is_none());
        assert!(inherited.left().is_empty());
    }
}
