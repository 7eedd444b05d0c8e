//! Tables of the formats: every record comes back as it was written; cut anywhere or of a later version it is an error.

use bytes::Bytes;
use mail::envelope::{Notify, OriginalRecipient, Ret};
use mail::{Address, Body, Domain, MailParameters, MessageId, Recipient, ReversePath, Timestamp};

use super::codec::Malformed;
use super::content::{Stored, decode_batch, decode_head, encode_batch, encode_head};
use super::group::{Draft, Header};
use super::record::{BodyPlace, Record, Records, read_all, read_what_is_whole};
use crate::selection::Order;
use crate::{
    Action, Batch, BatchId, Class, Destination, Ends, Head, HoldId, Ledger, Pattern, Replies,
};

fn recipient(text: &str) -> Recipient {
    Address::parse(text).unwrap().into()
}

fn heads() -> Vec<Head> {
    let plain = Head {
        id: MessageId(1),
        arrival: Timestamp(2),
        accepted: Timestamp(3),
        reverse_path: ReversePath::Null,
        parameters: MailParameters::default(),
        facts: Bytes::new(),
        body_bytes: 0,
    };
    let full = Head {
        id: MessageId(u128::MAX),
        arrival: Timestamp(u64::MAX),
        accepted: Timestamp(1 << 40),
        reverse_path: ReversePath::parse("\"a b\"@xn--hxajbheg2az3al.xn--jxalpdlp").unwrap(),
        parameters: MailParameters {
            body: Body::EightBitMime,
            smtputf8: true,
            ret: Some(Ret::Headers),
            envid: Some("some envid".into()),
        },
        facts: vec![0xff; 5000].into(),
        body_bytes: 1 << 33,
    };
    vec![plain, full]
}

fn plain_order() -> Order {
    Order {
        recipient: None,
        reply: None,
        held: None,
        hold: None,
        action: Action::Retry,
    }
}

/// Every kind of order.
fn orders() -> Vec<Order> {
    let full = Order {
        recipient: Some(Pattern::new("*@example.org")),
        reply: Some("busy".into()),
        held: Some(true),
        hold: Some(HoldId(u64::MAX)),
        action: Action::Hold(HoldId(u64::MAX)),
    };
    let actions = [Action::Release, Action::Retry, Action::Drop];
    let others = actions.map(|action| Order {
        action,
        held: Some(false),
        ..plain_order()
    });
    [plain_order(), full].into_iter().chain(others).collect()
}

fn stored() -> Vec<Stored> {
    let plain = batches().into_iter().map(|batch| Stored {
        batch,
        orders: Vec::new(),
    });
    let ordered = batches().into_iter().map(|batch| Stored {
        batch,
        orders: orders(),
    });
    plain.chain(ordered).collect()
}

fn packed(stored: &Stored) -> Vec<u8> {
    encode_batch(&stored.batch, &stored.orders)
}

fn batches() -> Vec<Batch> {
    let mut with_parameters = recipient("δοκιμή@example.org");
    with_parameters.parameters.notify = Some(Notify {
        success: false,
        failure: true,
        delay: true,
    });
    with_parameters.parameters.orcpt = Some(OriginalRecipient {
        kind: "utf-8".into(),
        address: "Δοκιμή@example.org".into(),
    });
    let plain = Batch {
        id: BatchId(9),
        destination: Destination::Expand,
        class: Class::Ordinary,
        due: Timestamp(0),
        attempts: 0,
        recipients: vec![recipient("a@[192.0.2.1]")],
        template: Bytes::new(),
        note: Bytes::new(),
        replies: Replies::default(),
        held: None,
    };
    let destinations = [
        Destination::Inside,
        Destination::Route("smart host".into()),
        Destination::Domain(Domain::parse("example.org").unwrap()),
    ];
    let full = destinations.map(|destination| Batch {
        destination,
        class: Class::Urgent,
        due: Timestamp(u64::MAX),
        attempts: u32::MAX,
        recipients: vec![
            recipient("a@example.org"),
            with_parameters.clone(),
            recipient("b@example.net"),
            recipient("c@example.net"),
        ],
        template: vec![1; 300].into(),
        note: vec![2; 300].into(),
        replies: Replies::all("451 4.4.1 später"),
        held: Some(HoldId(u64::MAX)),
        ..plain.clone()
    });
    let mut answered = full[0].clone();
    answered.replies = ["", "452 4.2.2 full", "451 4.4.1 später", "452 4.2.2 full"]
        .into_iter()
        .collect();
    let all = std::iter::once(plain).chain(full);
    all.chain([answered]).collect()
}

/// A packed piece comes back, is refused when cut or flipped, and of a later version tells that.
fn check<T: PartialEq + std::fmt::Debug>(
    value: &T,
    packed: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, Malformed>,
) {
    assert_eq!(decode(packed).as_ref(), Ok(value));
    for cut in 0..packed.len() {
        assert!(decode(&packed[..cut]).is_err(), "cut at {cut}");
    }
    for at in 0..packed.len() {
        let mut flipped = packed.to_vec();
        flipped[at] ^= 0x10;
        assert!(decode(&flipped).is_err(), "flipped at {at}");
    }
    let mut later = packed[..packed.len() - 4].to_vec();
    later[0] += 1;
    super::codec::seal(&mut later, 0);
    assert!(matches!(decode(&later), Err(Malformed::Version { .. })));
}

#[test]
fn heads_come_back() {
    for head in heads() {
        check(&head, &encode_head(&head), decode_head);
    }
}

#[test]
fn batches_come_back() {
    for stored in stored() {
        check(&stored, &packed(&stored), decode_batch);
    }
}

/// What is only counted is not kept.
#[test]
fn orders_that_change_nothing_are_left_out() {
    let batch = batches().remove(0);
    let count = Order {
        action: Action::Count,
        ..plain_order()
    };
    let packed = encode_batch(&batch, &[count, plain_order()]);
    assert_eq!(decode_batch(&packed).unwrap().orders, [plain_order()]);
}

/// Without hold and orders, as the first version had it.
#[test]
fn batches_of_the_first_version_are_read() {
    let batch = batches().remove(0);
    let packed = encode_batch(&batch, &[]);
    // Two zeros before: count of recipients, one recipient, checksum.
    let recipients = packed.len() - 4 - (2 + 1 + "a".len() + 1 + "[192.0.2.1]".len());
    let mut first = packed[..recipients - 2].to_vec();
    assert_eq!(packed[recipients - 2..recipients], [0, 0]);
    first.extend_from_slice(&packed[recipients..packed.len() - 4]);
    first[0] = 1;
    super::codec::seal(&mut first, 0);
    assert_eq!(decode_batch(&first).unwrap().batch, batch);
}

/// With one reply for all recipients, as the second version had it.
#[test]
fn batches_of_the_second_version_are_read() {
    let mut batch = batches().remove(1);
    let text = "451 4.4.1 busy";
    batch.replies = Replies::all(text);
    let mut packed = encode_batch(&batch, &orders()[..1]);
    let at = packed
        .windows(text.len())
        .position(|is| is == text.as_bytes());
    // Before the text's length its count.
    assert_eq!(packed.remove(at.unwrap() - 2), 1);
    packed.truncate(packed.len() - 4);
    packed[0] = 2;
    super::codec::seal(&mut packed, 0);
    let stored = decode_batch(&packed).unwrap();
    assert_eq!(
        (stored.batch, stored.orders),
        (batch, orders()[..1].to_vec())
    );
}

#[test]
fn a_reply_that_repeats_costs_a_number_each_and_none_a_byte() {
    let mut batch = batches().remove(0);
    batch.recipients = vec![recipient("someone@example.org"); 100];
    let none = encode_batch(&batch, &[]).len();
    let text = "452 4.2.2 mailbox full";
    batch.replies = Replies::all(text);
    assert_eq!(encode_batch(&batch, &[]).len() - none, 1 + text.len());
    let other = "451 4.7.1 later";
    batch.replies = (0..100).map(|at| [text, other][at % 2]).collect();
    let two = 2 + text.len() + other.len();
    assert_eq!(encode_batch(&batch, &[]).len() - none, two + 1 + 100);
}

#[test]
fn a_repeated_domain_costs_nothing() {
    let mut batch = batches().pop().unwrap();
    batch.recipients = vec![recipient("someone@example.org"); 100];
    let with_hundred = encode_batch(&batch, &[]).len();
    batch.recipients.truncate(50);
    assert_eq!(with_hundred - encode_batch(&batch, &[]).len(), 50 * 9);
}

fn ledger() -> Ledger {
    Ledger {
        accepted: 1 << 40,
        expanded: 1,
        made: 2,
        ends: Ends {
            delivered: 3,
            bounced: 4,
            expired: 5,
            dropped: 6,
            set_aside: 7,
        },
        unaccounted: 8,
        ..Ledger::default()
    }
}

fn all_kinds() -> Records {
    let mut records = Records::default();
    let packed: Vec<_> = stored().iter().map(packed).collect();
    let body = BodyPlace {
        offset: 7,
        length: 1 << 33,
        checksum: 5,
    };
    records.message(
        &encode_head(&heads()[1]),
        body,
        &packed,
        &[[1; 16], [2; 16]],
    );
    records.state(None, MessageId(1), Timestamp(2), &packed[1]);
    records.state(Some(77), MessageId(1), Timestamp(2), &packed[0]);
    records.finished(Some(77), MessageId(1), BatchId(2), 3);
    records.finished(None, MessageId(1), BatchId(2), u64::MAX);
    records.idents(&[([3; 16], Timestamp(4))]);
    records.carried(12);
    records.commit(77, 2);
    records.ledger(&ledger());
    records
}

#[test]
fn records_come_back_and_name_their_places() {
    let records = all_kinds();
    let bytes = records.bytes();
    let read = read_all(bytes).unwrap();
    assert_eq!(read.len(), 9);
    assert_eq!(read[8], Record::Ledger(ledger()));
    let Record::Message {
        head,
        head_at,
        batches: found,
        idents,
        ..
    } = &read[0]
    else {
        panic!("{:?}", read[0]);
    };
    let piece = |at: &super::record::Stretch| &bytes[at.offset..at.offset + at.length];
    assert_eq!(decode_head(piece(head_at)).as_ref(), Ok(&**head));
    for (batch, at) in found {
        assert_eq!(decode_batch(piece(at)).as_ref(), Ok(batch));
    }
    assert_eq!(idents, &[[1; 16], [2; 16]]);
    let Record::Part {
        transaction: 77,
        record,
    } = &read[2]
    else {
        panic!("{:?}", read[2]);
    };
    let Record::State { batch, at, .. } = &**record else {
        panic!("{record:?}");
    };
    assert_eq!(decode_batch(piece(at)).as_ref(), Ok(&**batch));
}

#[test]
fn cut_records_are_refused() {
    let records = all_kinds();
    let bytes = records.bytes();
    let mut whole = 0;
    for cut in 0..bytes.len() {
        whole += usize::from(read_all(&bytes[..cut]).is_ok());
    }
    // Between two records a cut cannot be seen here: the group's checksum sees it.
    assert_eq!(whole, 9);
}

#[test]
fn unknown_kinds_and_versions_are_refused() {
    // Rows: bytes, whether a newer program is asked for.
    for (bytes, newer) in [
        (&[99, 1, 0][..], false),
        (&[0, 1, 0], false),
        (&[5, 2, 1, 0], true),
        (&[5, 0, 1, 0], false),
        (&[5, 1, 2, 0, 0], false),
        (&[6, 1, 14, 0, 0, 0, 0, 0, 0, 0, 0, 6, 1, 4, 0, 0, 0], false),
    ] {
        let error = read_all(bytes).unwrap_err();
        assert_eq!(
            matches!(error, Malformed::Version { .. }),
            newer,
            "{bytes:?}: {error}"
        );
    }
}

#[test]
fn a_group_is_its_own_spools_and_its_own_uses() {
    let mut draft = Draft::default();
    draft.records.carried(1);
    draft.body(&[Bytes::from_static(b"body")]);
    let bytes = draft.encode(11, 22, 33, Timestamp(44));
    assert_eq!(bytes.len(), 4096);
    let header = Header::decode(&bytes, 11, 22).unwrap().unwrap();
    assert_eq!((header.sequence, header.time), (33, Timestamp(44)));
    assert_eq!(&bytes[header.bodies_at() as usize..][..4], b"body");
    // Rows: secret, generation.
    for (secret, generation) in [(12, 22), (11, 23)] {
        assert_eq!(Header::decode(&bytes, secret, generation), Ok(None));
    }
    for at in 0..64 {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        assert_eq!(Header::decode(&flipped, 11, 22), Ok(None), "byte {at}");
    }
}

/// Whatever bit is flipped in a group's records, what is read of them all the same is what was written.
#[test]
fn what_is_whole_of_damaged_records_is_told_from_what_is_not() {
    let (bytes, bodies) = damaged_group();
    let (all, lost) = read_what_is_whole(&bytes, bodies);
    assert_eq!((all.len(), lost), (3, 0), "{all:?}");
    let batches = |records: &[Record]| {
        let of = |record: &Record| match record {
            Record::Message { batches, .. } => {
                batches.iter().map(|(one, _)| one.batch.clone()).collect()
            }
            Record::State { batch, .. } => vec![batch.batch.clone()],
            _ => Vec::new(),
        };
        records.iter().flat_map(of).collect::<Vec<_>>()
    };
    let written = batches(&all);
    let mut partly = 0;
    for bit in 0..bytes.len() * 8 {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let (found, _) = read_what_is_whole(&bytes, bodies);
        let found = batches(&found);
        assert!(found.iter().all(|one| written.contains(one)), "bit {bit}");
        partly += usize::from(!found.is_empty() && found.len() < written.len());
    }
    assert!(partly > bytes.len(), "most of it is read in most cases");
}

/// A message with two batches, the state of a third, and the end of a fourth.
fn damaged_group() -> (Vec<u8>, u64) {
    let batch = |number: u128| Batch {
        id: BatchId(number),
        recipients: vec![recipient("a@x.org"), recipient("b@x.org")],
        ..batches().remove(0)
    };
    let pack = |number| encode_batch(&batch(number), &[]);
    let head = heads().remove(0);
    let body = BodyPlace {
        offset: 0,
        length: head.body_bytes,
        checksum: 0,
    };
    let mut records = Records::default();
    let both = [pack(1), pack(2)];
    records.message(&encode_head(&head), body, &both, &[]);
    records.state(None, head.id, head.arrival, &pack(3));
    records.finished(None, head.id, BatchId(4), 1);
    (records.bytes().to_vec(), 0)
}
