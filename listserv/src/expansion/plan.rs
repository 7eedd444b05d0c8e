//! Where mail for an alias, an owner or a role really goes: nested aliases opened, each address once, and batches by domain.

use std::collections::{HashSet, VecDeque};

use mail::recipient::ListAddress;
use mail::{Address, Recipient, Timestamp};
use spool::{Class, Destination, NewBatch};

use crate::directory::{Error, Names, Store, Target};
use crate::facts::Template;

/// Recipients of one batch at most.
pub const BATCH_RECIPIENTS_MAX: usize = 100;
/// Addresses that one alias may open to, aliases within aliases counted.
const OPENED_MAX: usize = 1000;

/// Where opened addresses lead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// Addresses elsewhere, in the order of their domains.
    pub outside: Vec<Address>,
    /// Lists and what is below them, to be expanded here.
    pub inside: Vec<Address>,
}

/// Opens aliases, roles and owners until only foreign addresses and lists are left. An alias that leads to itself is opened once.
pub fn open(
    store: &mut Store,
    names: &Names,
    postmasters: &[Address],
    start: Vec<Address>,
) -> Result<Opened, Error> {
    let mut opened = Opened::default();
    let mut seen = HashSet::new();
    let mut waiting: VecDeque<Address> = start.into();
    while let Some(address) = waiting.pop_front() {
        if !seen.insert(address.key()) {
            continue;
        }
        if seen.len() > OPENED_MAX {
            return Err(Error::Invalid(format!(
                "{address}: an alias opens to more than {OPENED_MAX} addresses; make it a list"
            )));
        }
        match names.resolve(&address) {
            None => opened.outside.push(address),
            Some(Target::Alias(alias)) => match store.alias(&alias) {
                Ok(paths) => waiting.extend(paths),
                Err(Error::Missing(_)) => {} // removed since the names were read
                Err(error) => return Err(error),
            },
            Some(Target::Role) => waiting.extend(postmasters.iter().cloned()),
            Some(Target::List {
                list,
                what: ListAddress::Owner,
            }) => waiting.extend(owners(store, &list, postmasters)?),
            Some(Target::List { .. }) => opened.inside.push(address),
        }
    }
    opened
        .outside
        .sort_by(|a, b| a.domain().cmp(b.domain()).then_with(|| a.cmp(b)));
    Ok(opened)
}

/// Who runs a list; those who run the site when nobody does.
pub fn owners(
    store: &mut Store,
    list: &Address,
    postmasters: &[Address],
) -> Result<Vec<Address>, Error> {
    let owners = store.owners(list)?;
    Ok(if owners.is_empty() {
        postmasters.to_vec()
    } else {
        owners
    })
}

/// Batches for recipients that stand in the order of their domains: one domain each, at most [`BATCH_RECIPIENTS_MAX`] recipients.
pub fn batches(
    recipients: impl IntoIterator<Item = Recipient>,
    class: Class,
    due: Timestamp,
    template: &Template,
) -> Vec<NewBatch> {
    let template = template.to_bytes();
    let mut batches: Vec<NewBatch> = Vec::new();
    for recipient in recipients {
        let domain = recipient.address.domain();
        match batches.last_mut() {
            Some(last)
                if last.recipients.len() < BATCH_RECIPIENTS_MAX
                    && matches!(&last.destination, Destination::Domain(there) if there == domain) =>
            {
                last.recipients.push(recipient);
            }
            _ => batches.push(NewBatch {
                destination: Destination::Domain(domain.clone()),
                class,
                due,
                recipients: vec![recipient],
                template: template.clone(),
                replies: Default::default(),
            }),
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    #[test]
    fn batches_hold_one_domain_and_a_hundred() {
        let mut members: Vec<Recipient> = (0..250)
            .map(|n| Recipient::from(address(&format!("m{n}@one.example"))))
            .collect();
        members.push(Recipient::from(address("a@two.example")));
        let made = batches(
            members.clone(),
            Class::Ordinary,
            Timestamp(1),
            &Template::Own,
        );
        let sizes: Vec<usize> = made.iter().map(|batch| batch.recipients.len()).collect();
        assert_eq!(sizes, [100, 100, 50, 1]);
        let all: Vec<Recipient> = made
            .into_iter()
            .flat_map(|batch| batch.recipients)
            .collect();
        assert_eq!(all, members);
    }

    #[test]
    fn nested_aliases_are_opened_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d.sqlite");
        let mut store = Store::open(&path, true, std::time::Duration::ZERO).unwrap();
        let list = address("dev@l.example");
        store.create_list(&list, &[]).unwrap();
        let mut alias = |name: &str, paths: &[&str]| {
            let paths: Vec<Address> = paths.iter().map(|text| address(text)).collect();
            store.add_alias(&address(name), &paths).unwrap();
        };
        alias(
            "all@l.example",
            &[
                "b@two.example",
                "some@l.example",
                "ALL@l.example",
                "dev@l.example",
            ],
        );
        alias(
            "some@l.example",
            &["a@one.example", "B@two.example", "dev-owner@l.example"],
        );
        alias("round@l.example", &["about@l.example"]);
        alias("about@l.example", &["round@l.example"]);
        let names = store.names().unwrap();
        let postmasters = [address("pm@host.example")];

        let all = open(
            &mut store,
            &names,
            &postmasters,
            vec![address("all@l.example")],
        )
        .unwrap();
        let outside: Vec<String> = all.outside.iter().map(Address::to_string).collect();
        assert_eq!(
            outside,
            ["pm@host.example", "a@one.example", "b@two.example"]
        );
        assert_eq!(all.inside, [list]);

        let nowhere = open(&mut store, &names, &[], vec![address("round@l.example")]).unwrap();
        assert_eq!(nowhere, Opened::default());
    }
}
