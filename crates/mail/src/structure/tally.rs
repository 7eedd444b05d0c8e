//! What is counted over a message and everything decoded out of it, each count held against its limit.

use super::head::Head;
use super::{Limits, Objection, Part, Structure};

/// Multiparts whose boundary never comes. Parsers read to the end of the message for each of them.
const UNFOUND_MAX: usize = 10;
/// Headers of nested messages or multiparts that a delimiter ended.
const CUT_HEADERS_MAX: usize = 16;
/// All headers together, as a multiple of the limits for one.
const HEADER_BYTES_FACTOR: usize = 16;
/// All fields together, as a multiple of the limit for one header.
const FIELDS_FACTOR: usize = 64;

/// What is counted over a message and everything decoded out of it.
pub(super) struct Tally<'a> {
    pub(super) structure: Structure,
    pub(super) limits: &'a Limits,
    /// Sees every part.
    pub(super) visit: &'a mut dyn FnMut(Part<'_>),
    header_bytes: usize,
    fields: usize,
    unfound: usize,
    cut_headers: usize,
}

impl<'a> Tally<'a> {
    pub(super) fn new(limits: &'a Limits, visit: &'a mut dyn FnMut(Part<'_>)) -> Self {
        Self {
            structure: Structure::default(),
            limits,
            visit,
            header_bytes: 0,
            fields: 0,
            unfound: 0,
            cut_headers: 0,
        }
    }

    pub(super) fn part(&mut self) -> Result<(), Objection> {
        self.structure.parts += 1;
        if self.structure.parts > self.limits.parts {
            return Err(Objection::TooManyParts(self.limits.parts));
        }
        Ok(())
    }

    pub(super) fn depth(&mut self, depth: usize) -> Result<(), Objection> {
        // To readers that step over a delimiter in a header, the next part lies inside this one.
        let depth = depth + self.cut_headers;
        if depth > self.limits.depth {
            return Err(Objection::TooDeep(self.limits.depth));
        }
        self.structure.depth = self.structure.depth.max(depth);
        Ok(())
    }

    pub(super) fn line(&mut self, bytes: usize) -> Result<(), Objection> {
        if bytes > self.limits.line_bytes {
            return Err(Objection::LineTooLong(self.limits.line_bytes));
        }
        self.structure.line_bytes = self.structure.line_bytes.max(bytes);
        Ok(())
    }

    pub(super) fn header(&mut self, head: &Head) -> Result<(), Objection> {
        if self.structure.parts == 1 {
            self.structure.header_bytes = head.bytes;
            self.structure.header_fields = head.fields;
            self.structure.received = head.received;
        }
        self.header_bytes += head.bytes;
        self.fields += head.fields;
        let bytes_max = self.limits.header_bytes.saturating_mul(HEADER_BYTES_FACTOR);
        if self.header_bytes > bytes_max {
            return Err(Objection::HeaderTooLong(bytes_max));
        }
        let fields_max = self.limits.header_fields.saturating_mul(FIELDS_FACTOR);
        if self.fields > fields_max {
            return Err(Objection::TooManyFields(fields_max));
        }
        Ok(())
    }

    /// Counts a header that a delimiter ended.
    pub(super) fn cut_header(&mut self) -> Result<(), Objection> {
        self.cut_headers += 1;
        if self.cut_headers > CUT_HEADERS_MAX {
            return Err(Objection::Ambiguous("headers that end in delimiters"));
        }
        Ok(())
    }

    /// Counts a multipart whose boundary never came.
    pub(super) fn unfound(&mut self) -> Result<(), Objection> {
        self.unfound += 1;
        if self.unfound > UNFOUND_MAX {
            return Err(Objection::Ambiguous("multiparts that never begin"));
        }
        Ok(())
    }
}
