//! Undoing base64 and quoted-printable for the pre-scan, as the laxest reader does: nothing that a parser could decode stays hidden.

/// Decodes base64 as the laxest reader does: what is no letter of it is stepped over.
pub(super) fn base64(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held) = (0u32, 0);
    for b in text {
        let six = match b {
            b'A'..=b'Z' => b - b'A',
            b'a'..=b'z' => b - b'a' + 26,
            b'0'..=b'9' => b - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => {
                held = 0;
                continue;
            }
            _ => continue,
        };
        bits = bits << 6 | u32::from(six);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
        }
    }
    out
}

/// Decodes quoted-printable as the laxest reader does: a `=` that starts nothing stands for itself.
pub(super) fn quoted_printable(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((b, behind)) = rest.split_first() {
        rest = behind;
        if *b != b'=' {
            out.push(*b);
            continue;
        }
        let digit = |at: usize| behind.get(at).and_then(|b| char::from(*b).to_digit(16));
        if let (Some(high), Some(low)) = (digit(0), digit(1)) {
            out.push((high * 16 + low) as u8);
            rest = &behind[2..];
        } else if let Some(soft) = soft_break(behind) {
            rest = &behind[soft..];
        } else {
            out.push(b'=');
        }
    }
    out
}

/// The length of white space and line break behind a `=` (RFC 2045 6.7, rule 5).
fn soft_break(text: &[u8]) -> Option<usize> {
    let spaces = (text.iter())
        .take_while(|b| matches!(b, b' ' | b'\t'))
        .count();
    match &text[spaces..] {
        [b'\r', b'\n', ..] => Some(spaces + 2),
        [b'\n', ..] => Some(spaces + 1),
        _ => None,
    }
}
