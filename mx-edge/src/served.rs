//! How new sessions are served: alike, but for clients of which the configuration says otherwise (`[[mail.clients]]`). Replaced as a
//! whole on reload.

use std::net::IpAddr;
use std::sync::Arc;

use smtp::server::{BareNewline, Settings};

use crate::config::{self, Config};
use crate::network::{self, Network};

/// See the module.
#[derive(Debug)]
pub struct Served {
    all: Arc<Settings>,
    /// In their order.
    clients: Vec<(Vec<Network>, Arc<Settings>)>,
}

impl Served {
    /// `all`, and what is otherwise for some.
    pub fn new(all: Settings, config: &Config) -> Self {
        let clients = config.mail.clients.iter().map(|clients| {
            let mut settings = all.clone();
            if let Some(keywords) = &clients.keywords_off {
                settings.keywords_off.clone_from(keywords);
            }
            if let Some(policy) = clients.bare_newline {
                settings.bare_newline = bare_newline(policy);
            }
            (clients.networks.clone(), Arc::new(settings))
        });
        Self {
            clients: clients.collect(),
            all: Arc::new(all),
        }
    }

    /// For those of whom nothing else is said.
    pub fn all(&self) -> &Arc<Settings> {
        &self.all
    }

    /// For a client; the first that has it counts.
    pub fn of(&self, client: IpAddr) -> &Arc<Settings> {
        let mut clients = self.clients.iter();
        let found = clients.find(|(networks, _)| network::contains(networks, client));
        found.map_or(&self.all, |(_, settings)| settings)
    }
}

/// As the session has it.
pub fn bare_newline(policy: config::BareNewline) -> BareNewline {
    match policy {
        config::BareNewline::Normalize => BareNewline::Normalize,
        config::BareNewline::Note => BareNewline::Note,
        config::BareNewline::Refuse => BareNewline::Refuse,
    }
}
