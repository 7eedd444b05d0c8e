//! Tables for list addresses: extensions, VERP, confirmation cookies.

use super::*;
use crate::mutation;

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

fn keys(byte: u8) -> Keys {
    Keys::new(&[vec![byte; 32]]).unwrap()
}

const COOKIE: &str = "abcdefghijklmnopabcd";

#[test]
fn grammar() {
    use ListAddress::*;
    fn check(list: &str, local: &str, expected: Option<ListAddress>) {
        assert_eq!(parse(list, local), expected, "{local:?} below {list:?}");
    }
    let joe = || Some(address("joe@example.org"));
    let returned = |number, member| Some(Return { number, member });
    let confirmation = || Confirmation {
        time_seconds: 1_795_176_245,
        cookie: COOKIE.into(),
        member: address("joe@example.org"),
    };
    check("dev", "dev", Some(Post));
    check("dev", "DEV", Some(Post));
    check("Dev", "dEv", Some(Post));
    check("dev", "device", None);
    check("dev", "de", None);
    check("dev", "", None);
    check("dev", "dev-", None);
    check("dev", "dev--help", None);
    check("dev", "dev_help", None);
    check("dev", "dev-nonsense", None);
    check("dev", "dev-help", Some(Help));
    check("dev", "dev-info", Some(Help));
    check("dev", "DEV-FAQ", Some(Help));
    check("dev", "dev-help-me", None);
    check("dev", "dev-owner", Some(Owner));
    check("dev", "dev-owner-x", None);
    check("dev", "dev-request", Some(Request));
    check("dev", "dev-subscribe", Some(Subscribe(None)));
    check("dev", "Dev-Subscribe", Some(Subscribe(None)));
    check(
        "dev",
        "dev-subscribe-joe=example.org",
        Some(Subscribe(joe())),
    );
    check("dev", "dev-subscribe-", None);
    check("dev", "dev-subscribe-joe", None);
    check("dev", "dev-subscribe-=example.org", None);
    check("dev", "dev-subscribe-joe=", None);
    check("dev", "dev-subscribe-joe=exa mple", None);
    check("dev", "dev-subscribed", None);
    check("dev", "dev-unsubscribe", Some(Unsubscribe(None)));
    check(
        "dev",
        "dev-unsubscribe-joe=example.org",
        Some(Unsubscribe(joe())),
    );
    // A list's name may hold what parts the extension.
    check("dev-ops", "dev-ops", Some(Post));
    check("dev-ops", "dev-ops-help", Some(Help));
    check("dev", "dev-ops", None);
    check("dev-owner", "dev-owner", Some(Post));
    check("dev-owner", "dev-owner-owner", Some(Owner));
    check("dev-return", "dev-return-return-5", returned(5, None));
    check("a.b+c", "A.B+C-help", Some(Help));
    check("entwickler-ü", "Entwickler-Ü-help", Some(Help));
    check("straße", "strasse", None);
    check("i\u{307}x", "İx-help", Some(Help));
    check("i", "İ-help", None);
    // VERP.
    check("dev", "dev-return-17", returned(17, None));
    check("dev", "dev-return-17-joe=example.org", returned(17, joe()));
    check("dev", "dev-RETURN-17-joe=EXAMPLE.org", returned(17, joe()));
    let odd = Some(address("a-b=c+d@x-y.example"));
    check("dev", "dev-return-0-a-b=c+d=x-y.example", returned(0, odd));
    let literal = Some(address("joe@[IPv6:2001:db8::1]"));
    check(
        "dev",
        "dev-return-1-joe=[IPv6:2001:db8::1]",
        returned(1, literal),
    );
    let max = u64::MAX;
    check("dev", &format!("dev-return-{max}"), returned(max, None));
    check("dev", "dev-return-18446744073709551616", None);
    check("dev", "dev-return", None);
    check("dev", "dev-return-", None);
    check("dev", "dev-return--joe=x", None);
    check("dev", "dev-return-+5", None);
    check("dev", "dev-return-5x", None);
    check("dev", "dev-return-17-", None);
    check("dev", "dev-return-17-joe", None);
    // Confirmations.
    let sc = format!("dev-sc.1795176245.{COOKIE}-joe=example.org");
    check("dev", &sc, Some(ConfirmSubscribe(confirmation())));
    check("dev", &sc.to_uppercase(), {
        let member = address("JOE@example.org");
        Some(ConfirmSubscribe(Confirmation {
            member,
            ..confirmation()
        }))
    });
    check(
        "dev",
        &sc.replace("-sc", "-uc"),
        Some(ConfirmUnsubscribe(confirmation())),
    );
    check("dev", &sc.replace("-sc", "-tc"), None);
    check("dev", &sc.replace("-sc.", "-sc"), None);
    check("dev", &sc.replace("joe=example.org", ""), None);
    check("dev", &sc.replace("-joe=example.org", ""), None);
    check("dev", &sc.replace(".1795176245", ".-1"), None);
    check("dev", &sc.replace(".1795176245", "."), None);
    check("dev", &sc.replace(COOKIE, &COOKIE[1..]), None);
    check("dev", &sc.replace(COOKIE, "abcdefghijklmnopabcq"), None);
    check("dev", &sc.replace(COOKIE, &format!("{COOKIE}.a")), None);
}

#[test]
fn cookies_bind() {
    let (dev, ops) = (address("dev@lists.example"), address("ops@lists.example"));
    let (joe, ann) = (address("joe@example.org"), address("ann@example.org"));
    let now = 1_795_176_245;
    let valid = 1_000_000;
    let local = confirmation(&dev, Request::Subscribe, &joe, now, &keys(1));
    assert!(local.starts_with("dev-sc.1795176245.") && local.ends_with("-joe=example.org"));
    let Some(ListAddress::ConfirmSubscribe(given)) = parse("dev", &local) else {
        panic!("{local:?} is no confirmation");
    };
    assert_eq!((given.time_seconds, &given.member), (now, &joe));
    let check =
        |what: &str, list: &Address, request, given: &Confirmation, now, keys: &Keys, good| {
            assert_eq!(
                verify(list, request, given, now, valid, keys),
                good,
                "{what}"
            );
        };
    use Request::*;
    let one = &keys(1);
    check("as it was made", &dev, Subscribe, &given, now, one, true);
    check("another list", &ops, Subscribe, &given, now, one, false);
    check("another action", &dev, Unsubscribe, &given, now, one, false);
    let other = Confirmation {
        member: ann,
        ..given.clone()
    };
    check("another member", &dev, Subscribe, &other, now, one, false);
    let later = Confirmation {
        time_seconds: now + 1,
        ..given.clone()
    };
    check("another time", &dev, Subscribe, &later, now, one, false);
    check("another key", &dev, Subscribe, &given, now, &keys(2), false);
    let rotated = Keys::new(&[vec![2; 32], vec![1; 32]]).unwrap();
    check(
        "the key before",
        &dev,
        Subscribe,
        &given,
        now,
        &rotated,
        true,
    );
    let cased = Confirmation {
        cookie: given.cookie.to_uppercase().into(),
        member: address("JOE@example.org"),
        ..given.clone()
    };
    check(
        "case changed on the way",
        &address("DEV@Lists.example"),
        Subscribe,
        &cased,
        now,
        one,
        true,
    );
    check(
        "last second",
        &dev,
        Subscribe,
        &given,
        now + valid,
        one,
        true,
    );
    check(
        "too old",
        &dev,
        Subscribe,
        &given,
        now + valid + 1,
        one,
        false,
    );
    check(
        "clock an hour behind",
        &dev,
        Subscribe,
        &given,
        now - 3600,
        one,
        true,
    );
    check(
        "from the future",
        &dev,
        Subscribe,
        &given,
        now - 3601,
        one,
        false,
    );
    check("no clock", &dev, Subscribe, &given, 0, one, false);
    check("end of time", &dev, Subscribe, &given, u64::MAX, one, false);
    for at in 0..COOKIE_LETTERS {
        let mut cookie = given.cookie.to_string().into_bytes();
        cookie[at] = if cookie[at] == b'a' { b'b' } else { b'a' };
        let cookie = String::from_utf8(cookie).unwrap().into();
        let changed = Confirmation {
            cookie,
            ..given.clone()
        };
        check(
            "a letter changed",
            &dev,
            Subscribe,
            &changed,
            now,
            one,
            false,
        );
    }
    for cookie in ["", "a", &given.cookie[1..]] {
        let cut = Confirmation {
            cookie: cookie.into(),
            ..given.clone()
        };
        check("a cut cookie", &dev, Subscribe, &cut, now, one, false);
    }
}

#[test]
fn members_in_addresses() {
    fn check(member: &str, encoded: &str) {
        let member = address(member);
        assert_eq!(encode(&member), encoded);
        assert_eq!(decode(encoded), Some(member));
    }
    check("joe@example.org", "joe=example.org");
    check("a=b@x", "a=b=x");
    check("a-b+c@x", "a-b+c=x");
    check("\"a@b c\"@x", "a@b c=x");
    check("joe@[IPv6:::1]", "joe=[IPv6:::1]");
    check("jöe@bücher.example", "jöe=xn--bcher-kva.example");
    assert_eq!(decode(""), None);
    assert_eq!(decode("joe"), None);
    assert_eq!(decode("=x"), None);
    assert_eq!(decode("a\rb=x"), None);
}

#[test]
fn verp_paths() {
    fn check(list: &str, member: &str, expected: &str) {
        let (list, member) = (address(list), address(member));
        let path = verp(&list, 17, &member);
        assert_eq!(path.to_string(), expected);
        assert_eq!(Address::parse(expected).as_ref(), Ok(&path));
        let back = parse(list.local(), path.local());
        let whole = expected.contains('=');
        let member = whole.then_some(member);
        assert_eq!(back, Some(ListAddress::Return { number: 17, member }));
    }
    check(
        "dev@l.example",
        "joe@x.org",
        "dev-return-17-joe=x.org@l.example",
    );
    check(
        "Dev@l.example",
        "Joe@x.org",
        "Dev-return-17-Joe=x.org@l.example",
    );
    check(
        "dev@l.example",
        "a=b@x.org",
        "dev-return-17-a=b=x.org@l.example",
    );
    check(
        "dev@l.example",
        "j@[IPv6:::1]",
        "\"dev-return-17-j=[IPv6:::1]\"@l.example",
    );
    check(
        "dev@l.example",
        "\"a b\"@x",
        "\"dev-return-17-a b=x\"@l.example",
    );
    check("dev@l.example", "jöe@x.org", "dev-return-17@l.example");
    check("dev@l.example", &format!("{}@x", "j".repeat(239)), &{
        format!("dev-return-17-{}=x@l.example", "j".repeat(239))
    });
    check(
        "dev@l.example",
        &format!("{}@x", "j".repeat(240)),
        "dev-return-17@l.example",
    );
    let longest = address(&format!("{}@l.example", "d".repeat(255)));
    assert!(verp(&longest, 17, &longest).local().ends_with("-return-17"));
}

#[test]
fn total() {
    let sc = format!("dev-sc.1795176245.{COOKIE}-joe=example.org");
    let seeds: [&[u8]; 4] = [
        b"dev-return-17-a-b=c+d=x-y.example",
        sc.as_bytes(),
        b"dev-subscribe-joe=[IPv6:2001:db8::1]",
        b"DEV-owner",
    ];
    let spices: [&[u8]; 7] = [b"-", b"=", b".", b"dev-", b"-return-", b"\xc4\xb0", b"\xc3"];
    let mut below = 0;
    mutation::each(&seeds, &spices, 4000, |bytes| {
        let local = String::from_utf8_lossy(bytes);
        below += usize::from(parse("dev", &local).is_some());
        let _ = parse(&local, "dev-return-17-joe=x");
        if let Some(member) = decode(&local) {
            assert_eq!(decode(&encode(&member)), Some(member));
        }
    });
    assert!(below > 100, "{below}");
}
