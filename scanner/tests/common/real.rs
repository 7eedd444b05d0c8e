//! A scanner between an edge and a list host that the test plays, with the real spamd and clamd; and mail that they know.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::daemons::Daemons;
use super::edge::message;
use super::list_host::ListHost;
use super::{Scanner, Setup};

/// The real daemons behind a scanner.
pub struct World {
    pub daemons: Daemons,
    pub list_host: ListHost,
    pub scanner: Scanner,
}

impl World {
    pub async fn start() -> Self {
        Self::with("").await
    }

    /// With `more` in the scanner's configuration.
    pub async fn with(more: &str) -> Self {
        let daemons = Daemons::start();
        let list_host = ListHost::start().await;
        let setup = Setup {
            spamd: vec![daemons.spamd_address()],
            clamd: vec![daemons.clamd_address()],
            list_host: Some(list_host.address),
            more: more.into(),
        };
        let scanner = Scanner::ready(&setup).await;
        Self {
            daemons,
            list_host,
            scanner,
        }
    }
}

pub fn gtube() -> String {
    let canary = String::from_utf8(scanner::canary::gtube()).unwrap();
    canary.split_once("\r\n\r\n").unwrap().1.to_owned()
}

pub fn eicar() -> String {
    String::from_utf8(scanner::canary::eicar()).unwrap()
}

/// A message with one attachment.
pub fn attached(content: &[u8], name: &str) -> bytes::Bytes {
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
pub fn zip(content: &[u8]) -> Vec<u8> {
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
