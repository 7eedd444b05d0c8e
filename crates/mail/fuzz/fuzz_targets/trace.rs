//! A trace field that is taken for ours comes back from its own header, as one field.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mail::header;
use mail::trace::Trace;

fuzz_target!(|value: &str| {
    if let Some(trace) = Trace::parse(value) {
        let header = trace.header();
        let fields: Vec<_> = header::fields(header.as_bytes()).collect();
        assert_eq!(fields.len(), 1);
        assert_eq!(Trace::parse(&fields[0].text()), Some(trace));
    }
});
