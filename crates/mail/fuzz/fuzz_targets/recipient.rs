//! The grammar of list addresses returns on any text; a member that it finds comes back from its encoded form.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mail::recipient;

fuzz_target!(|pair: (&str, &str)| {
    let (list, local) = pair;
    let _ = recipient::parse(list, local);
    let _ = recipient::parse("dev", local);
    if let Some(member) = recipient::decode(local) {
        assert_eq!(recipient::decode(&recipient::encode(&member)), Some(member));
    }
});
