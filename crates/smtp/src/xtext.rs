//! xtext: the `+HH` encoding of parameter values (RFC 3461 4). Owns nothing; never lets a control character through.

/// Decodes xtext. `None` when it is malformed, or what it encodes is not printable UTF-8.
pub fn decode(text: &[u8]) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => {
                let high = hexadecimal(bytes.next()?)?;
                let low = hexadecimal(bytes.next()?)?;
                decoded.push(high << 4 | low);
            }
            // `=` would be ambiguous, says the grammar; the value of a parameter is already cut, so it does no harm.
            b'!'..=b'~' | 0x80.. => decoded.push(byte),
            _ => return None,
        }
    }
    let decoded = String::from_utf8(decoded).ok()?;
    (!decoded.chars().any(char::is_control)).then_some(decoded)
}

/// Appends the xtext of `text`.
pub fn encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'!'..=b'~' if byte != b'+' && byte != b'=' => out.push(char::from(byte)),
            _ => {
                const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
                out.push('+');
                out.push(char::from(DIGITS[usize::from(byte >> 4)]));
                out.push(char::from(DIGITS[usize::from(byte & 15)]));
            }
        }
    }
}

fn hexadecimal(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        // The grammar has upper case only; lower case is not ambiguous.
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes() {
        for (text, expected) in [
            ("", Some("")),
            ("plain", Some("plain")),
            ("a+2Bb+3Dc", Some("a+b=c")),
            ("a+2bb", Some("a+b")),
            ("joe+20blow", Some("joe blow")),
            ("+", None),
            ("+2", None),
            ("+G0", None),
            ("a b", None),
            ("a+0D+0Ab", None),
            ("a+00b", None),
            ("a+7Fb", None),
            ("a+C3", None),
            ("a+C3+A9", Some("aé")),
        ] {
            assert_eq!(decode(text.as_bytes()).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_encoded_decodes() {
        for text in ["", "plain", "a+b=c d", "é \u{1f600}", "~!"] {
            let mut encoded = String::new();
            encode(text, &mut encoded);
            assert!(
                encoded.bytes().all(|byte| byte.is_ascii_graphic()),
                "{encoded}"
            );
            assert_eq!(decode(encoded.as_bytes()).as_deref(), Some(text));
        }
    }
}
