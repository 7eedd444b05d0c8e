//! The server's side of a session as values: states that own exactly their data, transitions that consume them.
