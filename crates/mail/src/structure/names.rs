//! All names that readers could give a part: every reading of `name` and `filename`, however they were written.
//!
//! Readers differ over comments, folding, quotes, escapes, repeated and continued parameters (RFC 2231), encoded words in
//! parameters (RFC 2047 5 forbids them, mailers write them), percent signs, NUL and controls. A name counts as dangerous when any
//! reading of it is, so none is left out; which of them agree is told by [`Names::extensions`].

use std::collections::BTreeSet;

use super::content::strip_comments;
use super::words;

/// Readings of one header at most: more are made to exhaust, and say so.
const READINGS_MAX: usize = 500;
/// Bytes of one reading that are looked at; file systems take 255.
const NAME_BYTES_MAX: usize = 4096;
/// Letters of an extension; `.torrent` and `.flatpakref` are long ones.
const EXTENSION_MAX: usize = 10;

/// What a header says about its part's name and type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Media types in lower case, of each Content-Type.
    pub types: BTreeSet<String>,
    /// Every reading of every name, without path, lower case.
    pub readings: BTreeSet<String>,
    /// What makes a name look like another one.
    pub disguise: Option<&'static str>,
}

impl Names {
    /// All that a header (of a part, its lines as they stand) says.
    pub fn read(header: &[u8]) -> Self {
        let mut names = Self::default();
        for (name, value) in fields(header) {
            let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
            if is("Content-Type") {
                let media = super::content::media_type(&value);
                names.types.insert(lossy(&media));
            }
            if is("Content-Type") || is("Content-Disposition") {
                names.value(&value);
            }
        }
        names
    }

    /// One name as an archive or an encoder tells it.
    pub fn one(name: &[u8]) -> Self {
        let mut names = Self::default();
        names.add(name.to_vec());
        names
    }

    /// Another name of the same thing: its readings count as this one's.
    pub fn merge(&mut self, other: Self) {
        self.types.extend(other.types);
        self.readings.extend(other.readings);
        self.disguise = self.disguise.or(other.disguise);
    }

    /// Extensions of all readings. More than one: readers differ in what they would open.
    pub fn extensions(&self) -> BTreeSet<&str> {
        self.readings.iter().filter_map(|n| extension(n)).collect()
    }

    /// A name to show: the first that has an extension.
    pub fn shown(&self) -> Option<&str> {
        let mut readings = self.readings.iter();
        let telling = readings.find(|name| extension(name).is_some());
        telling.or(self.readings.first()).map(String::as_str)
    }

    /// All readings of one field's value.
    fn value(&mut self, value: &[u8]) {
        let mut texts = BTreeSet::new();
        for text in [unfolded(value), unfolded_tight(value)] {
            texts.insert(strip_comments(&text, Some(b' ')));
            texts.insert(strip_comments(&text, None));
            texts.insert(text);
        }
        for text in texts {
            let pieces = pieces(&text);
            for piece in pieces.iter().filter(|piece| piece.index.is_none()) {
                for value in &piece.values {
                    self.encoded(piece.extended, value);
                }
            }
            for file in [true, false] {
                self.continued(&pieces, file);
            }
        }
    }

    /// A value that stands alone.
    fn encoded(&mut self, extended: bool, value: &[u8]) {
        if extended {
            let (charset, text) = words::charset(value);
            self.charset(&charset, words::percent(text));
            self.finish(value);
            return;
        }
        self.add(value.to_vec());
    }

    /// Pieces with numbers, put together in the order of their numbers and in the order in which they stand.
    fn continued(&mut self, pieces: &[Piece], file: bool) {
        let numbered = || {
            pieces
                .iter()
                .filter(|p| p.index.is_some() && p.file == file)
        };
        let mut sorted: Vec<&Piece> = numbered().collect();
        let as_it_stands = sorted.clone();
        // Stable: of two with one number some readers take the first, some the last.
        sorted.sort_by_key(|piece| piece.index);
        let mut first = sorted.clone();
        first.dedup_by_key(|piece| piece.index);
        let mut last: Vec<&Piece> = sorted.iter().rev().copied().collect();
        last.dedup_by_key(|piece| piece.index);
        last.reverse();
        for order in [as_it_stands, sorted, first, last] {
            let Some(head) = order.first() else {
                return;
            };
            let mut charset = Vec::new();
            let mut whole = Vec::new();
            for (at, piece) in order.iter().enumerate() {
                let Some(value) = piece.values.first() else {
                    continue;
                };
                let mut value = value.as_slice();
                if at == 0 && head.extended {
                    (charset, value) = words::charset(value);
                }
                match piece.extended {
                    true => whole.extend(words::percent(value)),
                    false => whole.extend_from_slice(value),
                }
            }
            self.charset(&charset, whole);
        }
    }

    fn charset(&mut self, charset: &[u8], bytes: Vec<u8>) {
        if charset.eq_ignore_ascii_case(b"utf-7") {
            self.disguise = Some("name in UTF-7");
        }
        self.add(words::plain(charset, bytes));
    }

    /// Takes a reading in, and what readers that decode further make of it.
    fn add(&mut self, bytes: Vec<u8>) {
        // Its end: that is what it is opened by.
        let bytes = &bytes[bytes.len().saturating_sub(NAME_BYTES_MAX)..];
        if bytes.windows(2).any(|pair| pair == b"=?") {
            let decoded = words::decode(bytes);
            if decoded != bytes {
                self.finish(&decoded);
                return;
            }
        }
        if bytes.contains(&b'%') {
            self.finish(&words::percent(bytes));
        }
        self.finish(bytes);
    }

    /// The name that a file would get, in each way a NUL, a path or a stream can be read.
    fn finish(&mut self, bytes: &[u8]) {
        let text = lossy(bytes);
        if text.contains('\0') {
            self.disguise.get_or_insert("NUL in a name");
            let cut = text.split('\0').next().unwrap_or_default().to_owned();
            self.insert(&cut);
        }
        if text.chars().any(is_bidi) {
            self.disguise
                .get_or_insert("name that is shown in another order");
        }
        self.insert(&text);
    }

    fn insert(&mut self, text: &str) {
        let plain: String = (text.chars())
            .filter(|c| !c.is_control() && !is_bidi(*c) && !is_invisible(*c))
            .map(|c| if is_dot(c) { '.' } else { c })
            .collect();
        let path = plain.trim_end_matches(['/', '\\']);
        let base = path.rsplit(['/', '\\']).next().unwrap_or_default();
        // `a.exe:b` and `a.exe::$DATA` are streams of a.exe.
        for name in [base, base.split(':').next().unwrap_or_default()] {
            let name = name.trim_matches(|c: char| c.is_whitespace() || c == '"' || c == '\'');
            let name = name.trim_end_matches(|c: char| c == '.' || c.is_whitespace());
            if name.is_empty() {
                continue;
            }
            if self.readings.len() == READINGS_MAX {
                self.disguise = Some("name that can be read in hundreds of ways");
                return;
            }
            self.readings.insert(name.to_lowercase());
        }
    }
}

/// The extension of a lower-case name; `None` when what stands behind the last dot is none (a version, a sentence).
pub fn extension(name: &str) -> Option<&str> {
    let (stem, extension) = name.rsplit_once('.')?;
    let extension = extension.trim();
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let telling = extension.chars().any(|c| c.is_ascii_alphabetic());
    let fits = extension.len() <= EXTENSION_MAX && extension.chars().all(plain);
    (telling && fits && !(stem.is_empty() && extension.len() > 4)).then_some(extension)
}

/// One occurrence of `name` or `filename`.
struct Piece {
    file: bool,
    index: Option<u32>,
    extended: bool,
    /// The value in each way its end and its escapes can be read.
    values: Vec<Vec<u8>>,
}

/// All occurrences, wherever a reader could see one: inside quotes and comments too.
fn pieces(text: &[u8]) -> Vec<Piece> {
    const WORD: &[u8] = b"name";
    let mut pieces = Vec::new();
    let mut at = 0;
    while let Some(found) = text.get(at..).and_then(|rest| {
        rest.windows(WORD.len())
            .position(|window| window.eq_ignore_ascii_case(WORD))
    }) {
        let start = at + found;
        at = start + WORD.len();
        let before = &text[..start];
        let file = before.len() >= 4 && before[before.len() - 4..].eq_ignore_ascii_case(b"file");
        let before = if file { &before[..start - 4] } else { before };
        let apart = |b: &u8| !b.is_ascii_alphanumeric() && !b"-_".contains(b);
        if before.last().is_some_and(|b| !apart(b)) {
            continue;
        }
        if let Some((index, extended, value)) = suffix(&text[at..]) {
            pieces.push(Piece {
                file,
                index,
                extended,
                values: values(value),
            });
        }
        if pieces.len() > READINGS_MAX {
            break;
        }
    }
    pieces
}

/// `*0*=value`: number, whether percent-encoded, and what follows the `=`.
fn suffix(text: &[u8]) -> Option<(Option<u32>, bool, &[u8])> {
    let end = text.iter().position(|b| *b == b'=')?;
    let between: Vec<u8> = (text[..end].iter().copied())
        .filter(|b| !b.is_ascii_whitespace())
        .collect();
    let value = text[end + 1..].trim_ascii_start();
    let Some(rest) = between.strip_prefix(b"*") else {
        return between.is_empty().then_some((None, false, value));
    };
    let (digits, extended) = match rest.strip_suffix(b"*") {
        Some(digits) => (digits, true),
        None => (rest, rest.is_empty()),
    };
    if digits.is_empty() {
        return Some((None, true, value));
    }
    let number = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some((Some(number), extended, value))
}

/// The value in all ways, the usual one first.
fn values(text: &[u8]) -> Vec<Vec<u8>> {
    let until = |ends: fn(&u8) -> bool| {
        let end = text.iter().position(ends).unwrap_or(text.len());
        text[..end].trim_ascii().to_vec()
    };
    let Some((b'"', quoted)) = text.split_first() else {
        let mut values = vec![until(|b| *b == b';'), until(|b| b" \t;".contains(b))];
        values.dedup();
        return values;
    };
    let naive = quoted
        .iter()
        .position(|b| *b == b'"')
        .unwrap_or(quoted.len());
    let mut value = Vec::new();
    let mut rest = quoted.iter();
    while let Some(b) = rest.next() {
        match b {
            b'"' => break,
            b'\\' => value.extend(rest.next()),
            b => value.push(*b),
        }
    }
    let behind: Vec<u8> = rest.copied().take_while(|b| *b != b';').collect();
    // What goes on behind the closing quote belongs to the value for some.
    let mut longer = value.clone();
    longer.extend(
        behind
            .iter()
            .filter(|b| **b != b'"' && !b.is_ascii_whitespace()),
    );
    let mut values = vec![value, quoted[..naive].to_vec(), longer];
    values.dedup();
    values
}

/// Fields as the laxest reader finds them: lines that are none are stepped over, and white space goes on with the last one.
fn fields(header: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut fields: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    for line in header.split_inclusive(|b| *b == b'\n') {
        if line.first().is_some_and(|b| b" \t".contains(b))
            && let Some((_, value)) = fields.last_mut()
        {
            value.extend_from_slice(line);
            continue;
        }
        let field = line.trim_ascii_start();
        let Some(colon) = field.iter().position(|b| *b == b':') else {
            continue;
        };
        fields.push((
            field[..colon].trim_ascii_end().to_vec(),
            field[colon + 1..].to_vec(),
        ));
    }
    fields
}

/// Without its line breaks (RFC 5322 2.2.3).
fn unfolded(value: &[u8]) -> Vec<u8> {
    (value.iter().copied())
        .filter(|b| !matches!(b, b'\r' | b'\n'))
        .collect()
}

/// Without its line breaks and the white space behind them.
fn unfolded_tight(value: &[u8]) -> Vec<u8> {
    let lines = value.split(|b| *b == b'\n');
    let texts = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let mut out = Vec::with_capacity(value.len());
    for (at, text) in texts.enumerate() {
        out.extend_from_slice(if at == 0 {
            text
        } else {
            text.trim_ascii_start()
        });
    }
    out
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Controls that change the order of what is shown (Unicode TR 9).
fn is_bidi(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// What is not shown at all.
fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}'
    )
}

/// Characters that file systems or shells fold to a dot.
fn is_dot(c: char) -> bool {
    matches!(c, '\u{2024}' | '\u{ff0e}' | '\u{fe52}')
}

#[cfg(test)]
mod tests;
