//! Files inside plain text: uuencode and yEnc. No MIME header tells of them, and many readers show them as attachments.

/// Files of one text that are looked at.
const FILES_MAX: usize = 1000;

/// A file inside a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inline<'a> {
    /// Its name as it stands.
    pub name: &'a [u8],
    /// What it holds; empty for yEnc, whose name alone is read.
    pub content: Vec<u8>,
}

/// All files inside a text, in order; at most a thousand.
pub fn inline(text: &[u8]) -> Vec<Inline<'_>> {
    let mut files = Vec::new();
    let mut lines = text.split(|b| *b == b'\n');
    while let Some(line) = lines.next() {
        if files.len() == FILES_MAX {
            break;
        }
        let line = line.trim_ascii_end();
        if let Some(name) = begins(line) {
            let content = uudecode(lines.by_ref());
            files.push(Inline { name, content });
        } else if let Some(name) = yenc(line) {
            let content = Vec::new();
            files.push(Inline { name, content });
        }
    }
    files
}

/// The name in `begin 644 NAME`. `begin-base64` is told by the same word in a mail's body, and by hardly any reader.
fn begins(line: &[u8]) -> Option<&[u8]> {
    let rest = line.strip_prefix(b"begin ")?;
    let mode = rest.iter().position(|b| *b == b' ')?;
    let is_mode = (3..=4).contains(&mode) && rest[..mode].iter().all(|b| (b'0'..=b'7').contains(b));
    let name = rest[mode..].trim_ascii();
    (is_mode && !name.is_empty()).then_some(name)
}

/// The name in `=ybegin line=128 size=123 name=NAME`.
fn yenc(line: &[u8]) -> Option<&[u8]> {
    const KEY: &[u8] = b" name=";
    let rest = line.strip_prefix(b"=ybegin ")?;
    let at = rest.windows(KEY.len()).position(|window| window == KEY)?;
    Some(rest[at + KEY.len()..].trim_ascii())
}

/// Lines up to `end`, or to one that is none.
fn uudecode<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let six = |b: u8| b.wrapping_sub(b' ') & 63;
    let mut out = Vec::new();
    for line in lines {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Some((length, text)) = line.split_first() else {
            break;
        };
        if line == b"end" || !(b' '..=b'`').contains(length) {
            break;
        }
        let length = usize::from(six(*length));
        let mut decoded = Vec::with_capacity(48);
        for four in text.chunks(4) {
            let at = |n: usize| six(four.get(n).copied().unwrap_or(b' '));
            decoded.push(at(0) << 2 | at(1) >> 4);
            decoded.push(at(1) << 4 | at(2) >> 2);
            decoded.push(at(2) << 6 | at(3));
        }
        decoded.truncate(length);
        out.extend(decoded);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_in_texts() {
        let text = b"Hello,\r\nbegin 644 cat.txt\r\n#0V%T\r\n`\r\nend\r\nbye\r\n\
            =ybegin line=128 size=3 name=evil.exe\r\n\x8b\r\n=yend size=3\r\n\
            begin again\r\nbegin 644 \r\nbegin 999 a\r\n";
        let files = inline(text);
        let seen: Vec<_> = files
            .iter()
            .map(|f| (f.name, f.content.as_slice()))
            .collect();
        assert_eq!(seen, [(&b"cat.txt"[..], &b"Cat"[..]), (b"evil.exe", b"")]);
    }

    #[test]
    fn nothing_panics() {
        crate::mutation::each(
            &[b"begin 644 cat.txt\r\n#0V%T\r\n`\r\nend\r\n"],
            &[b"\n", b"M", b"begin 644 a\n", b"\xff"],
            3000,
            |bytes| drop(inline(bytes)),
        );
    }
}
