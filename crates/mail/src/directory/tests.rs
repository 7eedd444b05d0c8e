//! Contents, their digests and changes.

use super::*;

fn content(lists: &[&str], addresses: &[&str]) -> Content {
    Content {
        domains: [Domain::parse("lists.example").unwrap()].into(),
        lists: lists.iter().copied().collect(),
        addresses: addresses.iter().copied().collect(),
    }
}

fn many(count: usize) -> Content {
    let names: Vec<String> = (0..count).map(|n| format!("u{n}@lists.example")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    content(&[], &names)
}

#[test]
fn entries_are_a_set() {
    let mut entries = Entries::default();
    let mut model = BTreeSet::new();
    // Many in few buckets and few in many: every operation is compared with a plain set.
    let mut state = 1_u32;
    for _ in 0..50_000 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let name = format!("u{}@a.example", state >> 20);
        match state >> 8 & 3 {
            0 => assert_eq!(entries.remove(&name), model.remove(&name), "{name}"),
            _ => assert_eq!(entries.insert(&name), model.insert(name.clone()), "{name}"),
        }
        assert_eq!(entries.len(), model.len());
        assert_eq!(entries.contains(&name), model.contains(&name));
    }
    let mut names: Vec<&str> = entries.iter().collect();
    names.sort_unstable();
    assert!(names.into_iter().eq(model.iter().map(String::as_str)));
}

#[test]
fn a_version_keeps_what_a_later_one_changes() {
    let old = many(10_000);
    let mut new = old.clone();
    new.addresses.remove("u7@lists.example");
    new.addresses.insert("new@lists.example");
    assert!(old.addresses.contains("u7@lists.example"));
    assert!(!old.addresses.contains("new@lists.example"));
    let gone: Vec<&str> = old.addresses.without(&new.addresses).collect();
    assert_eq!(gone, ["u7@lists.example"]);
}

#[test]
fn the_digest_depends_on_the_content_alone() {
    let ab = content(&[], &["a@lists.example", "b@lists.example"]);
    let ba = content(&[], &["b@lists.example", "a@lists.example"]);
    assert_eq!(ab.digest(), ba.digest());
    assert_eq!(ab, ba);
    let mut came_and_went = ab.clone();
    came_and_went.digest();
    came_and_went.addresses.insert("c@lists.example");
    assert_ne!(came_and_went.digest(), ab.digest());
    came_and_went.addresses.remove("c@lists.example");
    assert_eq!(came_and_went.digest(), ab.digest());
    let as_list = content(&["a@lists.example"], &["b@lists.example"]);
    assert_ne!(as_list.digest(), ab.digest());
    let mut without_domain = ab.clone();
    without_domain.domains.clear();
    assert_ne!(without_domain.digest(), ab.digest());
    // Fixed for ever: hosts of different releases must agree.
    assert_eq!(
        ab.digest().to_string(),
        "85245d524c5ef9dca3c876f80546acb4a883f1720bd3a0e5278db79b12b18e0d"
    );
}

#[test]
fn a_change_leads_from_one_to_the_other() {
    let one = content(&["dev@lists.example"], &["a@lists.example"]);
    let mut two = content(&["dev@lists.example", "new@lists.example"], &[]);
    two.domains.insert(Domain::parse("more.example").unwrap());
    let change = one.change_to(&two);
    assert_eq!(change.len(), 3);
    let mut made = one.clone();
    made.apply(&change).unwrap();
    assert_eq!(made, two);
    assert_eq!(made.digest(), two.digest());
    // A second time it does not fit.
    assert!(made.apply(&change).is_err());
    made.apply(&two.change_to(&one)).unwrap();
    assert_eq!(made, one);
}

#[test]
fn changes_add_up() {
    let states = [
        content(&[], &["a@lists.example", "b@lists.example"]),
        content(&["x@lists.example"], &["a@lists.example"]),
        content(
            &["x@lists.example"],
            &["a@lists.example", "b@lists.example"],
        ),
        content(&[], &["b@lists.example", "c@lists.example"]),
    ];
    let mut sum = Change::default();
    for pair in states.windows(2) {
        sum.then(pair[0].change_to(&pair[1]));
    }
    assert_eq!(sum, states[0].change_to(&states[3]));
    assert_eq!(sum.len(), 2);
}

#[test]
fn a_change_with_a_bad_name_is_refused() {
    for name in [
        "joe",
        "Joe@lists.example",
        "joe@lists..example",
        "@lists.example",
        "",
    ] {
        let mut change = Change::default();
        change.add.addresses.insert(name.into());
        assert!(Content::default().apply(&change).is_err(), "{name}");
        let list = serde_json::to_string(&[name]).unwrap();
        assert!(serde_json::from_str::<Entries>(&list).is_err(), "{name}");
    }
    // Keys are unquoted: what needs quotes on the wire is a key like any other.
    let odd = [r#"a "quoted" b@lists.example"#, "a@b@lists.example"];
    let list = serde_json::to_string(&odd).unwrap();
    assert_eq!(serde_json::from_str::<Entries>(&list).unwrap().len(), 2);
}

#[test]
fn versions_and_digests_are_read_as_written() {
    let version = Version {
        epoch: 0xfe,
        serial: 12,
    };
    assert_eq!(version.to_string(), "00000000000000fe.12");
    assert_eq!("00000000000000fe.12".parse(), Ok(version));
    for text in [
        "",
        "7",
        "fe.12",
        "00000000000000fe.",
        "00000000000000fe.+1",
        "+0000000000000fe.1",
    ] {
        assert!(text.parse::<Version>().is_err(), "{text}");
    }
    let digest = many(3).digest();
    assert_eq!(Digest::try_from(digest.to_string()), Ok(digest));
    assert!(Digest::try_from("00".repeat(31)).is_err());
    assert!(Digest::try_from("+1".repeat(32)).is_err());
}

fn seal(serial: u64, content: &Content) -> Seal {
    Seal {
        version: Version { epoch: 1, serial },
        digest: content.digest(),
        signatures: Vec::new(),
    }
}

#[test]
fn a_delta_counts_only_when_it_leads_to_its_seal() {
    let (old, new) = (many(100), many(101));
    let delta = Delta {
        from: Version {
            epoch: 1,
            serial: 1,
        },
        seal: seal(2, &new),
        change: old.change_to(&new),
    };
    assert_eq!(delta.apply(delta.from, &old).unwrap().1, new);
    assert!(delta.apply(delta.seal.version, &old).is_err());
    assert!(delta.apply(delta.from, &many(99)).is_err());
    assert!(delta.apply(delta.from, &new).is_err());
    let text = serde_json::to_string(&delta).unwrap();
    assert_eq!(serde_json::from_str::<Delta>(&text).unwrap(), delta);
}

#[test]
fn a_whole_counts_only_when_it_is_what_its_seal_says() {
    let all = many(1000);
    let text = serde_json::to_string(&Whole::new(seal(1, &all), &all)).unwrap();
    let read: Whole = serde_json::from_str(&text).unwrap();
    assert_eq!(read.content().unwrap(), (seal(1, &all), all.clone()));
    let mut other: Whole = serde_json::from_str(&text).unwrap();
    other.addresses.remove("u7@lists.example");
    assert!(other.content().is_err());
    for end in (0..text.len()).step_by(97) {
        assert!(
            serde_json::from_str::<Whole>(&text[..end]).is_err(),
            "{end}"
        );
    }
}
