//! Reading configuration: TOML, unknown keys are errors, every complaint with its line; and holding the commented sample to it.
//! It never changes a file.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::log::LogSettings;
use crate::trouble::Complaint;

pub mod bytes;
pub(crate) mod changes;
mod complaints;
pub mod duration;
mod known;
mod marks;
mod place;
mod sample;

pub use changes::Changes;
pub use complaints::{Complaints, is_node_name};
pub use sample::compare_sample;

/// What a configuration can say of itself.
pub trait Configuration:
    Clone + Default + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// When a change of each key comes into force; [`compare_sample`] complains of a key of which nothing is said.
    const CHANGES: Changes;

    /// What serde cannot know: ranges, files that must exist, keys that exclude each other. Each error names its key.
    fn check(&self) -> Vec<Complaint>;
    /// Where the control socket and the HTTP listener are.
    fn control(&self) -> &crate::control::Settings;
    /// How to log.
    fn log(&self) -> &LogSettings;
}

/// A configuration is written by hand: whatever is larger is another file.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Keys and passwords are short.
const SECRET_BYTES_MAX: u64 = 64 << 10;

/// Reads and checks a file. The error is one `file:line: what, why, what to do` a line. Line 0 stands for the whole file: a
/// key that is complained of and is not in it.
pub fn load<C: Configuration>(path: &Path) -> Result<C, String> {
    let (config, complaints) = read(path)?;
    match complaints.is_empty() {
        true => Ok(config),
        false => Err(complaints.join("\n")),
    }
}

/// [`load`] in two: the configuration, and what its own check complains of. A command to a running daemon needs only the
/// first: a mistake made in the file since must not shut the operator out.
pub(crate) fn read<C: Configuration>(path: &Path) -> Result<(C, Vec<String>), String> {
    let text = read_file(path, FILE_BYTES_MAX).map_err(|error| {
        format!(
            "{}:0: cannot be read, {error}, give the right one with --config FILE",
            path.display()
        )
    })?;
    let text = String::from_utf8(text).map_err(|error| {
        let line = line_of(error.as_bytes(), error.utf8_error().valid_up_to());
        let path = path.display();
        format!("{path}:{line}: not UTF-8, TOML is always UTF-8, save the file as UTF-8")
    })?;
    parse(&text, path)
}

/// [`read`] for a text; `path` is what the complaints name.
fn parse<C: Configuration>(text: &str, path: &Path) -> Result<(C, Vec<String>), String> {
    let complain = |key: &str, error: &toml::de::Error, why: &str, remedy: &str| {
        let line = error
            .span()
            .map_or(0, |span| line_of(text.as_bytes(), span.start));
        let what = error.message().trim().replace('\n', "; ");
        format!("{}:{line}: {key}{what}, {why}, {remedy}", path.display())
    };
    let place = place::Places::read(text)
        .map_err(|error| complain("", &error, "the file is not TOML", "correct this line"))?;
    let config: C = place.configuration().map_err(|error| {
        let key = match error.path().iter().len() {
            0 => String::new(),
            _ => format!("{}: ", error.path()),
        };
        let remedy = "correct it; `config show` and the commented sample list every key";
        complain(&key, error.inner(), "no configuration has this", remedy)
    })?;
    let complaints = config.check().into_iter().chain(config.log().check());
    let complaints = complaints.map(|complaint| {
        let line = place.offset(&complaint.key);
        let line = line.map_or(0, |offset| line_of(text.as_bytes(), offset));
        let Complaint {
            key,
            what,
            why,
            remedy,
        } = complaint;
        format!("{}:{line}: {key}: {what}, {why}, {remedy}", path.display())
    });
    let complaints = complaints.collect();
    Ok((config, complaints))
}

/// `config show`: the configuration in force as TOML; with `non_default` only keys that differ from their default.
pub fn show<C: Configuration>(config: &C, non_default: bool) -> String {
    let mut shown = table(config);
    if non_default {
        remove_equal(&mut shown, &table(&C::default()));
    }
    toml::to_string(&shown).expect("a table of TOML values is TOML")
}

/// A secret file's content without the last newline; refuses files that others may read, and says which mode to set.
/// A group may read it (a program's own group), nobody but the owner may write it.
pub fn secret(path: &Path) -> Result<Vec<u8>, String> {
    let shown = path.display();
    let metadata = std::fs::metadata(path).map_err(|error| format!("{shown}: {error}"))?;
    let mode = metadata.mode() & 0o777;
    if mode & 0o027 != 0 {
        return Err(format!(
            "{shown}: mode {mode:04o} lets others at a secret; run: chmod 0600 {shown} (or 0640 for its group)"
        ));
    }
    let mut secret =
        read_file(path, SECRET_BYTES_MAX).map_err(|error| format!("{shown}: {error}"))?;
    if secret.ends_with(b"\n") {
        secret.pop();
        if secret.ends_with(b"\r") {
            secret.pop();
        }
    }
    if secret.is_empty() {
        return Err(format!("{shown}: empty; put the secret in it"));
    }
    Ok(secret)
}

/// The whole of a regular file, if it is no larger than that.
fn read_file(path: &Path, bytes_max: u64) -> Result<Vec<u8>, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    let read = file.take(bytes_max + 1).read_to_end(&mut bytes);
    match read {
        Err(error) => Err(error.to_string()),
        Ok(n) if n as u64 > bytes_max => Err(format!("larger than {bytes_max} bytes")),
        Ok(_) => Ok(bytes),
    }
}

/// From 1.
fn line_of(text: &[u8], offset: usize) -> usize {
    let before = &text[..offset.min(text.len())];
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

/// A configuration as TOML knows it. Fails only by a mistake in the type, which the first test of the program meets.
fn table<C: Configuration>(config: &C) -> Table {
    Table::try_from(config).expect("a configuration can be written as TOML")
}

fn remove_equal(shown: &mut Table, default: &Table) {
    shown.retain(|key, value| match (value, default.get(key)) {
        (Value::Table(value), Some(Value::Table(default))) => {
            remove_equal(value, default);
            !value.is_empty()
        }
        (value, Some(default)) => value != default,
        (_, None) => true,
    });
}

#[cfg(test)]
mod tests;
