//! The ledger as operators read it: how every accepted recipient ended, or that it waits, and whether that adds up.

use serde_json::{Value, json};
use spool::Ledger;

use super::{Queue, Refusal};

/// The account in words; also of a spool that no process works on.
pub(crate) fn account(ledger: &Ledger) -> Value {
    let ends = &ledger.ends;
    json!({
        "accepted": ledger.accepted,
        "made": ledger.made,
        "expanded": ledger.expanded,
        "delivered": ends.delivered,
        "bounced": ends.bounced,
        "expired": ends.expired,
        "dropped": ends.dropped,
        "set_aside": ends.set_aside,
        "waiting": ledger.waiting,
        "held": ledger.held,
        "unaccounted": ledger.unaccounted,
        "difference": ledger.difference() as i64,
        "balances": balances(ledger),
    })
}

/// Whether nothing is missing and nothing too much.
pub(crate) fn balances(ledger: &Ledger) -> bool {
    ledger.difference() == 0 && ledger.unaccounted == 0
}

/// For a person.
pub(super) fn print(account: &Value) -> String {
    let figure = |name: &str| account[name].as_i64().unwrap_or_default();
    let mut lines = Vec::new();
    for (name, meaning) in [
        (
            "accepted",
            "recipients that were answered 250, and those of mail of our own making (DSNs, digests)",
        ),
        ("made", "and those that lists and aliases made of them"),
        ("expanded", "replaced by these"),
        (
            "delivered",
            "the next hop owns them, or they were handled here",
        ),
        ("bounced", "refused for good"),
        ("expired", "given up for their age"),
        ("dropped", "ended by an operator"),
        ("set_aside", "unreadable, kept for an operator"),
        ("waiting", "not ended yet"),
        (
            "held",
            "of these, held by an operator or a rule, or refused inside",
        ),
        ("unaccounted", "gone without an end being told"),
        (
            "difference",
            "accepted + made, less all that is known of them",
        ),
    ] {
        let name_shown = name.replace('_', " ");
        lines.push(format!("{name_shown:<12} {:>14}  {meaning}", figure(name)));
    }
    lines.push(match account["balances"].as_bool() {
        Some(true) => "the account balances".into(),
        _ => {
            "THE ACCOUNT DOES NOT BALANCE: keep the log and a `spool backup`, and report it".into()
        }
    });
    lines.join("\n")
}

impl Queue {
    /// The account now.
    pub(super) async fn account(&self) -> Result<Value, Refusal> {
        let mut account = account(&self.spool.ledger().await?);
        // What waits for a decision is held too, by the place where it waits.
        if let Some(place) = self.names.refused() {
            let tally = self.spool.tally().await?;
            let there = tally.iter().filter(|line| line.destination == place);
            let recipients: u64 = there.map(|line| line.recipients).sum();
            let held = account["held"].as_u64().unwrap_or_default() + recipients;
            account["held"] = held.into();
        }
        Ok(account)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spool::Ends;

    #[test]
    fn an_account_that_does_not_add_up_says_so() {
        let good = Ledger {
            accepted: 10,
            made: 5,
            expanded: 2,
            ends: Ends {
                delivered: 6,
                bounced: 1,
                ..Ends::default()
            },
            waiting: 6,
            held: 3,
            unaccounted: 0,
        };
        assert_eq!(account(&good)["balances"], true);
        assert!(print(&account(&good)).ends_with("the account balances"));
        for (bad, difference) in [
            (Ledger { waiting: 5, ..good }, 1),
            (Ledger { waiting: 7, ..good }, -1),
            (
                Ledger {
                    waiting: 5,
                    unaccounted: 1,
                    ..good
                },
                1,
            ),
        ] {
            let told = account(&bad);
            assert_eq!(told["balances"], false, "{told}");
            assert_eq!(told["difference"], difference);
            assert!(print(&told).contains("DOES NOT BALANCE"));
        }
    }
}
