//! How the hold and the orders of a batch, and the ledger, are packed.

use super::codec::{Malformed, Put, Take};
use crate::selection::Order;
use crate::{Action, Ends, HoldId, Ledger, Pattern};

const HAS_RECIPIENT: u8 = 1;
const HAS_HELD: u8 = 2;
const HELD: u8 = 4;
const HAS_HOLD: u8 = 8;
const HAS_REPLY: u8 = 16;

const HOLD: u8 = 1;
const RELEASE: u8 = 2;
const RETRY: u8 = 3;
const DROP: u8 = 4;

/// Packs what a batch is held by.
pub fn put_hold(out: &mut Vec<u8>, hold: Option<HoldId>) {
    out.put_u8(u8::from(hold.is_some()));
    if let Some(hold) = hold {
        out.put_number(hold.0);
    }
}

/// Unpacks it.
pub fn take_hold(take: &mut Take<'_>) -> Result<Option<HoldId>, Malformed> {
    match take.u8("hold")? {
        0 => Ok(None),
        1 => Ok(Some(HoldId(take.number("hold")?))),
        _ => Err(take.bad("hold")),
    }
}

/// Packs orders. Those that only count are left out: they change nothing.
pub fn put_orders(out: &mut Vec<u8>, orders: &[Order]) {
    let kinds = orders.iter().map(|order| kind(order.action));
    let all = orders.iter().zip(kinds);
    let told: Vec<_> = all
        .filter_map(|(order, kind)| Some((order, kind?)))
        .collect();
    out.put_number(told.len() as u64);
    for (order, (kind, hold)) in told {
        let mut flags = 0;
        if order.recipient.is_some() {
            flags |= HAS_RECIPIENT;
        }
        if let Some(held) = order.held {
            flags |= HAS_HELD | if held { HELD } else { 0 };
        }
        if order.hold.is_some() {
            flags |= HAS_HOLD;
        }
        if order.reply.is_some() {
            flags |= HAS_REPLY;
        }
        out.put_u8(flags);
        if let Some(pattern) = &order.recipient {
            out.put_bytes(pattern.text().as_bytes());
        }
        if let Some(text) = &order.reply {
            out.put_bytes(text.as_bytes());
        }
        if let Some(hold) = order.hold {
            out.put_number(hold.0);
        }
        out.put_u8(kind);
        if let Some(hold) = hold {
            out.put_number(hold.0);
        }
    }
}

fn kind(action: Action) -> Option<(u8, Option<HoldId>)> {
    match action {
        Action::Count => None,
        Action::Hold(hold) => Some((HOLD, Some(hold))),
        Action::Release => Some((RELEASE, None)),
        Action::Retry => Some((RETRY, None)),
        Action::Drop => Some((DROP, None)),
    }
}

/// Unpacks orders.
pub fn take_orders(take: &mut Take<'_>) -> Result<Vec<Order>, Malformed> {
    let count = take.number("orders")?;
    let mut orders = Vec::new();
    for _ in 0..count {
        let flags = take.u8("order")?;
        let recipient = match flags & HAS_RECIPIENT {
            0 => None,
            _ => Some(Pattern::new(take.text("pattern")?)),
        };
        let reply = match flags & HAS_REPLY {
            0 => None,
            _ => Some(take.text("reply")?.into()),
        };
        let hold = match flags & HAS_HOLD {
            0 => None,
            _ => Some(HoldId(take.number("hold")?)),
        };
        let action = match take.u8("action")? {
            HOLD => Action::Hold(HoldId(take.number("hold")?)),
            RELEASE => Action::Release,
            RETRY => Action::Retry,
            DROP => Action::Drop,
            _ => return Err(take.bad("action")),
        };
        orders.push(Order {
            recipient,
            reply,
            held: (flags & HAS_HELD != 0).then_some(flags & HELD != 0),
            hold,
            action,
        });
    }
    Ok(orders)
}

/// Packs an account, all but what waits.
pub fn put_ledger(out: &mut Vec<u8>, ledger: &Ledger) {
    let ends = &ledger.ends;
    for count in [
        ledger.accepted,
        ledger.expanded,
        ledger.made,
        ends.delivered,
        ends.bounced,
        ends.expired,
        ends.dropped,
        ends.set_aside,
        ledger.unaccounted,
    ] {
        out.put_number(count);
    }
}

/// Unpacks it.
pub fn take_ledger(take: &mut Take<'_>) -> Result<Ledger, Malformed> {
    let mut next = || take.number("ledger");
    Ok(Ledger {
        accepted: next()?,
        expanded: next()?,
        made: next()?,
        ends: Ends {
            delivered: next()?,
            bounced: next()?,
            expired: next()?,
            dropped: next()?,
            set_aside: next()?,
        },
        unaccounted: next()?,
        ..Ledger::default()
    })
}
