//! From which egress each batch leaves: its list's, else its class's, else the one for all. As configured at the start.

use std::collections::HashMap;
use std::sync::Arc;

use mail::Address;
use spool::{Batch, Class};

use crate::config::Delivery;
use crate::facts::Template;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Leaving {
    /// By the list's address in lower case.
    lists: HashMap<String, Arc<str>>,
    urgent: Option<Arc<str>>,
    ordinary: Option<Arc<str>>,
}

impl Leaving {
    /// As `[delivery]` says.
    pub fn new(config: &Delivery) -> Self {
        let name = |name: &Option<String>| {
            let name = name.as_ref().or(config.egress.as_ref());
            name.map(|name| Arc::from(name.as_str()))
        };
        let lists = config.egress_lists.iter().filter_map(|(list, egress)| {
            let list = Address::parse(list).ok()?;
            Some((list.key(), Arc::from(egress.as_str())))
        });
        Self {
            lists: lists.collect(),
            urgent: name(&config.egress_urgent),
            ordinary: name(&config.egress_ordinary),
        }
    }

    /// The egress of a batch.
    pub fn of(&self, batch: &Batch) -> Option<Arc<str>> {
        self.of_list(batch).or_else(|| match batch.class {
            Class::Urgent => self.urgent.clone(),
            Class::Ordinary => self.ordinary.clone(),
        })
    }

    fn of_list(&self, batch: &Batch) -> Option<Arc<str>> {
        if self.lists.is_empty() {
            return None;
        }
        match Template::read(&batch.template)? {
            Template::Post { list, .. } => {
                self.lists.get(&Address::parse(&list).ok()?.key()).cloned()
            }
            Template::Forward { .. } | Template::Own => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use mail::Timestamp;
    use spool::{BatchId, Destination};

    use super::*;

    fn batch(class: Class, template: &Template) -> Batch {
        Batch {
            id: BatchId(1),
            destination: Destination::Expand,
            class,
            due: Timestamp(0),
            attempts: 0,
            recipients: Vec::new(),
            template: template.to_bytes(),
            note: Bytes::new(),
            replies: Default::default(),
            held: None,
        }
    }

    #[test]
    fn a_list_comes_before_a_class_and_a_class_before_the_rest() {
        let post = |list: &str| Template::Post {
            list: list.into(),
            number: 1,
        };
        let config: Delivery = toml::from_str(
            "egress = \"all\"\negress_urgent = \"quick\"\n[egress_lists]\n\"Dev@lists.example\" = \"dev\"",
        )
        .unwrap();
        let table = [
            (Class::Ordinary, post("dev@lists.example"), "dev"),
            (Class::Urgent, post("dev@lists.example"), "dev"),
            (Class::Ordinary, post("other@lists.example"), "all"),
            (Class::Urgent, Template::Own, "quick"),
            (Class::Ordinary, Template::Own, "all"),
        ];
        let leaving = Leaving::new(&config);
        for (class, template, expected) in table {
            let found = leaving.of(&batch(class, &template));
            assert_eq!(found.as_deref(), Some(expected), "{class:?} {template:?}");
        }
        let none = Leaving::new(&Delivery::default());
        assert_eq!(none.of(&batch(Class::Urgent, &Template::Own)), None);
    }
}
