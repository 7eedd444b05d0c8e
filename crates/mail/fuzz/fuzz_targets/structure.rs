//! The structural pre-scan returns on any bytes, and what it counts stays below its limits.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mail::structure::{Limits, scan};

fuzz_target!(|message: &[u8]| {
    let limits = Limits::default();
    if let Ok(structure) = scan(message, &limits) {
        assert!(structure.depth <= limits.depth && structure.parts <= limits.parts);
        assert!(structure.header_bytes <= limits.header_bytes);
        assert!(structure.line_bytes <= limits.line_bytes);
    }
});
