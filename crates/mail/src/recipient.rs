//! The extension grammar of list addresses: one parser for edges (is this recipient known?) and listserv (what does it want?).
//!
//! `dev@`, `dev-subscribe@`, `dev-subscribe-user=host@`, `dev-unsubscribe@`, `dev-help@`, `dev-owner@`, `dev-request@`,
//! `dev-sc.TIME.COOKIE-user=host@`, `dev-uc.TIME.COOKIE-user=host@`, `dev-return-N-user=host@` (VERP), in ezmlm's manner.

use crate::address::Address;
use crate::verdict::Keys;

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

/// Reads the local part of `address` as something below the list whose local part is `list` (both compared without case).
/// `None` when it is not below that list or its extension is unknown: then it is an unknown user.
pub fn parse(list: &str, local: &str) -> Option<ListAddress> {
    todo!("{list} {local}")
}

/// The local part of the address that confirms a request: `dev-sc.TIME.COOKIE-user=host`.
pub fn confirmation(
    list: &Address,
    request: Request,
    member: &Address,
    time_seconds: u64,
    keys: &Keys,
) -> String {
    todo!("{list} {request:?} {member} {time_seconds} {keys:?}")
}

/// Whether the cookie is ours and not older than `valid_seconds` (ezmlm: 1,000,000) at `now_seconds`.
pub fn verify(
    list: &Address,
    request: Request,
    confirmation: &Confirmation,
    now_seconds: u64,
    valid_seconds: u64,
    keys: &Keys,
) -> bool {
    todo!("{list} {request:?} {confirmation:?} {now_seconds} {valid_seconds} {keys:?}")
}

/// `user=host`, as VERP and confirmations carry an address. The last `=` parts them; `-`, `=` and `+` in a local part survive.
pub fn encode(member: &Address) -> String {
    todo!("{member}")
}

/// The reverse of [`encode`].
pub fn decode(text: &str) -> Option<Address> {
    todo!("{text}")
}

/// The VERP reverse-path of post `number` for `member`: `dev-return-N-user=host@host`. Falls back to `dev-return-N@host` when
/// the local part would exceed 255 octets or need SMTPUTF8.
pub fn verp(list: &Address, number: u64, member: &Address) -> Address {
    todo!("{list} {number} {member}")
}
