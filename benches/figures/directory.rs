//! What a directory of a million addresses costs an edge: memory for each, the time of a look-up, known and unknown, the time until
//! a change is in force and on disk, and the time to read the copy at start, with the most memory that each took.

use std::error::Error;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mail::directory::{Content, Delta, Seal, Version, Whole};
use mail::{Address, Domain};
use mailload::figures::{Figure, Goal, is_wanted, report};
use mx_edge::admission::pressure::resident_bytes;
use mx_edge::recipients::directory;
use mx_edge::recipients::guard::Guard;
use mx_edge::recipients::source::{Offered, Source};
use mx_edge::recipients::{Known, Recipients};
use service::signing::{Signer, Verifier};

const ADDRESSES: usize = 1_000_000;
const LISTS: usize = 1_000;
const LOOKUPS: usize = 200_000;
const CHANGES: usize = 20;

const MEMORY: &str = "edge_directory_bytes_per_address";
const TIME: &str = "edge_directory_lookup_nanoseconds";
const CHANGE: &str = "edge_directory_change_milliseconds";
const LOAD: &str = "edge_directory_load_milliseconds";

/// As long as real ones are: 24 octets and more.
fn address(number: usize) -> Address {
    let text = format!("first.last{number:07}@lists{}.example", number % 7);
    Address::parse(&text).expect("an address")
}

fn content() -> Content {
    let mut content = Content::default();
    for number in 0..ADDRESSES {
        let address = address(number);
        content.domains.insert(address.domain().clone());
        content.addresses.insert(&address.key());
    }
    for number in 0..LISTS {
        let list = format!("project{number}-dev@lists0.example");
        content.lists.insert(&list);
    }
    content
}

fn sealed(serial: u64, content: &Content, signer: &Signer) -> Seal {
    let mut seal = Seal {
        version: Version { epoch: 1, serial },
        digest: content.digest(),
        signatures: Vec::new(),
    };
    seal.signatures = signer.sign(&seal.signed());
    seal
}

/// Nanoseconds for one look-up of what `asked` makes.
fn look_up(all: &Recipients, expected: Known, asked: impl Fn(usize) -> Address) -> f64 {
    let asked: Vec<Address> = (0..LOOKUPS).map(|number| asked(number * 4)).collect();
    let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let start = Instant::now();
    for address in &asked {
        assert_eq!(black_box(all.lookup(address, local)), expected, "{address}");
    }
    start.elapsed().as_secs_f64() * 1e9 / LOOKUPS as f64
}

/// The most memory that the process ever had resident, in bytes; from now on.
fn peak(reset: bool) -> u64 {
    if reset {
        // "5" sets VmHWM back to what is resident (proc(5)).
        let _ = std::fs::write("/proc/self/clear_refs", "5");
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
    kib.unwrap_or_default() * 1024
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / 1024.0 / 1024.0
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn stated(
    name: &'static str,
    value: f64,
    unit: &'static str,
    detail: String,
) -> Result<(), Box<dyn Error>> {
    report(&Figure {
        name,
        value,
        unit,
        goal: Goal::Stated,
        peer: "",
        detail,
    })?;
    Ok(())
}

/// Changes of one name each, as they come over the wire, until they are in force and on disk.
fn change(source: &Source, signer: &Signer, verifier: &Verifier) -> (Duration, u64) {
    let (mut all, mut took) = (Duration::ZERO, 0);
    for number in 0..CHANGES {
        let current = source.current().expect("a directory");
        let from = current.seal.as_ref().expect("a seal").version;
        let mut content = current.content.clone();
        content.addresses.insert(&address(ADDRESSES + number).key());
        let delta = Delta {
            from,
            seal: sealed(from.serial + 1, &content, signer),
            change: current.content.change_to(&content),
        };
        let body = serde_json::to_vec(&delta).expect("a change");
        drop(content);
        let before = peak(true);
        let start = Instant::now();
        let read = directory::changed(&body, &current, Some(verifier));
        let (catalog, delta) = read.expect("it fits");
        assert_eq!(source.offer(catalog, Some(&delta), false), Offered::Applied);
        all += start.elapsed();
        took = took.max(peak(false).saturating_sub(before));
    }
    (all / CHANGES as u32, took)
}

/// The newest whole, read from its text beside the one in force, and put in force.
fn replace(source: &Source, signer: &Signer, verifier: &Verifier) -> (Duration, u64) {
    let current = source.current().expect("a directory");
    let from = current.seal.as_ref().expect("a seal").version;
    let seal = sealed(from.serial + 1, &current.content, signer);
    let body = serde_json::to_vec(&Whole::new(seal, &current.content)).expect("a whole");
    drop(current);
    let before = peak(true) - body.len() as u64;
    let start = Instant::now();
    let (catalog, _) = directory::whole(&body, Some(verifier)).expect("it is right");
    assert_eq!(source.offer(catalog, None, false), Offered::Applied);
    (start.elapsed(), peak(false).saturating_sub(before))
}

fn main() -> Result<(), Box<dyn Error>> {
    if ![MEMORY, TIME, CHANGE, LOAD]
        .iter()
        .any(|name| is_wanted(name))
    {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let path: PathBuf = folder.path().join("directory.json");
    let signer = Signer::new(&[vec![1; 32]])?;
    let verifier = Verifier::from(&signer);
    {
        let content = content();
        let seal = sealed(1, &content, &signer);
        let source = Source::new("directory", Guard::default(), Some(path.clone()));
        let (catalog, _) = directory::whole(
            &serde_json::to_vec(&Whole::new(seal, &content))?,
            Some(&verifier),
        )?;
        source.offer(catalog, None, false);
    }
    let source = Arc::new(Source::new("directory", Guard::default(), Some(path)));
    let start = Instant::now();
    directory::restore(&source, Some(&verifier));
    let loaded = start.elapsed();

    let catalog = source.current().ok_or("nothing was restored")?;
    let (mut copies, before) = (Vec::new(), resident_bytes().ok_or("no /proc/self/statm")?);
    let names = catalog.content.addresses.iter();
    copies.push(names.collect::<mail::directory::Entries>());
    let bytes = resident_bytes().ok_or("no /proc/self/statm")? - before;
    drop((catalog, copies));
    stated(
        MEMORY,
        bytes as f64 / ADDRESSES as f64,
        "bytes",
        format!("{ADDRESSES} addresses of 32 octets, resident memory"),
    )?;

    let host = Domain::parse("mx1.example")?;
    let all = Recipients::new(host, Default::default(), vec![Arc::clone(&source)]);
    let known = look_up(&all, Known::Ordinary, address);
    let unknown = look_up(&all, Known::Unknown, |number| {
        let text = format!("guess-{number}-of-many@lists{}.example", number % 7);
        Address::parse(&text).expect("an address")
    });
    stated(
        TIME,
        unknown,
        "nanoseconds",
        format!("an unknown address with three hyphens; a known one {known:.0}; {LOOKUPS} each"),
    )?;

    let (changed, peak_changed) = change(&source, &signer, &verifier);
    let (replaced, peak_replaced) = replace(&source, &signer, &verifier);
    stated(
        CHANGE,
        ms(changed),
        "milliseconds",
        format!(
            "one name among {ADDRESSES}: read, checked, synced, in force; at most {:.1} MiB more meanwhile; the whole \
             {:.0} ms, {:.0} MiB more with its text",
            mib(peak_changed),
            ms(replaced),
            mib(peak_replaced)
        ),
    )?;
    stated(
        LOAD,
        ms(loaded),
        "milliseconds",
        format!("the copy of {ADDRESSES} addresses on disk, at start"),
    )
}
