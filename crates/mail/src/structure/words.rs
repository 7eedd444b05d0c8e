//! Undoing what names are encoded with: percent signs (RFC 2231), encoded words (RFC 2047). As lax as the laxest reader; total.

use super::transfer;

/// `charset'language'text`: the charset in lower case, and the text. Without quotes all is text.
pub(super) fn charset(value: &[u8]) -> (Vec<u8>, &[u8]) {
    let mut parts = value.splitn(3, |b| *b == b'\'');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(charset), Some(_), Some(text)) => (charset.to_ascii_lowercase(), text),
        _ => (Vec::new(), value),
    }
}

/// Percent-encoded bytes decoded; a `%` that starts nothing stands for itself.
pub(super) fn percent(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((b, behind)) = rest.split_first() {
        rest = behind;
        let digit = |at: usize| behind.get(at).and_then(|b| char::from(*b).to_digit(16));
        match (b, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                rest = &behind[2..];
            }
            _ => out.push(*b),
        }
    }
    out
}

/// Text in a charset as far as its ASCII goes: in those of two and four bytes a character it stands between NULs.
pub(super) fn plain(charset: &[u8], bytes: Vec<u8>) -> Vec<u8> {
    let wide = [&b"utf-16"[..], b"utf-32", b"ucs-2", b"ucs-4", b"iso-10646"];
    match wide.iter().any(|name| charset.starts_with(name)) {
        true => bytes.into_iter().filter(|b| *b != 0).collect(),
        false => bytes,
    }
}

/// All encoded words decoded, and white space between two of them taken out (RFC 2047 6.2).
pub(crate) fn decode(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    let mut behind_word = false;
    while let Some(start) = rest.windows(2).position(|pair| pair == b"=?") {
        let between = &rest[..start];
        let Some((word, length)) = word(&rest[start..]) else {
            out.extend_from_slice(&rest[..start + 2]);
            rest = &rest[start + 2..];
            behind_word = false;
            continue;
        };
        if !(behind_word && between.iter().all(u8::is_ascii_whitespace)) {
            out.extend_from_slice(between);
        }
        out.extend(word);
        rest = &rest[start + length..];
        behind_word = true;
    }
    out.extend_from_slice(rest);
    out
}

/// `=?charset?encoding?text?=` decoded, and its length.
fn word(text: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut parts = text[2..].splitn(3, |b| *b == b'?');
    let (charset, encoding, rest) = (parts.next()?, parts.next()?, parts.next()?);
    let end = rest.windows(2).position(|pair| pair == b"?=")?;
    let body = &rest[..end];
    let decoded = match encoding {
        b"B" | b"b" => transfer::base64(body),
        b"Q" | b"q" => {
            let spaced: Vec<u8> = body
                .iter()
                .map(|b| if *b == b'_' { b' ' } else { *b })
                .collect();
            transfer::quoted_printable(&spaced)
        }
        _ => return None,
    };
    let charset = charset.to_ascii_lowercase();
    let length = 2 + charset.len() + 1 + encoding.len() + 1 + end + 2;
    Some((plain(&charset, decoded), length))
}
