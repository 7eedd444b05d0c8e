//! Claims about large mail: what a daemon did not see is told, or does not pass.

#![allow(clippy::unwrap_used)]

mod common;

use common::edge::{codes, field, live, message};
use common::stubs::{Stub, Stubbed};
use common::until;

#[tokio::test]
async fn what_spamd_saw_in_part_is_told() {
    let Stubbed {
        scanner,
        list_host,
        spamd: _spamd,
        clamd: _clamd,
    } = Stubbed::with("spamd.bytes_max = '8KiB'").await;
    let body = format!("{}GTUBE", "A line of text.\r\n".repeat(1000));
    let large = live(message("large", &body));
    assert_eq!(codes(&large.send(&scanner).await), ["250 2.0.0"]);
    let (_, verdict, rest) = list_host.only().opened();
    assert_eq!(&*verdict.tests[0], "TRUNCATED_SCAN");
    let status = field(&rest, "X-Spam-Status");
    assert!(
        status.ends_with("tests=TRUNCATED_SCAN,GOOD_RULE"),
        "{status}"
    );
    let truncated = scanner.metric("scanner_truncated_scans_total", &[]);
    assert_eq!(truncated.await, 1.0);
}

#[tokio::test]
async fn what_clamd_does_not_look_at_is_never_clean() {
    // One refuses what is larger, the other says OK to it.
    for clamd in [
        Stub::clamd_refusing(2 << 20).await,
        Stub::clamd_blind(2 << 20).await,
    ] {
        let address = clamd.address.to_string();
        let Stubbed {
            scanner,
            list_host,
            spamd: _spamd,
            clamd: _clamd,
        } = Stubbed::between(Stub::spamd().await, clamd, "").await;
        let limit = until("clamd's limit is known", async || {
            let bytes = scanner.metric("scanner_clamd_bytes_max", &[&address]).await;
            (bytes > 0.0).then_some(bytes)
        });
        assert_eq!(limit.await, f64::from(2 << 20));
        assert!(scanner.log().contains("outcome=\"too small\""));
        let oversize = live(message("large", &"A line of text.\r\n".repeat(150_000)));
        let (code, reply) = oversize.code(&scanner).await;
        assert_eq!(code, "552 5.3.4", "{reply}");
        let fits = live(message("fits", &"A line of text.\r\n".repeat(100_000)));
        assert_eq!(codes(&fits.send(&scanner).await), ["250 2.0.0"]);
        assert_eq!(list_host.arrived().len(), 1);
    }
}
