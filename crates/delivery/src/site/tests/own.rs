//! Mail that would come back to us: this host among the exchangers, by its name or by its address.

use hickory_resolver::proto::rr::rdata;

use super::*;

#[tokio::test]
async fn we_do_not_send_to_ourselves() {
    use RecordType::{A, MX};
    let said = |records| zone([(("d.example.", MX), Said::Records(records))]);
    check(
        said(vec![
            mx(5, "best.example."),
            mx(10, "us.example."),
            mx(10, "peer.example."),
            mx(20, "far.example."),
        ]),
        "d.example",
        Ok(&["0 best.example"]),
    )
    .await;
    check(
        said(vec![mx(10, "US.example."), mx(20, "far.example.")]),
        "d.example",
        Err("554 5.4.6"),
    )
    .await;
    check(
        zone([(("us.example.", A), Said::Records(vec![a(1)]))]),
        "us.example",
        Err("554 5.4.6"),
    )
    .await;
}

/// Under a name that we do not know: the same, by its address. What cannot be looked up is somebody else's.
#[tokio::test]
async fn we_do_not_send_to_our_own_addresses() {
    use RecordType::{A, AAAA, MX};
    let six = RData::AAAA(rdata::AAAA("2001:db8::9".parse().unwrap()));
    let hosts = |records| {
        zone([
            (("d.example.", MX), Said::Records(records)),
            (("other.example.", A), Said::Records(vec![a(1)])),
            (("alias.example.", A), Said::Records(vec![a(2), a(9)])),
            (("six.example.", AAAA), Said::Records(vec![six.clone()])),
            (("lame.example.", A), Said::Code(ResponseCode::ServFail)),
            (("bare.example.", A), Said::Records(vec![a(9)])),
        ])
    };
    let own: Vec<IpAddr> = ["192.0.2.9", "2001:db8::9"]
        .map(|ip| ip.parse().unwrap())
        .into();
    type Row<'a> = (&'a [(u16, &'a str)], &'a str, Result<usize, &'a str>);
    let rows: &[Row<'_>] = &[
        (
            &[
                (5, "other.example."),
                (10, "alias.example."),
                (20, "lame.example."),
            ],
            "d.example",
            Ok(1),
        ),
        (
            &[(10, "alias.example."), (10, "other.example.")],
            "d.example",
            Err("554 5.4.6"),
        ),
        (
            &[(10, "six.example."), (20, "other.example.")],
            "d.example",
            Err("554 5.4.6"),
        ),
        (
            &[(10, "lame.example."), (20, "other.example.")],
            "d.example",
            Ok(2),
        ),
        (&[], "bare.example", Err("554 5.4.6")),
        (&[], "[192.0.2.9]", Err("554 5.4.6")),
        (&[], "[IPv6:::ffff:192.0.2.9]", Err("554 5.4.6")),
        (&[], "[192.0.2.8]", Ok(1)),
    ];
    for (records, of, expected) in rows {
        let records = records
            .iter()
            .map(|(preference, host)| mx(*preference, host));
        let (exchangers, _server) = exchangers(hosts(records.collect())).await;
        let exchangers = exchangers.with_own_addresses(own.clone());
        let found = exchangers.site(&domain(of)).await;
        let found = found.map(|site| site.exchangers.len());
        let found = found.map_err(|reply| format!("{} {}", reply.code, reply.enhanced.unwrap()));
        assert_eq!(found, expected.map_err(str::to_owned), "{of} {expected:?}");
    }
}
