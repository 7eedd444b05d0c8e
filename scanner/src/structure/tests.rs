//! Messages made to hide something, and what is found of it; archives made to exhaust, and where looking ends.

use std::io::Write;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder};

use super::banned::Banned;
use super::*;

/// A zip archive; `flags` of each file in its directory and in front of it.
fn zip_with(files: &[(&str, &[u8])], flags: u16) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, content) in files {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(content).unwrap();
        let packed = encoder.finish().unwrap();
        let mut common = vec![20, 0];
        common.extend(flags.to_le_bytes());
        common.extend([8, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        common.extend((packed.len() as u32).to_le_bytes());
        common.extend((content.len() as u32).to_le_bytes());
        common.extend((name.len() as u16).to_le_bytes());
        common.extend([0, 0]);
        let offset = out.len() as u32;
        out.extend(b"PK\x03\x04");
        out.extend(&common);
        out.extend(name.as_bytes());
        out.extend(&packed);
        directory.extend(b"PK\x01\x02\x14\0");
        directory.extend(&common);
        directory.extend([0; 10]);
        directory.extend(offset.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let (at, size) = (out.len() as u32, directory.len() as u32);
    out.extend(directory);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend([(files.len() as u16).to_le_bytes(); 2].concat());
    out.extend(size.to_le_bytes());
    out.extend(at.to_le_bytes());
    out.extend([0, 0]);
    out
}

fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
    zip_with(files, 0)
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, content) in files {
        let mut block = [0u8; 512];
        let kind = if *name == "././@LongLink" { b'L' } else { b'0' };
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[124..136].copy_from_slice(format!("{:011o} ", content.len()).as_bytes());
        block[156] = kind;
        block[257..263].copy_from_slice(b"ustar\0");
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        out.extend(block);
        out.extend(*content);
        out.resize(out.len().div_ceil(512) * 512, 0);
    }
    out.extend([0; 1024]);
    out
}

fn attached(name: &str, content: &[u8]) -> Vec<u8> {
    let base64 = BASE64.encode(content);
    let lines: Vec<&str> = (base64.as_bytes().chunks(76))
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    format!(
        "Date: Wed, 25 Nov 2026 08:00:00 +0000\r\nFrom: ann@sender.example\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nSee.\r\n--b\r\n\
         Content-Type: application/octet-stream\r\nContent-Disposition: attachment; {name}\r\n\
         Content-Transfer-Encoding: base64\r\n\r\n{}\r\n--b--\r\n",
        lines.join("\r\n")
    )
    .into_bytes()
}

fn look(message: &[u8]) -> Inspection {
    inspect(message, false, Some(&Limits::default())).unwrap()
}

/// What is banned in an attachment, and what is ambiguous or unscanned about it.
fn check(name: &str, content: &[u8], banned: Option<&str>, other: Option<&str>) {
    let found = look(&attached(name, content));
    let lists = Banned::default();
    let hit = found.files.iter().find_map(|file| lists.hit(file));
    assert_eq!(hit.as_deref(), banned, "{name}: {:?}", found.files);
    let others = found.ambiguous.or(found.unscanned);
    assert_eq!(others.as_deref(), other, "{name}");
    assert_eq!(found.bad_header, None);
}

const EXE: &[u8] = b"MZ\x90\0\x03\0\0\0\x04\0\0\0\xff\xff\0\0";

#[test]
fn names_and_kinds_of_parts() {
    check("filename=a.txt", b"text", None, None);
    check("filename=a.exe", b"text", Some("name a.exe"), None);
    check("filename=a.txt", EXE, Some("kind exe, name a.txt"), None);
    check(
        "filename=a.txt; filename=a.exe",
        b"text",
        Some("name a.exe"),
        Some("name that ends in .exe or .txt"),
    );
    let order = Some("name that is shown in another order");
    check("filename*=utf-8''a%E2%80%AEtxt.pdf", b"text", None, order);
}

#[test]
fn names_inside_archives() {
    let exe = zip(&[("readme.txt", b"hello"), ("run/a.exe", b"text")]);
    check("filename=a.zip", &exe, Some("name a.exe in a.zip"), None);
    let hidden = zip(&[("letter.txt", EXE)]);
    let told = "kind exe, name letter.txt in a.docx";
    check("filename=a.docx", &hidden, Some(told), None);
    let nested = zip(&[("inner.zip", &exe)]);
    check(
        "filename=a.zip",
        &nested,
        Some("name a.exe in a.zip/inner.zip"),
        None,
    );
    let tarball = gzip(&tar(&[("a/b.txt", b"hello"), ("a/b.scr", b"x")]));
    check(
        "filename=a.tar.gz",
        &tarball,
        Some("name b.scr in a.tar.gz/a.tar"),
        None,
    );
    let long = format!("{}.exe\0", "a".repeat(200));
    let long = tar(&[("././@LongLink", long.as_bytes()), ("short.txt", b"x")]);
    let found = look(&attached("filename=a.tar", &long));
    assert!(
        found
            .files
            .iter()
            .any(|f| Banned::default().hit(f).is_some())
    );
    assert!(found.ambiguous.is_some(), "its short name ends otherwise");
    check(
        "filename=a.exe.gz",
        &gzip(b"x"),
        Some("name a.exe in a.exe.gz"),
        None,
    );
    let plain = zip(&[("src/main.rs", b"fn main() {}"), ("build.sh", b"make")]);
    check("filename=a.zip", &plain, None, None);
}

#[test]
fn a_zip_is_read_from_both_ends() {
    let mut two = zip(&[("letter.txt", b"hello")]);
    let at = two.windows(10).position(|w| w == b"letter.txt").unwrap();
    two[at..at + 10].copy_from_slice(b"letter.exe");
    let told = Some("name letter.exe in a.zip");
    check(
        "filename=a.zip",
        &two,
        told,
        Some("name that ends in .exe or .txt"),
    );
    // One whose directory does not know of what stands in front.
    let mut before = zip(&[("a.exe", b"x")]);
    let end = before.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
    before.truncate(end);
    before.extend(zip(&[("b.txt", b"x")]));
    check("filename=a.zip", &before, Some("name a.exe in a.zip"), None);
    let cut = zip(&[("a.exe", b"x")]);
    check(
        "filename=a.zip",
        &cut[..60],
        Some("name a.exe in a.zip"),
        None,
    );
}

#[test]
fn what_cannot_be_looked_into_is_told() {
    let encrypted = zip_with(&[("a.txt", b"hello")], 1);
    check(
        "filename=a.zip",
        &encrypted,
        None,
        Some("encrypted archive a.zip"),
    );
    let zeros = vec![0; 50 << 20];
    let mut many = Vec::new();
    for _ in 0..8 {
        many.extend(gzip(&zeros));
    }
    let began = Instant::now();
    let large = format!("archives expand to more than {} bytes", 300 << 20);
    let found = look(&attached("filename=a.gz", &many));
    let slow = Some("looking into archives takes more than 5s");
    let told = found.unscanned.as_deref();
    assert!(told == Some(&*large) || told == slow, "{told:?}");
    assert!(began.elapsed() < Duration::from_secs(12));
    let small = look(&attached("filename=a.gz", &gzip(&zeros[..4 << 20])));
    assert_eq!(small.unscanned, None, "4 MiB of zeros are no bomb");
    let mut deep = zip(&[("a.txt", b"x")]);
    for _ in 0..14 {
        deep = zip(&[("a.zip", &deep)]);
    }
    let levels = "archives inside each other, more than 14 levels";
    check("filename=a.zip", &deep, None, Some(levels));
    let names: Vec<String> = (0..1501).map(|n| format!("{n}.txt")).collect();
    let files: Vec<(&str, &[u8])> = names
        .iter()
        .map(|name| (name.as_str(), &b"x"[..]))
        .collect();
    check(
        "filename=a.zip",
        &zip(&files),
        None,
        Some("more than 1500 files in archives"),
    );
    check("filename=a.zip", &zip(&files[..1500]), None, None);
}

#[test]
fn closed_archives_are_told_and_not_opened() {
    let exe = attached("filename=a.zip", &zip(&[("a.exe", b"x")]));
    let found = inspect(&exe, false, None).unwrap();
    assert!(found.unopened && found.files.iter().all(|file| file.inside.is_empty()));
    let plain = attached("filename=a.txt", b"x");
    assert!(!inspect(&plain, false, None).unwrap().unopened);
}

#[test]
fn files_in_texts_have_names() {
    let text =
        "Date: 1\r\nFrom: a@b.example\r\n\r\nHello\r\nbegin 644 cat.exe\r\n#0V%T\r\n`\r\nend\r\n";
    let found = look(text.as_bytes());
    let hit = found
        .files
        .iter()
        .find_map(|file| Banned::default().hit(file));
    assert_eq!(hit.as_deref(), Some("name cat.exe"));
}

#[test]
fn names_of_nested_messages_and_broken_headers_count() {
    for message in [
        "From: a\r\nDate: 1\r\nContent-Type: message/rfc822; name=a.exe\r\n\r\nSubject: x\r\n\r\nx\r\n",
        "From: a\r\nDate: 1\r\nContent-Type: message/rfc822\r\n\r\nContent-Type: text/plain; name=a.exe\r\n\r\nx\r\n",
        "From: a\r\nDate: 1\r\nno field\r\nContent-Disposition: attachment; filename=a.exe\r\n\r\nx\r\n",
        "From: a\r\nDate: 1\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: x/y; name=a.exe\r\n--b--\r\n",
    ] {
        let found = look(message.as_bytes());
        let hit = found
            .files
            .iter()
            .find_map(|file| Banned::default().hit(file));
        assert_eq!(hit.as_deref(), Some("name a.exe"), "{message:?} {found:?}");
    }
}

#[test]
fn nothing_panics_on_broken_archives() {
    let seeds = [
        zip(&[("a.txt", b"hello"), ("b.zip", &zip(&[("c.exe", b"x")]))]),
        gzip(&tar(&[("a.txt", b"hello")])),
        tar(&[
            ("a.txt", b"hello"),
            ("././@LongLink", b"b.txt\0"),
            ("b", b"x"),
        ]),
    ];
    let limits = Limits::default();
    let mut state = 1u64;
    for seed in &seeds {
        for _ in 0..1500 {
            let mut bytes = seed.clone();
            for _ in 0..4 {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let at = (state >> 33) as usize % bytes.len();
                bytes[at] = (state >> 17) as u8;
            }
            bytes.truncate(bytes.len() - (state >> 40) as usize % 20);
            let budget = Budget::new(&limits, bytes.len() as u64);
            if let Some(kind) = Kind::of(&bytes) {
                let _ = Look::new(&budget).open(kind, &bytes, "a");
            }
        }
    }
}
