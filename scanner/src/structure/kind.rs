//! What a file is by its first bytes, whatever its name says.

/// Bytes that tell a kind: tar's mark ends here, and the header of a program points into them.
pub const HEAD_BYTES: usize = 4096;

/// A kind of file that rules or archives care about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A program for DOS or Windows.
    Exe,
    /// A program for Unix.
    Elf,
    /// A program for macOS.
    MachO,
    /// A Windows shortcut, which runs a command.
    Lnk,
    /// A compiled help file, which runs scripts.
    Chm,
    /// A cabinet.
    Cab,
    /// A zip archive: office documents and Java archives, too.
    Zip,
    /// gzip.
    Gzip,
    /// A tar archive.
    Tar,
    /// bzip2.
    Bzip2,
    /// xz.
    Xz,
    /// RAR.
    Rar,
    /// 7-Zip.
    SevenZip,
    /// A disk image.
    Iso,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Exe,
        Self::Elf,
        Self::MachO,
        Self::Lnk,
        Self::Chm,
        Self::Cab,
        Self::Zip,
        Self::Gzip,
        Self::Tar,
        Self::Bzip2,
        Self::Xz,
        Self::Rar,
        Self::SevenZip,
        Self::Iso,
    ];

    /// The word in `banned.kinds`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exe => "exe",
            Self::Elf => "elf",
            Self::MachO => "macho",
            Self::Lnk => "lnk",
            Self::Chm => "chm",
            Self::Cab => "cab",
            Self::Zip => "zip",
            Self::Gzip => "gzip",
            Self::Tar => "tar",
            Self::Bzip2 => "bzip2",
            Self::Xz => "xz",
            Self::Rar => "rar",
            Self::SevenZip => "7z",
            Self::Iso => "iso",
        }
    }

    /// The kind of a file that begins so; `None` for all others.
    pub fn of(head: &[u8]) -> Option<Self> {
        const LNK: &[u8] = b"\x4c\0\0\0\x01\x14\x02\0\0\0\0\0\xc0\0\0\0\0\0\0\x46";
        let table: [(&[u8], Self); 14] = [
            (b"\x7fELF", Self::Elf),
            (b"\xcf\xfa\xed\xfe", Self::MachO),
            (b"\xce\xfa\xed\xfe", Self::MachO),
            (LNK, Self::Lnk),
            (b"ITSF\x03\0\0\0", Self::Chm),
            (b"MSCF\0\0\0\0", Self::Cab),
            (b"PK\x03\x04", Self::Zip),
            (b"PK\x05\x06", Self::Zip),
            (b"PK00PK\x03\x04", Self::Zip),
            (b"\x1f\x8b\x08", Self::Gzip),
            (b"BZh", Self::Bzip2),
            (b"\xfd7zXZ\0", Self::Xz),
            (b"Rar!\x1a\x07", Self::Rar),
            (b"7z\xbc\xaf\x27\x1c", Self::SevenZip),
        ];
        if let Some((_, kind)) = table.iter().find(|(mark, _)| head.starts_with(mark)) {
            return Some(*kind);
        }
        if head.get(257..262) == Some(b"ustar") {
            return Some(Self::Tar);
        }
        (head.starts_with(b"MZ") && is_program(head)).then_some(Self::Exe)
    }
}

/// Whether what begins with MZ is a program and not a text: its header points at a newer one, or is no text itself.
fn is_program(head: &[u8]) -> bool {
    let newer = head.get(0x3c..0x40).map(|at| {
        let at = u32::from_le_bytes([at[0], at[1], at[2], at[3]]) as usize;
        let mark = at.checked_add(2).and_then(|end| head.get(at..end));
        matches!(mark, Some(b"PE" | b"NE" | b"LE" | b"LX"))
    });
    newer == Some(true) || head.iter().take(64).any(|b| *b < b'\t')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_by_their_first_bytes() {
        let mut tar = vec![0; 512];
        tar[257..262].copy_from_slice(b"ustar");
        for (head, expected) in [
            (&b"PK\x03\x04rest"[..], Some(Kind::Zip)),
            (b"\x1f\x8b\x08\0", Some(Kind::Gzip)),
            (&tar, Some(Kind::Tar)),
            (b"MZ\x90\0\x03\0\0\0", Some(Kind::Exe)),
            (b"MZ is how this letter begins, and it is none.", None),
            (b"MZ", None),
            (b"", None),
            (b"Hello", None),
        ] {
            assert_eq!(Kind::of(head), expected, "{head:?}");
        }
    }
}
