//! What a node is told of the client: a header of the PROXY protocol, version 2 (HAProxy's proxy-protocol.txt, section 2.2). Pure.

use std::net::{IpAddr, SocketAddr};

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, and on behalf of a client.
const PROXY: u8 = 0x21;
/// Version 2, and of our own accord: a probe.
const LOCAL: u8 = 0x20;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;

/// For a connection of `client` to `local`.
pub fn client(client: SocketAddr, local: SocketAddr) -> Vec<u8> {
    let (from, to) = (client.ip().to_canonical(), local.ip().to_canonical());
    let (family, from, to) = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            (TCP_OVER_IPV4, from.octets().to_vec(), to.octets().to_vec())
        }
        (from, to) => (TCP_OVER_IPV6, sixteen(from), sixteen(to)),
    };
    let ports = [client.port().to_be_bytes(), local.port().to_be_bytes()].concat();
    header(PROXY, family, &[from, to, ports].concat())
}

/// For a probe.
pub fn probe() -> Vec<u8> {
    header(LOCAL, 0, &[])
}

fn sixteen(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn header(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
    let length = u16::try_from(addresses.len()).unwrap_or(0).to_be_bytes();
    [SIGNATURE, &[command, family][..], &length, addresses].concat()
}

#[cfg(test)]
mod tests {
    use smtp::proxy::{Header, parse};

    use super::*;

    /// The house's own parser reads it, and nothing is left.
    #[test]
    fn headers_are_read_back() {
        for (from, to) in [
            ("192.0.2.1:4711", "192.0.2.2:10024"),
            ("[2001:db8::1]:4711", "[2001:db8::2]:10024"),
            ("[::ffff:192.0.2.1]:4711", "192.0.2.2:10024"),
        ] {
            let [from, to]: [SocketAddr; 2] = [from, to].map(|text| text.parse().unwrap());
            let header = client(from, to);
            let Ok(Some(Header::Client { client, local })) = parse(&header) else {
                panic!("{from}: {:?}", parse(&header));
            };
            assert_eq!(client.ip(), from.ip().to_canonical());
            assert_eq!((client.port(), local), (from.port(), to));
            assert_eq!(
                parse(&header[..header.len() - 1]),
                Ok(None),
                "not a byte too many"
            );
        }
        assert_eq!(parse(&probe()), Ok(Some(Header::Check)));
    }
}
