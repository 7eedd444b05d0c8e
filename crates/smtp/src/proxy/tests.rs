//! Headers of both versions, each also cut at every octet: what is not whole is waited for, and never read too far.

use super::*;

fn client(client: &str, local: &str) -> Result<Header, ProxyError> {
    let (client, local) = (client.parse().unwrap(), local.parse().unwrap());
    Ok(Header::Client { client, local })
}

/// Reads as the server does: asks what is missing, and gets exactly that.
fn read(bytes: &[u8]) -> (Result<Header, ProxyError>, usize) {
    let mut seen = 0;
    loop {
        match parse(&bytes[..seen]) {
            Ok(Some(header)) => return (Ok(header), seen),
            Err(error) => return (Err(error), seen),
            Ok(None) => {}
        }
        seen += missing(&bytes[..seen]);
        assert!(
            seen <= bytes.len(),
            "{}: {seen} octets wanted",
            bytes.escape_ascii()
        );
    }
}

/// What follows belongs to the client and must not be touched.
fn check(header: &[u8], expected: Result<Header, ProxyError>) {
    let mut bytes = header.to_vec();
    bytes.extend_from_slice(b"EHLO client.example\r\n");
    let (found, used) = read(&bytes);
    assert_eq!(found, expected, "{}", header.escape_ascii());
    if found.is_ok() {
        assert_eq!(used, header.len(), "{}", header.escape_ascii());
        for end in 0..header.len() {
            let cut = parse(&header[..end]);
            assert_eq!(cut, Ok(None), "{}", header[..end].escape_ascii());
        }
    }
}

#[test]
fn version_1() {
    check(
        b"PROXY TCP4 192.0.2.1 198.51.100.2 4711 25\r\n",
        client("192.0.2.1:4711", "198.51.100.2:25"),
    );
    check(
        b"PROXY TCP6 2001:db8::1 2001:db8::2 4711 25\r\n",
        client("[2001:db8::1]:4711", "[2001:db8::2]:25"),
    );
    check(
        b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:192.0.2.2 1 25\r\n",
        client("192.0.2.1:1", "192.0.2.2:25"),
    );
    check(b"PROXY UNKNOWN\r\n", Ok(Header::Check));
    let longest = b"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
    check(longest, Ok(Header::Check));
}

#[test]
fn broken_version_1() {
    for text in [
        "PROXY TCP4 192.0.2.1 198.51.100.2 4711\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 4711 25 9\r\n",
        "PROXY TCP4  192.0.2.1 198.51.100.2 4711 25\r\n",
        "PROXY TCP4 2001:db8::1 2001:db8::2 4711 25\r\n",
        "PROXY TCP6 192.0.2.1 198.51.100.2 4711 25\r\n",
        "PROXY TCP4 192.0.2.256 198.51.100.2 4711 25\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 70000 25\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 +4711 25\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 04711 25\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 4711 025\r\n",
        "PROXY TCP4 192.0.2.01 198.51.100.2 4711 25\r\n",
        "PROXY UDP4 192.0.2.1 198.51.100.2 4711 25\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 4711 25\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 4711 25\r \n",
        "PROXY \u{ff} NOTHING TO SEE\r\n",
    ] {
        let (found, _) = read(format!("{text}EHLO client.example\r\n").as_bytes());
        assert!(
            matches!(found, Err(ProxyError::Form(_))),
            "{text:?}: {found:?}"
        );
    }
    let endless = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200]].concat();
    let (found, used) = read(&endless);
    assert!(matches!(found, Err(ProxyError::Form(_))), "{found:?}");
    assert!(used <= V1_BYTES_MAX, "{used} octets read");
}

#[test]
fn something_else_is_no_header() {
    for text in [
        "EHLO client.example\r\n",
        "proxy TCP4 1.2.3.4",
        "QUIT\r\nQUIT\r\nQUIT",
        "\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n",
    ] {
        assert_eq!(read(text.as_bytes()).0, Err(ProxyError::Absent), "{text:?}");
    }
}

fn version_2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    let head = [0x20 | command, family, length[0], length[1]];
    [V2_SIGNATURE.as_slice(), &head, body].concat()
}

#[test]
fn second_version() {
    let v4 = [192, 0, 2, 1, 198, 51, 100, 2, 0x12, 0x67, 0, 25];
    let expected = || client("192.0.2.1:4711", "198.51.100.2:25");
    check(&version_2(1, 0x11, &v4), expected());
    let with_additions = [v4.as_slice(), &[4, 0, 2, 9, 9, 0x20, 0, 0]].concat();
    check(&version_2(1, 0x11, &with_additions), expected());
    let mut v6 = [0; 36];
    v6[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
    (v6[15], v6[31], v6[33], v6[35]) = (1, 2, 7, 25);
    check(
        &version_2(1, 0x21, &v6),
        client("[2001:db8::1]:7", "[::2]:25"),
    );
    check(&version_2(0, 0x00, &[]), Ok(Header::Check));
    check(&version_2(0, 0x11, &v4), Ok(Header::Check));
    check(&version_2(1, 0x00, &[]), Ok(Header::Check));
    check(&version_2(1, 0x31, &[0; 216]), Ok(Header::Check));
}

#[test]
fn broken_second_version() {
    let v4 = [192, 0, 2, 1, 198, 51, 100, 2, 0x12, 0x67, 0, 25];
    let form = |bytes: &[u8]| {
        let found = parse(bytes);
        assert!(matches!(found, Err(ProxyError::Form(_))), "{found:?}");
    };
    form(&version_2(1, 0x11, &v4[..11]));
    form(&version_2(1, 0x21, &v4));
    form(&version_2(2, 0x11, &v4));
    for additions in [&[4][..], &[4, 0], &[4, 0, 1], &[4, 0xff, 0xff, 1]] {
        form(&version_2(1, 0x11, &[v4.as_slice(), additions].concat()));
    }
    form(&version_2(1, 0x11, &vec![0; V2_BODY_BYTES_MAX + 1]));
    for family in [0x13, 0x43, 0x40, 0xf1] {
        form(&version_2(1, family, &v4));
    }
    let mut third = version_2(1, 0x11, &v4);
    third[12] = 0x31;
    form(&third);
}

/// What comes of a header.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Comes {
    Client,
    Check,
    Refused,
}
use Comes::{Check, Client, Refused};

/// What another receiver, aiosmtpd, is tested with: a line, what comes of it there, and here. Where they differ the document decides.
const LINES: [(&str, Comes, Comes); 24] = [
    (
        "PROXY TCP4 203.0.113.222 198.51.100.111 33504 25\r\n",
        Client,
        Client,
    ),
    (
        "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
        Client,
        Client,
    ),
    ("PROXY TCP4 1.2.3.4 5.6.7.8 0 65535\r\n", Client, Client),
    (
        "PROXY TCP6 2001:db8:: 2001:db8:ffff:ffff:ffff:ffff:ffff:ffff 42300 443\r\n",
        Client,
        Client,
    ),
    (
        "PROXY TCP6 2001:db8:dead::0001 2001:db8:cafe::0002 8000 65535\r\n",
        Client,
        Client,
    ),
    // No client, so that it is for looking whether we live.
    ("PROXY UNKNOWN\r\n", Client, Check),
    ("PROXY UNKNOWN of whatever kind\r\n", Client, Check),
    ("PROXY1 UNKNOWN\r\n", Refused, Refused),
    ("PROXI TCP4 1.2.3.4 5.6.7.8 9 10\r\n", Refused, Refused),
    ("EHLO client.example\r\n", Refused, Refused),
    ("PROXY UNKNOWN\n", Refused, Refused),
    (
        "PROXY TCP 203.0.113.1 203.0.113.2 80 90\r\n",
        Refused,
        Refused,
    ),
    (
        "PROXY TCP5 203.0.113.1 203.0.113.2 80 90\r\n",
        Refused,
        Refused,
    ),
    (
        "PROXY UDP4 203.0.113.1 203.0.113.2 80 90\r\n",
        Refused,
        Refused,
    ),
    (
        "PROXY TCP6 203.0.113.1 203.0.113.2 80 90\r\n",
        Refused,
        Refused,
    ),
    (
        "PROXY TCP6 203.0.113.1 2001:db8::2 80 90\r\n",
        Refused,
        Refused,
    ),
    (
        "PROXY TCP4 2001:db8::1 2001:db8::2 80 90\r\n",
        Refused,
        Refused,
    ),
    (
        "PROXY TCP6 2001:db8::000g 2001:db8::2 80 90\r\n",
        Refused,
        Refused,
    ),
    (
        "PROXY TCP6  2001:db8::1 2001:db8::2 80 90\r\n",
        Refused,
        Refused,
    ),
    (
        "PROXY TCP6 2001:db8::1 2001:db8::2 80  90\r\n",
        Refused,
        Refused,
    ),
    (
        "PROXY TCP6 2001:db8::1 2001:db8::2 0080 90\r\n",
        Refused,
        Refused,
    ),
    (
        "PROXY TCP6 2001:db8::1 2001:db8::2 80 65536\r\n",
        Refused,
        Refused,
    ),
    (
        "PROXY TCP6 2001:db8::1 2001:db8::2 80 90 \r\n",
        Refused,
        Refused,
    ),
    (
        "PROXY TCP6 2001:db8::1 2001:db8::2 80 90 text\r\n",
        Refused,
        Refused,
    ),
];

fn comes(found: Result<Header, ProxyError>) -> Comes {
    match found {
        Ok(Header::Client { .. }) => Client,
        Ok(Header::Check) => Check,
        Err(_) => Refused,
    }
}

#[test]
fn cases_of_another_receiver() {
    for (line, there, here) in LINES {
        let (found, _) = read(format!("{line}EHLO client.example\r\n").as_bytes());
        assert_eq!(comes(found), here, "{line:?}: there {there:?}");
    }
    let v4 = [192, 0, 2, 1, 198, 51, 100, 2, 0x12, 0x67, 0, 25];
    let no_addition = [v4.as_slice(), b"no addition"].concat();
    let (v6, unix, text) = ([0x20; 36], [b'/'; 216], b"whatever");
    // Command, family and body of version 2, and what comes of them there and here.
    let bodies: [(u8, u8, &[u8], Comes, Comes); 15] = [
        (1, 0x11, &v4, Client, Client),
        (1, 0x21, &v6, Client, Client),
        (1, 0x21, &v4, Refused, Refused),
        (2, 0x00, &[], Refused, Refused),
        (1, 0x40, &[], Refused, Refused),
        (1, 0x03, &[], Refused, Refused),
        // LOCAL is a check, whatever else it says; there the rest is read.
        (0, 0x00, &[], Client, Check),
        (0, 0x00, text, Client, Check),
        (0, 0x11, &no_addition, Client, Check),
        (0, 0x31, &unix, Client, Check),
        (0, 0x40, &[], Refused, Check),
        (0, 0x21, &v4, Refused, Check),
        // Nobody on the internet.
        (1, 0x10, text, Client, Check),
        (1, 0x12, &v4, Client, Check),
        // What stands behind the addresses has to add up.
        (1, 0x11, &no_addition, Client, Refused),
    ];
    for (command, family, body, there, here) in bodies {
        let (found, _) = read(&version_2(command, family, body));
        assert_eq!(
            comes(found),
            here,
            "{command} {family:#x} {body:?}: there {there:?}"
        );
    }
}
