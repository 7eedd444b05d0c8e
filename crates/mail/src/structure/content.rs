//! What a Content-Type says about structure, read in several ways at once (RFC 2045 5.1, RFC 2231).
//!
//! Readers differ over comments, quotes, escapes, white space and repeated parameters. One kind comes back when they agree.

use super::Objection;

/// The longest boundary that is taken for one. RFC 2046 5.1.1 says 70; mailers exist that go beyond.
const BOUNDARY_BYTES_MAX: usize = 200;

const ONLY_SOME: Objection = Objection::Ambiguous("boundary that only some readers find");

/// What kind of thing a part is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// No (readable) Content-Type: text, or a message inside multipart/digest.
    Untyped,
    /// Something without structure of its own.
    Leaf,
    /// multipart/* with its boundary.
    Multipart { boundary: Box<[u8]>, digest: bool },
    /// message/rfc822 and its like: another header follows.
    Message,
}

/// Reads the value of one Content-Type field.
pub(super) fn read(value: &[u8]) -> Result<Kind, Objection> {
    let value: Vec<u8> = (value.iter().copied())
        .filter(|b| !matches!(b, b'\r' | b'\n'))
        .collect();
    let without_comments = strip_comments(&value, Some(b' '));
    let kind = media_kind(&without_comments);
    if media_kind(&value) != kind {
        return Err(Objection::Ambiguous("comment in a Content-Type"));
    }
    match kind {
        Media::None => Ok(Kind::Untyped),
        Media::Leaf => Ok(Kind::Leaf),
        Media::Message => Ok(Kind::Message),
        Media::Odd => Err(Objection::Ambiguous("malformed Content-Type")),
        Media::Multipart { digest } => Ok(match boundary(&value, &without_comments)? {
            Some(boundary) => Kind::Multipart { boundary, digest },
            // Nobody can find parts without one.
            None => Kind::Leaf,
        }),
    }
}

/// `type/subtype` in lower case, for telling two fields apart.
pub(super) fn media_type(value: &[u8]) -> Vec<u8> {
    let plain = strip_comments(value, Some(b' '));
    (plain.iter())
        .take_while(|b| **b != b';')
        .filter(|b| !b.is_ascii_whitespace())
        .map(u8::to_ascii_lowercase)
        .collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Media {
    None,
    Leaf,
    Message,
    Multipart {
        digest: bool,
    },
    /// No media type to a strict reader, something with structure to a lax one.
    Odd,
}

fn media_kind(text: &[u8]) -> Media {
    let head = text.split(|b| *b == b';').next().unwrap_or_default();
    let head = head.trim_ascii().to_ascii_lowercase();
    let token = (head.split(|b| b.is_ascii_whitespace() || matches!(b, b'(' | b',')))
        .next()
        .unwrap_or_default();
    let is_plain = |b: &u8| b.is_ascii_alphanumeric() || b"!#$&^_.+-/".contains(b);
    let plain = token.iter().all(is_plain);
    match token {
        b"" if head.is_empty() => return Media::None,
        b"message/rfc822" | b"message/global" | b"message/news" => return Media::Message,
        b"multipart/digest" => return Media::Multipart { digest: true },
        _ if plain && token.starts_with(b"multipart/") => {
            return Media::Multipart { digest: false };
        }
        _ => {}
    }
    if head.len() == token.len() && plain && !token.starts_with(b"multipart") {
        return Media::Leaf;
    }
    // Lax readers step over quotes, white space and what else does not belong there.
    let lax: Vec<u8> = (head.iter().copied())
        .filter(u8::is_ascii_alphanumeric)
        .collect();
    let holds = |needle: &[u8]| lax.windows(needle.len()).any(|window| window == needle);
    if holds(b"multipart") || holds(b"messagerfc822") || holds(b"messageglobal") {
        Media::Odd
    } else {
        Media::Leaf
    }
}

/// Text without its comments (`space` in place of each); quoted strings are left as they are. Linear, whatever the nesting.
pub(super) fn strip_comments(text: &[u8], space: Option<u8>) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut depth = 0usize;
    let mut quoted = false;
    let mut bytes = text.iter().copied();
    while let Some(b) = bytes.next() {
        if b == b'\\' && (quoted || depth > 0) {
            let escaped = bytes.next();
            if depth == 0 {
                out.push(b);
                out.extend(escaped);
            }
            continue;
        }
        match b {
            b'"' if depth == 0 => quoted = !quoted,
            b'(' if !quoted => {
                depth += 1;
                if depth == 1 {
                    out.extend(space);
                }
                continue;
            }
            b')' if !quoted && depth > 0 => {
                depth -= 1;
                continue;
            }
            _ => {}
        }
        if depth == 0 {
            out.push(b);
        }
    }
    out
}

/// The boundary on which all readings agree.
fn boundary(raw: &[u8], without_comments: &[u8]) -> Result<Option<Box<[u8]>>, Objection> {
    let mut agreed: Option<Vec<u8>> = None;
    let mut add = |reading: Vec<u8>| match &agreed {
        Some(first) if *first != reading => Err(Objection::Ambiguous(
            "boundary that can be read in two ways",
        )),
        Some(_) => Ok(()),
        None => {
            agreed = Some(reading);
            Ok(())
        }
    };
    let strict = strict_readings(without_comments)?;
    let found = !strict.is_empty();
    for reading in strict {
        add(reading)?;
    }
    for reading in lax_readings(raw)? {
        if !found {
            return Err(ONLY_SOME);
        }
        add(reading.to_vec())?;
    }
    let Some(boundary) = agreed else {
        return Ok(None);
    };
    // Quotes and escapes are read in more ways than two when they stand where none belongs.
    let printable =
        (boundary.iter()).all(|b| matches!(b, b' '..=b'~') && *b != b'"' && *b != b'\\');
    if boundary.len() > BOUNDARY_BYTES_MAX {
        return Err(Objection::BoundaryTooLong(BOUNDARY_BYTES_MAX));
    }
    if boundary.is_empty() || !printable {
        return Err(Objection::Ambiguous("empty or unprintable boundary"));
    }
    // Some readers drop what follows a fold behind the `=`, and go on with the next parameter.
    if boundary.to_ascii_lowercase().starts_with(b"boundary=") {
        return Err(ONLY_SOME);
    }
    if boundary.trim_ascii().len() != boundary.len() {
        return Err(Objection::Ambiguous("white space at an end of a boundary"));
    }
    Ok(Some(boundary.into()))
}

/// The values of `boundary` as a reader of RFC 2045's grammar finds them: parameter after parameter, quotes and escapes undone.
fn strict_readings(text: &[u8]) -> Result<Vec<Vec<u8>>, Objection> {
    let mut readings = Vec::new();
    let mut rest = match text.iter().position(|b| *b == b';') {
        Some(at) => &text[at + 1..],
        None => return Ok(readings),
    };
    while !rest.is_empty() {
        let name_end = (rest.iter())
            .position(|b| matches!(b, b'=' | b';'))
            .unwrap_or(rest.len());
        let name = rest[..name_end].trim_ascii().to_ascii_lowercase();
        rest = &rest[name_end..];
        let value;
        (value, rest) = match rest.split_first() {
            Some((b'=', behind)) => parameter_value(behind.trim_ascii_start())?,
            _ => (Vec::new(), rest),
        };
        if name == b"boundary" {
            readings.push(value);
        } else if name.starts_with(b"boundary*") {
            return Err(Objection::Ambiguous("boundary in the form of RFC 2231"));
        }
        // Whatever stands between a value and the next semicolon belongs to nobody.
        rest = match rest.iter().position(|b| *b == b';') {
            Some(at) => &rest[at + 1..],
            None => &[],
        };
    }
    Ok(readings)
}

/// A parameter's value, and what follows it.
fn parameter_value(text: &[u8]) -> Result<(Vec<u8>, &[u8]), Objection> {
    let Some((b'"', mut rest)) = text.split_first() else {
        // Readers exist that take white space into the value; the lax reading ends there, so that the two differ.
        let end = (text.iter().position(|b| *b == b';')).unwrap_or(text.len());
        return Ok((text[..end].trim_ascii().to_vec(), &text[end..]));
    };
    let mut value = Vec::new();
    while let Some((b, behind)) = rest.split_first() {
        rest = behind;
        match b {
            b'"' => return Ok((value, rest)),
            b'\\' => {
                let Some((escaped, behind)) = rest.split_first() else {
                    break;
                };
                value.push(*escaped);
                rest = behind;
            }
            b => value.push(*b),
        }
    }
    Err(Objection::Ambiguous(
        "quote that does not end in a Content-Type",
    ))
}

/// The values of `boundary` as a reader finds them who searches for the word: inside quotes and comments too, escapes kept.
fn lax_readings(text: &[u8]) -> Result<Vec<&[u8]>, Objection> {
    const WORD: &[u8] = b"boundary";
    let mut readings = Vec::new();
    let mut rest = text;
    let mut before = None;
    while let Some(found) =
        (rest.windows(WORD.len())).position(|window| window.eq_ignore_ascii_case(WORD))
    {
        before = found.checked_sub(1).map(|at| rest[at]).or(before);
        rest = &rest[found + WORD.len()..];
        if before.is_some_and(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
            continue;
        }
        let Some((b'=', value)) = rest.trim_ascii_start().split_first() else {
            return Err(ONLY_SOME);
        };
        let value = value.trim_ascii_start();
        let (value, ends): (_, fn(&u8) -> bool) = match value.split_first() {
            Some((b'"', quoted)) => (quoted, |b| *b == b'"'),
            _ => (value, |b| *b == b';' || b.is_ascii_whitespace()),
        };
        let end = value.iter().position(ends).unwrap_or(value.len());
        readings.push(&value[..end]);
        // The value may hold the word itself.
        rest = &value[end..];
        before = None;
    }
    Ok(readings)
}
