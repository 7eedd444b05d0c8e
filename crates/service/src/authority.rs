//! The site's own CA: `PROGRAM ca init DIR`, `PROGRAM ca node DIR NAME --role ROLE [--address HOST_OR_IP ...]`.

use std::path::Path;

use crate::tls::Role;

/// Makes `ca.pem`, `ca.key` (0600) and the shared secrets `verdict.key` and `cookie.key` (0600) in `dir`. Refuses to replace any.
pub fn init(dir: &Path) -> Result<(), String> {
    todo!("{dir:?}")
}

/// Makes `NAME.pem` and `NAME.key` (0600) in `dir`, signed by its CA, naming the node, its roles and its addresses; valid 825 days.
pub fn node(dir: &Path, name: &str, roles: &[Role], addresses: &[String]) -> Result<(), String> {
    todo!("{dir:?} {name} {roles:?} {addresses:?}")
}
