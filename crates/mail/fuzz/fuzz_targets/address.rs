//! Whatever is taken for an address comes back from its wire form, which holds no line break.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mail::{Address, Domain};

fuzz_target!(|text: &str| {
    if let Ok(domain) = Domain::parse(text) {
        assert_eq!(Domain::parse(domain.as_str()), Ok(domain));
    }
    if let Ok(address) = Address::parse(text) {
        let wire = address.to_string();
        assert!(!wire.contains(['\r', '\n', '\0']));
        assert_eq!(Address::parse(&wire), Ok(address));
    }
});
