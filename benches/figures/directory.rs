//! What a directory of a million addresses costs an edge: memory for each, and the time of a look-up, known and unknown.

use std::error::Error;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use mail::{Address, Domain};
use mailload::figures::{Figure, Goal, is_wanted, report};
use mx_edge::admission::pressure::resident_bytes;
use mx_edge::recipients::catalog::Catalog;
use mx_edge::recipients::source::{Guard, Source};
use mx_edge::recipients::{Known, Recipients};

const ADDRESSES: usize = 1_000_000;
const LISTS: usize = 1_000;
const LOOKUPS: usize = 200_000;

const MEMORY: &str = "edge_directory_bytes_per_address";
const TIME: &str = "edge_directory_lookup_nanoseconds";

/// As long as real ones are: 24 octets and more.
fn address(number: usize) -> Address {
    let text = format!("first.last{number:07}@lists{}.example", number % 7);
    Address::parse(&text).expect("an address")
}

fn load() -> Catalog {
    let mut catalog = Catalog::default();
    for number in 0..ADDRESSES {
        catalog.add_address(&address(number));
    }
    for number in 0..LISTS {
        let list = format!("project{number}-dev@lists0.example");
        catalog.add_list(&Address::parse(&list).expect("an address"));
    }
    catalog
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

fn main() -> Result<(), Box<dyn Error>> {
    if ![MEMORY, TIME].iter().any(|name| is_wanted(name)) {
        return Ok(());
    }
    let before = resident_bytes().ok_or("no /proc/self/statm")?;
    let source = Arc::new(Source::new("directory", Guard::default(), None));
    source.offer(load(), None, false);
    let bytes = resident_bytes().ok_or("no /proc/self/statm")? - before;
    report(&Figure {
        name: MEMORY,
        value: bytes as f64 / ADDRESSES as f64,
        unit: "bytes",
        goal: Goal::Stated,
        peer: "",
        detail: format!("{ADDRESSES} addresses of 32 octets, {LISTS} lists, resident memory"),
    })?;
    let host = Domain::parse("mx1.example")?;
    let all = Recipients::new(host, Default::default(), vec![source]);
    let known = look_up(&all, Known::Ordinary, address);
    let unknown = look_up(&all, Known::Unknown, |number| {
        let text = format!("guess-{number}-of-many@lists{}.example", number % 7);
        Address::parse(&text).expect("an address")
    });
    report(&Figure {
        name: TIME,
        value: unknown,
        unit: "nanoseconds",
        goal: Goal::Stated,
        peer: "",
        detail: format!(
            "an unknown address with three hyphens; a known one {known:.0}; {LOOKUPS} each"
        ),
    })?;
    Ok(())
}
