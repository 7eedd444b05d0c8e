//! The path of MAIL and RCPT: `FROM:<...>` cut from what follows it (RFC 5321 4.1.2).

use mail::address::AddressError;

use super::CommandError;

/// Splits the arguments behind the verb into what stands between the angle brackets and the parameters.
///
/// A space after the colon is tolerated, as everybody does; text glued to the closing bracket is not.
pub fn split<'a>(
    arguments: &'a [u8],
    keyword: &[u8],
    form: &'static str,
) -> Result<(&'a [u8], &'a [u8]), CommandError> {
    let syntax = || CommandError::Syntax(form);
    let (found, rest) = arguments
        .split_at_checked(keyword.len())
        .ok_or_else(syntax)?;
    if !found.eq_ignore_ascii_case(keyword) {
        return Err(syntax());
    }
    let path = rest
        .trim_ascii_start()
        .strip_prefix(b"<")
        .ok_or_else(syntax)?;
    let end = close(path).ok_or_else(syntax)?;
    let rest = &path[end + 1..];
    if !rest.is_empty() && !rest.starts_with(b" ") {
        return Err(syntax());
    }
    let path = &path[..end];
    Ok((without_route(path).ok_or_else(syntax)?, rest))
}

/// The path as text.
pub fn text(path: &[u8]) -> Result<&str, AddressError> {
    std::str::from_utf8(path).map_err(|_| AddressError::Unexpected('\u{fffd}'))
}

/// Where the closing bracket is: the first one outside of a quoted string.
fn close(path: &[u8]) -> Option<usize> {
    let mut quoted = false;
    let mut at = 0;
    while let Some(&byte) = path.get(at) {
        match byte {
            b'"' => quoted = !quoted,
            b'\\' if quoted => at += 1,
            b'>' if !quoted => return Some(at),
            _ => {}
        }
        at += 1;
    }
    None
}

/// Source routes are accepted and ignored (RFC 5321 4.1.1.3, appendix F.2).
fn without_route(path: &[u8]) -> Option<&[u8]> {
    if !path.starts_with(b"@") {
        return Some(path);
    }
    let mut at = 0;
    loop {
        // Each hop is `@` and a domain or an address literal; an IPv6 literal holds colons.
        let hop = path[at..].strip_prefix(b"@")?;
        let skip = if hop.starts_with(b"[") {
            hop.iter().position(|&byte| byte == b']')?
        } else {
            0
        };
        let end = skip
            + hop[skip..]
                .iter()
                .position(|&byte| byte == b',' || byte == b':')?;
        at += 1 + end + 1;
        if end == 0 {
            return None;
        }
        if hop[end] == b':' {
            return Some(&path[at..]);
        }
    }
}
