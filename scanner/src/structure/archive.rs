//! Looking into archives: names, types and how much comes out, never what it means. Zip, gzip and tar, inside each other; all
//! reading is a stream, so that what is not an archive itself is counted and forgotten.

use std::io::{self, Cursor, Read};

use flate2::read::{DeflateDecoder, MultiGzDecoder};
use mail::structure::names::Names;

use super::budget::{Budget, Excess};
use super::kind::{HEAD_BYTES, Kind};
use super::{File, tar, zip};

/// Bytes of the path through archives that is told.
const INSIDE_BYTES_MAX: usize = 120;

/// What was seen.
pub struct Look<'a> {
    budget: &'a Budget<'a>,
    /// All files inside.
    pub files: Vec<File>,
    /// The first that needs a password.
    pub encrypted: Option<Box<str>>,
}

impl<'a> Look<'a> {
    /// With a message's budget.
    pub fn new(budget: &'a Budget<'a>) -> Self {
        Self {
            budget,
            files: Vec::new(),
            encrypted: None,
        }
    }

    /// Looks into a file that is an archive of this kind; others are left alone.
    pub fn open(&mut self, kind: Kind, bytes: &[u8], name: &str) -> Result<(), Excess> {
        match kind {
            Kind::Zip => self.zip(bytes, name, 1),
            Kind::Gzip => self.gzip(&mut Cursor::new(bytes), name, 1),
            Kind::Tar => self.tar(&mut Cursor::new(bytes), name, 1),
            _ => Ok(()),
        }
    }

    fn zip(&mut self, bytes: &[u8], inside: &str, level: usize) -> Result<(), Excess> {
        self.budget.level(level)?;
        for entry in zip::entries(bytes, self.budget)? {
            let mut names = Names::default();
            for name in &entry.names {
                names.merge(Names::one(name));
            }
            if entry.encrypted {
                self.encrypted.get_or_insert_with(|| inside.into());
            }
            match (entry.encrypted, entry.method) {
                (false, 0) => {
                    let mut reader = self.budget.metered(entry.data);
                    self.file(names, &mut reader, inside, level)?;
                }
                (false, 8) => {
                    let mut reader = self.budget.metered(DeflateDecoder::new(entry.data));
                    self.file(names, &mut reader, inside, level)?;
                }
                _ => self.files.push(File::new(names, None, inside)),
            }
        }
        Ok(())
    }

    fn gzip(&mut self, reader: &mut dyn Read, inside: &str, level: usize) -> Result<(), Excess> {
        self.budget.level(level)?;
        self.budget.file()?;
        let mut reader = self.budget.metered(MultiGzDecoder::new(reader));
        let head = self.head(&mut reader)?;
        if let Some(told) = reader.inner.header().and_then(|header| header.filename()) {
            // gunzip keeps to the outer name, others take this one: both count, and need not agree.
            let names = Names::one(told);
            self.files.push(File::new(names, None, inside));
        }
        let outer = inside.rsplit('/').next().unwrap_or_default();
        let names = Names::one(outer.trim_end_matches(".gz").as_bytes());
        self.headed(names, head, &mut reader, inside, level)
    }

    fn tar(&mut self, reader: &mut dyn Read, inside: &str, level: usize) -> Result<(), Excess> {
        self.budget.level(level)?;
        let budget = self.budget;
        tar::each(reader, |told, content| {
            budget.file()?;
            let mut names = Names::default();
            for name in told {
                names.merge(Names::one(name));
            }
            self.file(names, content, inside, level)
        })?;
        self.spent()
    }

    fn file(
        &mut self,
        names: Names,
        reader: &mut dyn Read,
        inside: &str,
        level: usize,
    ) -> Result<(), Excess> {
        let head = self.head(reader)?;
        self.headed(names, head, reader, inside, level)
    }

    /// A file whose first bytes have been read.
    fn headed(
        &mut self,
        names: Names,
        head: Vec<u8>,
        reader: &mut dyn Read,
        inside: &str,
        level: usize,
    ) -> Result<(), Excess> {
        let kind = Kind::of(&head);
        let path = format!("{inside}/{}", names.shown().unwrap_or("unnamed"));
        let path = &path[..path.floor_char_boundary(INSIDE_BYTES_MAX)];
        self.files.push(File::new(names, kind, inside));
        let mut whole = Cursor::new(head).chain(reader);
        match kind {
            Some(Kind::Zip) => {
                let budget = self.budget;
                budget.level(level + 1)?;
                budget.hold(&mut whole, |bytes| self.zip(bytes, path, level + 1))
            }
            Some(Kind::Gzip) => self.gzip(&mut whole, path, level + 1),
            Some(Kind::Tar) => self.tar(&mut whole, path, level + 1),
            _ => {
                let _ = io::copy(&mut whole, &mut io::sink());
                self.spent()
            }
        }
    }

    /// As many bytes as tell a kind.
    fn head(&self, reader: &mut dyn Read) -> Result<Vec<u8>, Excess> {
        let mut head = Vec::new();
        // What is broken ends here: its other readers may see more, and clamd does.
        let _ = reader.take(HEAD_BYTES as u64).read_to_end(&mut head);
        self.spent().map(|()| head)
    }

    fn spent(&self) -> Result<(), Excess> {
        self.budget.excess().map_or(Ok(()), Err)
    }
}
