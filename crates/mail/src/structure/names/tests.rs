//! Tables of names: how each way of writing one is read.

use super::*;

/// The readings' extensions, and what hides the name.
fn check(header: &str, extensions: &[&str], disguise: Option<&str>) {
    let names = Names::read(header.as_bytes());
    let found: Vec<&str> = names.extensions().into_iter().collect();
    assert_eq!(found, extensions, "{header:?} {:?}", names.readings);
    assert_eq!(names.disguise, disguise, "{header:?}");
}

fn disposition(rest: &str) -> String {
    format!("Content-Disposition: attachment; {rest}\r\n\r\n")
}

#[test]
fn every_way_of_writing_a_name_is_read() {
    for way in [
        "filename=evil.exe",
        "filename=\"evil.exe\"",
        "FileName = evil.exe",
        "filename=evil.exe ; x=y",
        "filename=\r\n evil.exe",
        "filename=\"ev\r\n il.exe\"",
        "filename=\"evil.\r\n\texe\"",
        "filename=evil.exe.",
        "filename=\"evil.exe. . \"",
        "filename=\"evil\\.exe\"",
        "filename=\"c:\\\\tmp\\\\evil.exe\"",
        "filename=\"/tmp/evil.exe\"",
        "filename=evil.()exe",
        "filename=evil(a (nested) comment).exe",
        "filename*=UTF-8''evil.exe",
        "filename*=UTF-8''evil%2Eexe",
        "filename*=us-ascii'en'%65vil.e%78e",
        "filename*=utf-16''e%00v%00i%00l%00.%00e%00x%00e%00",
        "filename*0=ev; filename*1=il.; filename*2=exe",
        "filename*0*=utf-8''evil; filename*1=.e; filename*2*=%78e",
        "filename=\"=?utf-8?Q?evil=2Eexe?=\"",
        "filename==?utf-8?B?ZXZpbC5leGU=?=",
        "filename=\"=?utf-8?Q?ev?= =?utf-8?Q?il.exe?=\"",
        "filename=evil%2Eexe",
        "filename=\"evil.exe:stream\"",
        "filename=\"evil.exe::$DATA\"",
        "filename=\"evil\u{ff0e}exe\"",
        "filename=\"evil.e\u{200b}xe\"",
        "filename=\"evil\".exe",
        "name=evil.exe",
        "x=\"filename=evil.exe\"",
    ] {
        check(&disposition(way), &["exe"], None);
    }
}

#[test]
fn a_name_with_two_readings_has_both() {
    for way in [
        "filename=a.txt; filename=evil.exe",
        "filename=evil.exe; filename=a.txt",
        "filename=\"a.txt\"; filename*=utf-8''evil.exe",
        "filename=a.txt; filename*0=ev; filename*1=il.exe",
        "filename=a.txt evil.exe",
        "filename=\"a.txt\\\".exe\"",
        "filename*0=a.txt; filename*0=evil.exe",
    ] {
        check(&disposition(way), &["exe", "txt"], None);
    }
    // Some put the pieces together as they stand.
    let turned = disposition("filename*1=il.exe; filename*0=ev");
    check(&turned, &["exe", "exeev"], None);
    let two = "Content-Type: text/plain; name=a.txt\r\nContent-Disposition: attachment; filename=evil.exe\r\n\r\n";
    check(two, &["exe", "txt"], None);
    let twice =
        "Content-Type: text/plain; name=a.txt\r\nContent-type: text/plain; name=evil.exe\r\n\r\n";
    check(twice, &["exe", "txt"], None);
    let broken = "Content-Type: text/plain; name=a.txt\r\nno field\r\n Content-Disposition: x; filename=a.exe\r\n";
    check(broken, &["exe", "txt"], None);
}

#[test]
fn disguises_are_told() {
    let nul = "NUL in a name";
    check(
        &disposition("filename=\"a.txt\0.exe\""),
        &["exe", "txt"],
        Some(nul),
    );
    check(
        &disposition("filename*=utf-8''a.txt%00.exe"),
        &["exe", "txt"],
        Some(nul),
    );
    let order = "name that is shown in another order";
    check(
        &disposition("filename=\"exe.\u{202e}txt.exe\""),
        &["exe"],
        Some(order),
    );
    check(
        &disposition("filename*=utf-7''evil+AC4-exe"),
        &[],
        Some("name in UTF-7"),
    );
    let many: String = (0..600).map(|n| format!("filename=a{n}.txt; ")).collect();
    let hundreds = "name that can be read in hundreds of ways";
    check(&disposition(&many), &["txt"], Some(hundreds));
}

#[test]
fn honest_names_are_read_in_one_way() {
    for way in [
        "filename=\"Minutes of 2026-11-25 v1.2.pdf\"",
        "filename=v1.2 report.pdf",
        "filename=\"report (final).pdf\"",
        "filename=\"My, name; with = signs.pdf\"",
        "filename=\"fallback.pdf\"; filename*=UTF-8''%C3%A4.pdf",
        "filename=\"=?UTF-8?Q?=C3=A4_und_=C3=B6.pdf?=\"",
        "filename=\"100%.pdf\"",
        "filename=\"\u{5e9}\u{5dc}\u{5d5}\u{5dd}\u{200f}.pdf\"",
        "filename=REPORT.PDF; size=12",
        "filename*0=\"a very long name that had to be cut in two p\"; filename*1=\"ieces.pdf\"",
    ] {
        check(&disposition(way), &["pdf"], None);
    }
    check(
        &disposition("filename=\"0001-Fix-the-thing.patch\""),
        &["patch"],
        None,
    );
    check(&disposition("filename=README"), &[], None);
    check("Subject: filename=evil.exe\r\n\r\n", &[], None);
    let names = Names::read(b"Content-Type: Application/X-MSDownload (a); name=\"A.b\"\r\n");
    assert!(names.types.contains("application/x-msdownload"));
    assert_eq!(names.shown(), Some("a.b"));
}

#[test]
fn nothing_panics_and_nothing_grows() {
    crate::mutation::each(
        &[
            b"Content-Type: text/plain; name*0*=utf-8''a%2e; name*1=\"b\\\"c\"\r\n",
            b"Content-Disposition: a; filename=\"=?utf-8?B?ZXZpbC5leGU=?= =?x?q?=2E?=\"\r\n",
        ],
        &[
            b"\"",
            b"(",
            b"*",
            b"=?",
            b"\r\n ",
            b"\0",
            b"%",
            b"filename=",
        ],
        4000,
        |bytes| {
            let names = Names::read(bytes);
            assert!(names.readings.len() <= READINGS_MAX);
        },
    );
}
