//! Names of parts, faults of headers and files inside texts are read from any bytes, and readings stay bounded.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mail::structure::names::Names;
use mail::structure::{Limits, each, faults, inline};

fuzz_target!(|message: &[u8]| {
    assert!(Names::read(message).readings.len() <= 500);
    faults(message, true);
    let _ = each(message, &Limits::default(), &mut |part| {
        inline(&part.decoded());
    });
});
