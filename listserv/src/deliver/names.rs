//! What operators ask about batches and only listserv can tell: of which list, and the ident.

use delivery::queue;
use spool::{Batch, Destination, Head};

use crate::facts::{Facts, Template};

/// Reads facts and templates.
pub struct Names;

impl queue::Names for Names {
    fn ident(&self, head: &Head) -> Option<String> {
        Facts::read(&head.facts).ident
    }

    /// Before the expansion it is the address that the mail came to.
    fn list(&self, _: &Head, batch: &Batch) -> Option<String> {
        match (&batch.destination, Template::read(&batch.template)) {
            (Destination::Expand, _) => {
                let first = batch.recipients.first()?;
                Some(first.address.to_string())
            }
            (_, Some(Template::Post { list, .. })) => Some(list),
            _ => None,
        }
    }

    fn by_domain(&self) -> bool {
        true
    }
}
