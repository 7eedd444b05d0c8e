//! Tables for domains, mailboxes and reverse-paths.

use super::*;
use crate::mutation;

const LABEL_63: &str = "abcdefghijklmnopqrstuvwxyz-0123456789-abcdefghijklmnopqrstuvwxyz";

#[test]
fn domains() {
    fn check(text: &str, expected: Result<&str, AddressError>) {
        let parsed = Domain::parse(text);
        assert_eq!(
            parsed.as_ref().map(Domain::as_str).map_err(Clone::clone),
            expected,
            "{text:?}"
        );
        if let Ok(domain) = parsed {
            assert_eq!(
                Domain::parse(domain.as_str()).as_ref(),
                Ok(&domain),
                "{text:?} once more"
            );
        }
    }
    use AddressError::*;
    let label = &LABEL_63[..63];
    // 3 x 63 and 61 with three dots are 253.
    let longest = format!("{label}.{label}.{label}.{}", &label[..61]);
    check(&longest, Ok(&longest));
    check(&format!("{longest}x"), Err(DomainTooLong));
    check(&format!("{longest}."), Ok(&longest));
    check(&format!("{LABEL_63}.example"), Err(BadDomain));
    check(&"ü".repeat(600), Err(DomainTooLong));
    check("example.org", Ok("example.org"));
    check("EXAMPLE.Org.", Ok("example.org"));
    check("localhost", Ok("localhost"));
    check("_dmarc.my_host.example", Ok("_dmarc.my_host.example"));
    check("r3---sn-abc.example", Ok("r3---sn-abc.example"));
    check("3com.com", Ok("3com.com"));
    check("1.example", Ok("1.example"));
    check("bücher.example", Ok("xn--bcher-kva.example"));
    check("BÜCHER.example", Ok("xn--bcher-kva.example"));
    check("bu\u{308}cher.example", Ok("xn--bcher-kva.example"));
    check("XN--Bcher-KVA.example", Ok("xn--bcher-kva.example"));
    check("παράδειγμα.ελ", Ok("xn--hxajbheg2az3al.xn--qxam"));
    check("例え。テスト", Ok("xn--r8jz45g.xn--zckzah"));
    check("xn--a-ä.example", Err(BadDomain));
    check("xn--zzzzzzz99999.example", Err(BadDomain));
    check("", Err(BadDomain));
    check(".", Err(BadDomain));
    check("a..b", Err(BadDomain));
    check(".a", Err(BadDomain));
    check("a.b..", Err(BadDomain));
    check("-a.example", Err(BadDomain));
    check("a-.example", Err(BadDomain));
    check("192.0.2.1", Err(BadDomain));
    check("１９２.0.2.1", Err(BadDomain));
    check("a b", Err(Unexpected(' ')));
    check("a@b", Err(Unexpected('@')));
    check("a＠b", Err(Unexpected('@')));
    check("a\r\nb", Err(Unexpected('\r')));
    check("a\0b", Err(Unexpected('\0')));
    check("a>b", Err(Unexpected('>')));
    check("[192.0.2.1]", Ok("[192.0.2.1]"));
    check("[IPv6:2001:DB8:0::1]", Ok("[IPv6:2001:db8::1]"));
    check("[ipv6:::1]", Ok("[IPv6:::1]"));
    check("[IPv6:::ffff:192.0.2.1]", Ok("[IPv6:::ffff:192.0.2.1]"));
    check("[2001:db8::1]", Err(BadLiteral));
    check("[IPv6:192.0.2.1]", Err(BadLiteral));
    check("[IPv6:fe80::1%eth0]", Err(BadLiteral));
    check("[192.0.2.256]", Err(BadLiteral));
    check("[192.0.2.1", Err(BadLiteral));
    check("[192.0.2.1].", Err(BadLiteral));
    check("[x-tag:abc]", Err(BadLiteral));
    check("[IPv6é::1]", Err(BadLiteral));
    check("[]", Err(BadLiteral));
}

#[test]
fn mailboxes() {
    /// `expected`: the local part, unquoted, and the wire form.
    fn check(text: &str, expected: Result<(&str, &str), AddressError>) {
        let parsed = Address::parse(text);
        let seen = parsed
            .as_ref()
            .map(|address| (address.local().to_owned(), address.to_string()))
            .map_err(Clone::clone);
        let expected = expected.map(|(local, wire)| (local.to_owned(), wire.to_owned()));
        assert_eq!(seen, expected, "{text:?}");
        if let Ok(address) = parsed {
            assert_eq!(
                Address::parse(&address.to_string()),
                Ok(address),
                "{text:?} once more"
            );
        }
    }
    use AddressError::*;
    check("joe@example.org", Ok(("joe", "joe@example.org")));
    check("Joe@EXAMPLE.org.", Ok(("Joe", "Joe@example.org")));
    check("a+b=c/d{e}@x", Ok(("a+b=c/d{e}", "a+b=c/d{e}@x")));
    check("\"joe\"@x", Ok(("joe", "joe@x")));
    check("\"quo ted\"@x", Ok(("quo ted", "\"quo ted\"@x")));
    check("\"a@b\"@x", Ok(("a@b", "\"a@b\"@x")));
    check(r#""a\"b\\c"@x"#, Ok((r#"a"b\c"#, r#""a\"b\\c"@x"#)));
    check(r#""\j\o\e"@x"#, Ok(("joe", "joe@x")));
    check("a..b@x", Ok(("a..b", "\"a..b\"@x")));
    check("a.@x", Ok(("a.", "\"a.\"@x")));
    check(".a@x", Ok((".a", "\".a\"@x")));
    check(
        "δοκιμή@παράδειγμα.ελ",
        Ok(("δοκιμή", "δοκιμή@xn--hxajbheg2az3al.xn--qxam")),
    );
    check("a@[IPv6:::1]", Ok(("a", "a@[IPv6:::1]")));
    let local_255 = "l".repeat(255);
    let wire = format!("{local_255}@x");
    check(&wire, Ok((&local_255, &wire)));
    check(&format!("l{wire}"), Err(LocalTooLong));
    check("", Err(Incomplete));
    check("joe", Err(Incomplete));
    check("postmaster", Err(Incomplete));
    check("joe@", Err(Incomplete));
    check("@example.org", Err(Incomplete));
    check("@a,@b:joe@c", Err(Incomplete));
    check("\"\"@x", Err(Incomplete));
    check("\"joe@x", Err(Incomplete));
    check("\"joe\"", Err(Incomplete));
    check("\"joe\\", Err(Incomplete));
    check("\"joe\"x@x", Err(Unexpected('x')));
    check("\"joe\"é@x", Err(Unexpected('é')));
    check("a\"b\"@x", Err(Unexpected('"')));
    check(" joe@x", Err(Unexpected(' ')));
    check("joe @x", Err(Unexpected(' ')));
    check("joe@x ", Err(Unexpected(' ')));
    check("joe@ x", Err(Unexpected(' ')));
    check("<joe@x", Err(Unexpected('<')));
    check("joe@x>", Err(Unexpected('>')));
    check("a@b@c", Err(Unexpected('@')));
    check("a(b)@x", Err(Unexpected('(')));
    check("a\\b@x", Err(Unexpected('\\')));
    check("a:b@x", Err(Unexpected(':')));
    check("a,b@x", Err(Unexpected(',')));
    check("a\tb@x", Err(Unexpected('\t')));
    check("\"a\r\nb\"@x", Err(Unexpected('\r')));
    check("\"a\\\0b\"@x", Err(Unexpected('\0')));
    check("a\u{7f}@x", Err(Unexpected('\u{7f}')));
    check("a\u{85}@x", Err(Unexpected('\u{85}')));
    check("a\u{2028}b@x", Err(Unexpected('\u{2028}')));
    check("\"a\u{2029}b\"@x", Err(Unexpected('\u{2029}')));
    check("a\u{a0}b@x", Err(Unexpected('\u{a0}')));
    check("joe@-x", Err(BadDomain));
}

#[test]
fn made_from_parts() {
    let domain = Domain::parse("example.org").unwrap();
    let check = |local: &str, expected: Result<&str, AddressError>| {
        let made = Address::new(local, domain.clone()).map(|address| address.to_string());
        assert_eq!(made.as_deref(), expected.as_deref(), "{local:?}");
    };
    check("joe", Ok("joe@example.org"));
    check("a b", Ok("\"a b\"@example.org"));
    check("\"", Ok("\"\\\"\"@example.org"));
    check("", Err(AddressError::Incomplete));
    check(&"é".repeat(128), Err(AddressError::LocalTooLong));
    check("a\nb", Err(AddressError::Unexpected('\n')));
}

#[test]
fn keys_and_flags() {
    let address = Address::parse("JÖE@Bücher.example").unwrap();
    assert_eq!(address.key(), "jöe@xn--bcher-kva.example");
    assert!(address.needs_smtputf8());
    assert!(
        !Address::parse("joe@bücher.example")
            .unwrap()
            .needs_smtputf8()
    );
    assert!(Domain::parse("[192.0.2.1]").unwrap().is_literal());
    assert!(!Domain::parse("a.example").unwrap().is_literal());
    assert_eq!(ReversePath::parse(""), Ok(ReversePath::Null));
    assert_eq!(ReversePath::Null.to_string(), "");
    assert_eq!(ReversePath::parse("joe@x").unwrap().to_string(), "joe@x");
    assert!(ReversePath::parse(" ").is_err());
}

#[test]
fn total() {
    let seeds: [&[u8]; 5] = [
        b"joe@example.org",
        b"\"a\\\"b\"@[IPv6:2001:db8::1]",
        "δοκιμή@παράδειγμα.ελ".as_bytes(),
        b"a@xn--bcher-kva.example",
        b"a@[192.0.2.1]",
    ];
    let spices: [&[u8]; 8] = [
        b"\"",
        b"\\",
        b"@",
        b"[",
        b"xn--",
        b"\r\n",
        b"\xc3\xbc",
        b"\xe3\x80\x82",
    ];
    let mut accepted = 0;
    mutation::each(&seeds, &spices, 4000, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let _ = Domain::parse(&text);
        if let Ok(address) = Address::parse(&text) {
            accepted += 1;
            let wire = address.to_string();
            assert!(!wire.contains(['\r', '\n', '\0']), "{wire:?}");
            assert_eq!(Address::parse(&wire).as_ref(), Ok(&address), "{text:?}");
        }
    });
    assert!(accepted > 100, "{accepted}");
}
