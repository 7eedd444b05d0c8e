//! Claims about verdicts, with the real spamd and clamd.

#![allow(clippy::unwrap_used)]

mod common;

use common::daemons::Daemons;
use common::edge::{field, live, message};
use common::list_host::ListHost;
use common::{Scanner, Setup};
use mail::verdict::Class;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

struct World {
    daemons: Daemons,
    list_host: ListHost,
    scanner: Scanner,
}

impl World {
    async fn start() -> Self {
        let daemons = Daemons::start();
        let list_host = ListHost::start().await;
        let setup = Setup {
            spamd: daemons.spamd_address(),
            clamd: daemons.clamd_address(),
            list_host: Some(list_host.address),
            ..Setup::default()
        };
        let scanner = Scanner::ready(&setup).await;
        Self {
            daemons,
            list_host,
            scanner,
        }
    }
}

fn gtube() -> String {
    let canary = String::from_utf8(scanner::health::gtube()).unwrap();
    canary.split_once("\r\n\r\n").unwrap().1.to_owned()
}

fn eicar() -> String {
    String::from_utf8(scanner::health::eicar()).unwrap()
}

/// A message with one attachment.
fn attached(content: &[u8], name: &str) -> bytes::Bytes {
    let text = String::from_utf8(message("attached", "").to_vec()).unwrap();
    let base64 = BASE64.encode(content);
    let lines: Vec<&str> = base64
        .as_bytes()
        .chunks(76)
        .map(|l| std::str::from_utf8(l).unwrap())
        .collect();
    let parts = format!(
        "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nSee attachment.\r\n\
         --b\r\nContent-Type: application/octet-stream; name={name}\r\nContent-Transfer-Encoding: base64\r\n\r\n\
         {}\r\n--b--\r\n",
        lines.join("\r\n")
    );
    let head = text.split_once("\r\n\r\n").unwrap().0;
    format!("{head}\r\n{parts}").into_bytes().into()
}

/// A zip archive with one stored file.
fn zip(content: &[u8]) -> Vec<u8> {
    let mut crc = !0u32;
    for &byte in content {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 {
                (crc >> 1) ^ 0xEDB8_8320
            } else {
                crc >> 1
            };
        }
    }
    let (crc, size) = ((!crc).to_le_bytes(), (content.len() as u32).to_le_bytes());
    let common = [
        &[10, 0, 0, 0, 0, 0, 0, 0, 0x21, 0x5a][..],
        &crc,
        &size,
        &size,
        &[5, 0, 0, 0],
    ]
    .concat();
    let local = [b"PK\x03\x04", &common[..], b"a.com", content].concat();
    let central = [b"PK\x01\x02\x14\x00", &common[..], &[0; 14], b"a.com"].concat();
    let (length, offset) = (
        (central.len() as u32).to_le_bytes(),
        (local.len() as u32).to_le_bytes(),
    );
    let end = [
        b"PK\x05\x06\0\0\0\0\x01\0\x01\0",
        &length[..],
        &offset,
        &[0, 0],
    ]
    .concat();
    [local, central, end].concat()
}

#[tokio::test]
async fn ham_passes_with_its_fields() {
    let world = World::start().await;
    let attempt = live(message(
        "Minutes",
        "Hello Bob,\r\n\r\nhere are the minutes of the meeting.",
    ));
    let (code, reply) = attempt.code(&world.scanner).await;
    assert_eq!(code, "250 2.0.0", "{reply}");
    let (_, verdict, rest) = world.list_host.only().opened();
    assert_eq!(verdict.class, Class::Clean);
    assert!(field(&rest, "X-Spam-Status").starts_with("No, score="));
    assert!(field(&rest, "X-Virus-Scanned").starts_with("ClamAV "));
    assert!(
        rest.ends_with(&attempt.message),
        "the message itself is untouched"
    );
}

#[tokio::test]
async fn spam_and_malware_are_refused() {
    let world = World::start().await;
    let table = [
        ("spam", message("spam", &gtube()), "GTUBE"),
        ("plain", message("plain", &eicar()), "Eicar"),
        ("base64", attached(eicar().as_bytes(), "a.com"), "Eicar"),
        ("zip", attached(&zip(eicar().as_bytes()), "a.zip"), "Eicar"),
    ];
    for (name, message, word) in table {
        let (code, reply) = live(message).code(&world.scanner).await;
        assert_eq!(code, "550 5.7.1", "{name}: {reply}");
        let log = world.scanner.log();
        assert!(
            reply.text().contains(word) || log.contains(word),
            "{name}: {reply}"
        );
    }
    assert!(world.list_host.arrived().is_empty());
}

#[tokio::test]
async fn the_foreign_test_files_are_found() {
    let world = World::start().await;
    let mut seen = 0;
    let folder = std::fs::read_dir("/usr/share/clamav-testfiles");
    let folder = folder.expect("apt-get install clamav-testfiles, or `make test`, which does it");
    for entry in folder {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if ![
            "clam.exe",
            "clam.zip",
            "clam.7z",
            "clam.tar.gz",
            "clam.ole.doc",
        ]
        .contains(&name.as_str())
        {
            continue;
        }
        let content = std::fs::read(&path).unwrap();
        let (code, reply) = live(attached(&content, &name)).code(&world.scanner).await;
        assert_eq!(code, "550 5.7.1", "{name}: {reply}");
        seen += 1;
    }
    assert_eq!(seen, 5);
}

#[tokio::test]
async fn a_daemon_that_is_gone_defers_until_it_is_back() {
    let mut world = World::start().await;
    let ham = || live(message("Minutes", "Hello Bob, here are the minutes."));
    world.daemons.stop_spamd().await;
    let (code, reply) = ham().code(&world.scanner).await;
    assert_eq!(code, "451 4.3.0", "{reply}");
    assert!(reply.text().contains("spamd"), "{reply}");
    world.scanner.becomes("down").await;
    world.daemons.start_spamd();
    world.scanner.becomes("ready").await;
    world.daemons.stop_clamd().await;
    let (code, reply) = ham().code(&world.scanner).await;
    assert_eq!(code, "451 4.3.0", "{reply}");
    assert!(reply.text().contains("clamd"), "{reply}");
    world.scanner.becomes("down").await;
    world.daemons.start_clamd();
    world.scanner.becomes("ready").await;
    let (code, reply) = ham().code(&world.scanner).await;
    assert_eq!(code, "250 2.0.0", "{reply}");
    assert_eq!(world.list_host.arrived().len(), 1);
}

#[tokio::test]
async fn the_command_shows_a_files_verdict() {
    let world = World::start().await;
    let table = [
        ("ham", "Hello Bob, here are the minutes.", "clean"),
        ("spam", &gtube(), "spam"),
    ];
    for (name, body, class) in table {
        let file = world.scanner.dir().join(name);
        // As files on this host are: with lone line feeds.
        let text = String::from_utf8(message(name, body).to_vec()).unwrap();
        std::fs::write(&file, text.replace("\r\n", "\n")).unwrap();
        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_scanner"))
            .arg("--config")
            .arg(world.scanner.config())
            .args(["verdict", &file.display().to_string()])
            .output()
            .await
            .unwrap();
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{output:?}");
        assert!(shown.starts_with(class), "{shown}");
        assert!(shown.contains("signatures: ClamAV"), "{shown}");
    }
    assert!(world.list_host.arrived().is_empty());
}
