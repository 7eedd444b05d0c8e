//! `[banned]`: names and types that a site does not let in. The lists are data; this file holds them against a file. Pure.

use mail::structure::names::extension;
use serde::{Deserialize, Serialize};

use super::File;

/// The lists; empty ones ban nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Banned {
    /// Extensions, without dot, in lower case.
    pub extensions: Vec<Box<str>>,
    /// Extensions behind one of `disguises`.
    pub double_extensions: Vec<Box<str>>,
    /// Extensions of documents, before which another one deceives.
    pub disguises: Vec<Box<str>>,
    /// Media types as a part tells them.
    pub types: Vec<Box<str>>,
    /// Kinds by a file's first bytes.
    pub kinds: Vec<Box<str>>,
    /// Names that hold a CLSID, by which Windows opens a file whatever its extension.
    pub clsid: bool,
}

const EXTENSIONS: &[&str] = &[
    "exe",
    "com",
    "scr",
    "pif",
    "bat",
    "cmd",
    "cpl",
    "vbs",
    "vbe",
    "jse",
    "wsf",
    "wsh",
    "hta",
    "lnk",
    "scf",
    "msi",
    "msp",
    "mst",
    "reg",
    "chm",
    "ade",
    "adp",
    "appx",
    "application",
    "gadget",
    "ins",
    "isp",
    "msc",
    "settingcontent-ms",
    "url",
    "vhd",
    "vhdx",
    "iso",
    "img",
];

const DOUBLE: &[&str] = &[
    "js", "jar", "ps1", "dll", "sys", "ocx", "sh", "py", "app", "one", "xll", "html", "htm", "svg",
];

const DISGUISES: &[&str] = &[
    "doc", "docx", "xls", "xlsx", "ppt", "pptx", "pdf", "rtf", "odt", "ods", "txt", "csv", "jpg",
    "jpeg", "png", "gif", "bmp", "tif", "tiff", "mp3", "mp4", "avi", "eml", "zip",
];

const TYPES: &[&str] = &[
    "application/x-msdownload",
    "application/x-msdos-program",
    "application/x-dosexec",
    "application/hta",
    "application/x-ms-shortcut",
    "message/partial",
];

impl Default for Banned {
    fn default() -> Self {
        let list = |words: &[&str]| words.iter().map(|word| (*word).into()).collect();
        Self {
            extensions: list(EXTENSIONS),
            double_extensions: list(DOUBLE),
            disguises: list(DISGUISES),
            types: list(TYPES),
            kinds: list(&["exe", "lnk"]),
            clsid: true,
        }
    }
}

impl Banned {
    /// Why a file is banned, by any reading of its name: `name invoice.pdf.exe in a.zip`.
    pub fn hit(&self, file: &File) -> Option<String> {
        let place = if file.inside.is_empty() {
            String::new()
        } else {
            format!(" in {}", file.inside)
        };
        if let Some(name) = file.names.readings.iter().find(|name| self.bans(name)) {
            return Some(format!("name {name}{place}"));
        }
        let types = &file.names.types;
        if let Some(name) = self.types.iter().find(|name| types.contains(&***name)) {
            return Some(format!("type {name}{place}"));
        }
        let kind = file.kind?.as_str();
        let is_banned = self.kinds.iter().any(|banned| **banned == *kind);
        let name = file.names.shown().unwrap_or("unnamed");
        is_banned.then(|| format!("kind {kind}, name {name}{place}"))
    }

    /// Whether one reading is banned.
    fn bans(&self, name: &str) -> bool {
        if self.clsid && holds_clsid(name) {
            return true;
        }
        let Some(last) = extension(name) else {
            return false;
        };
        if self.extensions.iter().any(|banned| **banned == *last) {
            return true;
        }
        let stem = name
            .rsplit_once('.')
            .map_or("", |(stem, _)| stem.trim_end());
        let before = extension(stem);
        self.double_extensions
            .iter()
            .any(|banned| **banned == *last)
            && before.is_some_and(|before| self.disguises.iter().any(|known| **known == *before))
    }
}

/// `{xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx}`, with or without the closing brace.
fn holds_clsid(name: &str) -> bool {
    name.match_indices('{').any(|(at, _)| {
        let mut groups = name[at + 1..].splitn(5, '-');
        [8, 4, 4, 4, 12].iter().all(|digits| {
            let group = groups.next().unwrap_or_default();
            let hex = group.bytes().take_while(u8::is_ascii_hexdigit).count();
            hex == *digits && (group.len() == hex || *digits == 12)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::structure::kind::Kind;
    use mail::structure::names::Names;

    fn check(header: &str, kind: Option<Kind>, expected: Option<&str>) {
        let file = File {
            names: Names::read(header.as_bytes()),
            kind,
            inside: "".into(),
        };
        assert_eq!(
            Banned::default().hit(&file).as_deref(),
            expected,
            "{header}"
        );
    }

    fn named(name: &str) -> String {
        format!("Content-Disposition: attachment; filename=\"{name}\"\r\n")
    }

    #[test]
    fn what_is_banned_by_default() {
        for name in [
            "setup.exe",
            "Setup.EXE",
            "invoice.pdf.exe",
            "a.scr. .",
            "a.{00021401-0000-0000-c000-000000000046}",
            "a.{00021401-0000-0000-c000-000000000046",
            "invoice.pdf.js",
            "photo.jpg .js",
            "disk.iso",
        ] {
            let header = named(name);
            let names = Names::read(header.as_bytes());
            let hit = Banned::default().hit(&File {
                names,
                kind: None,
                inside: "".into(),
            });
            assert!(hit.is_some_and(|hit| hit.starts_with("name ")), "{name}");
        }
        for name in [
            "fix.patch",
            "app.js",
            "jquery.min.js",
            "build.sh",
            "a.tar.gz",
            "notes.txt",
            "example.com.txt",
            "report.pdf",
            "{1}.txt",
            "0001-exe.diff",
            "page.html",
        ] {
            check(&named(name), None, None);
        }
    }

    #[test]
    fn types_and_kinds() {
        let program = "Content-Type: application/X-MSDownload\r\n";
        check(program, None, Some("type application/x-msdownload"));
        check(
            &named("letter.txt"),
            Some(Kind::Exe),
            Some("kind exe, name letter.txt"),
        );
        check("", Some(Kind::Exe), Some("kind exe, name unnamed"));
        check(&named("a.zip"), Some(Kind::Zip), None);
    }
}
