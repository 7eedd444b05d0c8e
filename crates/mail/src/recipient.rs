//! The extension grammar of list addresses: one parser for edges (is this recipient known?) and listserv (what does it want?).
//!
//! `dev@`, `dev-subscribe@`, `dev-subscribe-user=host@`, `dev-unsubscribe@`, `dev-help@`, `dev-owner@`, `dev-request@`,
//! `dev-sc.TIME.COOKIE-user=host@`, `dev-uc.TIME.COOKIE-user=host@`, `dev-return-N-user=host@` (VERP), in ezmlm's manner.

use crate::address::{Address, Domain};
use crate::verdict::{Keys, same};

/// Letters of a cookie, 4 bits each.
const COOKIE_LETTERS: usize = 20;
/// What a cookie is over, so that no other use of the same keys could pass for one.
const PURPOSE: &[u8] = b"mailflow confirmation";
/// How far ahead of ours the clock of the host that made a cookie may be.
const AHEAD_SECONDS_MAX: u64 = 3600;

/// What an address below a list means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListAddress {
    /// `dev@`: a post.
    Post,
    /// `dev-subscribe@`, with the address to subscribe when it is not the sender's.
    Subscribe(Option<Address>),
    /// `dev-unsubscribe@`, likewise.
    Unsubscribe(Option<Address>),
    /// `dev-sc.TIME.COOKIE-user=host@`: a subscription confirmed. The cookie was not checked yet.
    ConfirmSubscribe(Confirmation),
    /// `dev-uc.TIME.COOKIE-user=host@`.
    ConfirmUnsubscribe(Confirmation),
    /// `dev-return-N-user=host@`: a bounce of post N to a member.
    Return {
        /// The post's number.
        number: u64,
        /// The member; `None` for `dev-return-N@` (a batch without VERP).
        member: Option<Address>,
    },
    /// `dev-help@`, `dev-info@`, `dev-faq@`.
    Help,
    /// `dev-owner@`: people who run the list.
    Owner,
    /// `dev-request@`: a command in the subject or the first line.
    Request,
}

/// A confirmation as it stands in an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirmation {
    /// When the request was made, seconds since the epoch.
    pub time_seconds: u64,
    /// 20 letters a-p.
    pub cookie: Box<str>,
    /// Who asked.
    pub member: Address,
}

/// The two requests that are confirmed by cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// `sc`.
    Subscribe,
    /// `uc`.
    Unsubscribe,
}

impl Request {
    /// `sc` or `uc`: the letters in the address, and what the cookie is bound to.
    fn as_str(self) -> &'static str {
        match self {
            Self::Subscribe => "sc",
            Self::Unsubscribe => "uc",
        }
    }
}

/// Reads the local part `local` as something below the list whose local part is `list` (both compared without case).
/// `None` when it is not below that list or its extension is unknown: then it is an unknown user.
pub fn parse(list: &str, local: &str) -> Option<ListAddress> {
    let rest = strip_list(list, local)?;
    if rest.is_empty() {
        return Some(ListAddress::Post);
    }
    let extension = rest.strip_prefix('-')?;
    let (verb, argument) = match extension.split_once('-') {
        Some((verb, argument)) => (verb, Some(argument)),
        None => (extension, None),
    };
    let member = |argument: Option<&str>| match argument {
        // `dev-subscribe-` with nothing behind it is a broken address, not a request without one.
        Some(text) => decode(text).map(Some),
        None => Some(None),
    };
    let verb = verb.to_ascii_lowercase();
    match (verb.as_str(), argument) {
        ("subscribe", _) => member(argument).map(ListAddress::Subscribe),
        ("unsubscribe", _) => member(argument).map(ListAddress::Unsubscribe),
        ("return", Some(argument)) => returned(argument),
        ("help" | "info" | "faq", None) => Some(ListAddress::Help),
        ("owner", None) => Some(ListAddress::Owner),
        ("request", None) => Some(ListAddress::Request),
        (verb, Some(argument)) => {
            let (action, stamp) = verb.split_once('.')?;
            let confirmation = confirmed(stamp, argument)?;
            match action {
                "sc" => Some(ListAddress::ConfirmSubscribe(confirmation)),
                "uc" => Some(ListAddress::ConfirmUnsubscribe(confirmation)),
                _ => None,
            }
        }
        _ => None,
    }
}

/// What stands behind the list's name. Walks characters, since the two cases of one letter need not be of one length.
fn strip_list<'a>(list: &str, local: &'a str) -> Option<&'a str> {
    let mut wanted = list.chars().flat_map(char::to_lowercase);
    let mut at = 0;
    let mut left = wanted.clone().count();
    for c in local.chars() {
        if left == 0 {
            break;
        }
        for lower in c.to_lowercase() {
            if wanted.next() != Some(lower) {
                return None;
            }
            left -= 1;
        }
        at += c.len_utf8();
    }
    (left == 0).then(|| &local[at..])
}

/// `N` or `N-user=host`.
fn returned(argument: &str) -> Option<ListAddress> {
    let (number, member) = match argument.split_once('-') {
        Some((number, member)) => (number, Some(decode(member)?)),
        None => (argument, None),
    };
    Some(ListAddress::Return {
        number: digits(number)?,
        member,
    })
}

/// `TIME.COOKIE` and `user=host`.
fn confirmed(stamp: &str, member: &str) -> Option<Confirmation> {
    let (time, cookie) = stamp.split_once('.')?;
    let whole =
        cookie.len() == COOKIE_LETTERS && cookie.bytes().all(|b| (b'a'..=b'p').contains(&b));
    Some(Confirmation {
        time_seconds: digits(time)?,
        cookie: whole.then(|| cookie.into())?,
        member: decode(member)?,
    })
}

/// A decimal number without the sign that `parse` would take.
fn digits(text: &str) -> Option<u64> {
    text.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| text.parse().ok())?
}

/// The local part of the address that confirms a request: `dev-sc.TIME.COOKIE-user=host`.
pub fn confirmation(
    list: &Address,
    request: Request,
    member: &Address,
    time_seconds: u64,
    keys: &Keys,
) -> String {
    let cookie = cookies(list, request, member, time_seconds, keys)
        .into_iter()
        .next()
        .unwrap_or_default();
    format!(
        "{}-{}.{time_seconds}.{cookie}-{}",
        list.local(),
        request.as_str(),
        encode(member)
    )
}

/// Whether the cookie is ours and not older than `valid_seconds` (ezmlm: 1,000,000) at `now_seconds`.
/// One from more than an hour ahead is refused: no clock of ours made it.
pub fn verify(
    list: &Address,
    request: Request,
    confirmation: &Confirmation,
    now_seconds: u64,
    valid_seconds: u64,
    keys: &Keys,
) -> bool {
    let time = confirmation.time_seconds;
    let fresh = time <= now_seconds.saturating_add(AHEAD_SECONDS_MAX)
        && now_seconds.saturating_sub(time) <= valid_seconds;
    let cookie = confirmation.cookie.to_ascii_lowercase();
    let ours = cookies(list, request, &confirmation.member, time, keys)
        .iter()
        .fold(false, |any, ours| {
            any | same(ours.as_bytes(), cookie.as_bytes())
        });
    fresh && ours
}

/// The cookie that each key makes, the signing key's first. Addresses count without case: mail hosts change it on the way.
fn cookies(
    list: &Address,
    request: Request,
    member: &Address,
    time_seconds: u64,
    keys: &Keys,
) -> Vec<String> {
    let (list, member) = (list.key(), member.key());
    let time = time_seconds.to_be_bytes();
    let parts: [&[u8]; 5] = [
        PURPOSE,
        list.as_bytes(),
        request.as_str().as_bytes(),
        &time,
        member.as_bytes(),
    ];
    let letter = |nibble: u8| char::from(b'a' + nibble);
    let cookie = |tag: [u8; 32]| {
        tag[..COOKIE_LETTERS / 2]
            .iter()
            .flat_map(|b| [letter(b >> 4), letter(b & 15)])
            .collect()
    };
    keys.tags(&parts).map(cookie).collect()
}

/// `user=host`, as VERP and confirmations carry an address. The last `=` parts them; `-`, `=` and `+` in a local part survive.
pub fn encode(member: &Address) -> String {
    format!("{}={}", member.local(), member.domain())
}

/// The reverse of [`encode`].
pub fn decode(text: &str) -> Option<Address> {
    let (local, domain) = text.rsplit_once('=')?;
    Address::new(local, Domain::parse(domain).ok()?).ok()
}

/// The VERP reverse-path of post `number` for `member`: `dev-return-N-user=host@host`. Falls back to `dev-return-N@host` when
/// the local part would exceed 255 octets or need SMTPUTF8.
pub fn verp(list: &Address, number: u64, member: &Address) -> Address {
    let plain = format!("{}-return-{number}", list.local());
    let local = format!("{plain}-{}", encode(member));
    let fits = local.len() <= crate::address::LOCAL_BYTES_MAX && !member.needs_smtputf8();
    list.with_local(if fits { local } else { plain })
}

#[cfg(test)]
mod tests;
