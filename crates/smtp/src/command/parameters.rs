//! The ESMTP parameters of MAIL and RCPT.

use mail::envelope::{Notify, OriginalRecipient, Ret};
use mail::{Body, MailParameters, RcptParameters};

use super::{CommandError, Extensions};
use crate::xtext;

/// Characters of ENVID (RFC 3461 4.4).
const ENVID_BYTES_MAX: usize = 100;
/// Octets of ORCPT (RFC 3461 4.2).
const ORCPT_BYTES_MAX: usize = 500;

/// A decimal number; larger than 64 bits counts as the largest.
pub fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 20 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let add = |number: u64, digit: &u8| {
        number
            .saturating_mul(10)
            .saturating_add(u64::from(digit - b'0'))
    };
    Some(digits.iter().fold(0, add))
}

/// Sets a parameter once; twice is an error.
fn once<T>(slot: &mut Option<T>, name: &'static str, value: Option<T>) -> Result<(), CommandError> {
    match (slot.is_none(), value) {
        (true, Some(value)) => {
            *slot = Some(value);
            Ok(())
        }
        _ => Err(CommandError::Parameter(name)),
    }
}

/// `keyword` or `keyword=value`, keyword in upper case.
fn each(rest: &[u8]) -> impl Iterator<Item = (Vec<u8>, Option<&[u8]>)> {
    rest.split(|&byte| byte == b' ')
        .filter(|word| !word.is_empty())
        .map(|word| match word.iter().position(|&byte| byte == b'=') {
            Some(at) => (word[..at].to_ascii_uppercase(), Some(&word[at + 1..])),
            None => (word.to_ascii_uppercase(), None),
        })
}

fn unknown(keyword: &[u8]) -> CommandError {
    let name = keyword.iter().take(40).map(|&byte| {
        if byte.is_ascii_graphic() {
            char::from(byte)
        } else {
            '?'
        }
    });
    CommandError::UnknownParameter(name.collect())
}

/// The parameters of MAIL, and SIZE.
pub fn mail(
    rest: &[u8],
    extensions: &Extensions,
) -> Result<(MailParameters, Option<u64>), CommandError> {
    let mut size = None;
    let mut body = None;
    let mut smtputf8 = None;
    let mut ret = None;
    let mut envid = None;
    for (keyword, value) in each(rest) {
        match keyword.as_slice() {
            b"SIZE" if extensions.size => once(&mut size, "SIZE", value.and_then(number))?,
            b"BODY" if extensions.eight_bit_mime => {
                let read = value.and_then(|value| match value.to_ascii_uppercase().as_slice() {
                    b"7BIT" => Some(Body::SevenBit),
                    b"8BITMIME" => Some(Body::EightBitMime),
                    _ => None,
                });
                once(&mut body, "BODY", read)?;
            }
            b"SMTPUTF8" if extensions.smtputf8 => {
                once(&mut smtputf8, "SMTPUTF8", value.is_none().then_some(()))?;
            }
            b"RET" if extensions.dsn => {
                let read = value.and_then(|value| match value.to_ascii_uppercase().as_slice() {
                    b"FULL" => Some(Ret::Full),
                    b"HDRS" => Some(Ret::Headers),
                    _ => None,
                });
                once(&mut ret, "RET", read)?;
            }
            b"ENVID" if extensions.dsn => {
                let read = value
                    .filter(|value| value.is_ascii())
                    .and_then(xtext::decode);
                let read = read.filter(|text| !text.is_empty() && text.len() <= ENVID_BYTES_MAX);
                once(&mut envid, "ENVID", read.map(String::into_boxed_str))?;
            }
            _ => return Err(unknown(&keyword)),
        }
    }
    let body = body.unwrap_or_default();
    Ok((
        MailParameters {
            body,
            smtputf8: smtputf8.is_some(),
            ret,
            envid,
        },
        size,
    ))
}

/// The parameters of RCPT.
pub fn rcpt(rest: &[u8], extensions: &Extensions) -> Result<RcptParameters, CommandError> {
    let mut parameters = RcptParameters::default();
    for (keyword, value) in each(rest) {
        match keyword.as_slice() {
            b"NOTIFY" if extensions.dsn => {
                once(&mut parameters.notify, "NOTIFY", value.and_then(notify))?;
            }
            b"ORCPT" if extensions.dsn => {
                once(&mut parameters.orcpt, "ORCPT", value.and_then(orcpt))?;
            }
            _ => return Err(unknown(&keyword)),
        }
    }
    Ok(parameters)
}

fn notify(value: &[u8]) -> Option<Notify> {
    let mut notify = Notify {
        success: false,
        failure: false,
        delay: false,
    };
    if value.eq_ignore_ascii_case(b"NEVER") {
        return Some(notify);
    }
    for word in value.split(|&byte| byte == b',') {
        match word.to_ascii_uppercase().as_slice() {
            b"SUCCESS" => notify.success = true,
            b"FAILURE" => notify.failure = true,
            b"DELAY" => notify.delay = true,
            _ => return None,
        }
    }
    Some(notify)
}

fn orcpt(value: &[u8]) -> Option<OriginalRecipient> {
    if value.len() > ORCPT_BYTES_MAX {
        return None;
    }
    let at = value.iter().position(|&byte| byte == b';')?;
    let kind = std::str::from_utf8(&value[..at]).ok()?.to_ascii_lowercase();
    let atom = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if kind.is_empty() || !kind.bytes().all(atom) {
        return None;
    }
    let address = &value[at + 1..];
    // Only the type of RFC 6533 may hold 8-bit text.
    if !address.is_ascii() && kind != "utf-8" {
        return None;
    }
    let address = xtext::decode(address).filter(|address| !address.is_empty())?;
    Some(OriginalRecipient {
        kind: kind.into(),
        address: address.into(),
    })
}
