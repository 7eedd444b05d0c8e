//! How many sessions a client may have at once, counted while they are open.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use crate::network::client_key;

/// Sessions open, by client.
#[derive(Default)]
pub struct Clients(Mutex<HashMap<IpAddr, usize>>);

/// Held while a client's session is open.
pub struct Admitted {
    clients: Arc<Clients>,
    key: IpAddr,
}

impl Clients {
    /// Counts one more session, unless the client has as many as it may.
    pub fn admit(self: &Arc<Self>, client: IpAddr, sessions_max: usize) -> Option<Admitted> {
        let key = client_key(client);
        let mut open = self.0.lock().expect("no holder panics");
        let count = open.entry(key).or_default();
        if *count >= sessions_max {
            return None;
        }
        *count += 1;
        Some(Admitted {
            clients: Arc::clone(self),
            key,
        })
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut open = self.clients.0.lock().expect("no holder panics");
        if let Some(count) = open.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_counted_by_client_and_given_back() {
        let clients = Arc::new(Clients::default());
        let one: IpAddr = "192.0.2.1".parse().unwrap();
        let first = clients.admit(one, 2);
        let second = clients.admit(one, 2);
        assert!(first.is_some() && second.is_some());
        assert!(clients.admit(one, 2).is_none());
        assert!(clients.admit("192.0.2.2".parse().unwrap(), 2).is_some());
        drop(first);
        assert!(clients.admit(one, 2).is_some());
        drop(second);
        assert!(clients.0.lock().unwrap().is_empty());
    }
}
