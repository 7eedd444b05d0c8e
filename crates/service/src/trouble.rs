//! What a person must mend: a wrong configuration, a program that cannot start. Each says what, why, and what to do.

/// Something wrong with a configuration; printed as `file:line: what, why, what to do`.
#[derive(Clone, Debug)]
pub struct Complaint {
    /// `spool.path`: the dotted key it is about; its line is looked up in the file.
    pub key: String,
    /// `relative path "spool"`.
    pub what: String,
    /// `a daemon's working directory is not fixed`.
    pub why: String,
    /// `give an absolute path`.
    pub remedy: String,
}

/// Why a program could not start or had to end.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {why}; {remedy}")]
pub struct StartError {
    /// What could not be done.
    pub what: String,
    /// Why.
    pub why: String,
    /// What to do.
    pub remedy: String,
}
