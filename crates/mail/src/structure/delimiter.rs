//! Boundaries and where they occur in a line (RFC 2046 5.1.1).
//!
//! A delimiter is `--` and the boundary at the start of a line, alone but for white space. Readers exist that match its beginning
//! only, or in the middle of a line: such an occurrence is told apart, since they would see a part there.

use super::Objection;

/// Bytes that may be compared for each byte of the message. Honest mail stays far below 1; only boundaries made to be nearly
/// found all the time come near.
const COMPARED_PER_BYTE_MAX: usize = 16;

/// A boundary, split so that a run of dashes is looked at once: its leading dashes are counted, the rest is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Boundary {
    dashes: usize,
    rest: Box<[u8]>,
}

impl Boundary {
    pub(super) fn new(text: &[u8]) -> Self {
        let dashes = text.iter().take_while(|b| **b == b'-').count();
        Self {
            dashes,
            rest: text[dashes..].into(),
        }
    }
}

/// What a boundary does in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The line is its delimiter, or with `close` its closing delimiter.
    Delimiter { close: bool },
    /// It occurs, but the line is no delimiter to a strict reader.
    Stray,
}

/// How much comparing a walk may still do.
#[derive(Debug)]
pub(super) struct Budget(usize);

impl Budget {
    pub(super) fn new(message_bytes: usize) -> Self {
        Self((message_bytes + 4096).saturating_mul(COMPARED_PER_BYTE_MAX))
    }

    fn spend(&mut self, bytes: usize) -> Result<(), Objection> {
        self.0 = (self.0.checked_sub(bytes)).ok_or(Objection::Ambiguous(
            "boundaries that are nearly found everywhere",
        ))?;
        Ok(())
    }
}

/// What one of the boundaries (innermost last) does in this line, and which. A delimiter counts before strays: a line that is
/// exactly an inner one's delimiter may well start like an outer one's.
pub(super) fn find<'a>(
    line: &[u8],
    boundaries: impl Iterator<Item = (usize, &'a Boundary)> + Clone,
    budget: &mut Budget,
) -> Result<Option<(usize, Found)>, Objection> {
    let mut stray = None;
    let mut at = 0;
    while let Some(start) = line[at..].iter().position(|b| *b == b'-') {
        let start = at + start;
        let run = line[start..].iter().take_while(|b| **b == b'-').count();
        at = start + run;
        if run < 2 {
            continue;
        }
        for (index, boundary) in boundaries.clone() {
            let Some(found) = occurs(line, start, run, boundary, budget)? else {
                continue;
            };
            match found {
                Found::Delimiter { .. } => return Ok(Some((index, found))),
                Found::Stray => stray = Some((index, found)),
            }
        }
    }
    Ok(stray)
}

/// Whether `--boundary` occurs so that it ends or begins in the run of dashes `start..start + run`.
fn occurs(
    line: &[u8],
    start: usize,
    run: usize,
    boundary: &Boundary,
    budget: &mut Budget,
) -> Result<Option<Found>, Objection> {
    if run < boundary.dashes + 2 {
        return Ok(None);
    }
    let behind = &line[start + run..];
    let alike = (boundary.rest.iter().zip(behind))
        .take_while(|(a, b)| a == b)
        .count();
    budget.spend(alike)?;
    if alike < boundary.rest.len() {
        return Ok(None);
    }
    let mut tail = &behind[alike..];
    let mut spare = run - boundary.dashes - 2;
    let mut close = false;
    if boundary.rest.is_empty() && spare == 2 {
        // A boundary of dashes alone: what closes it belongs to the same run.
        (spare, close) = (0, true);
    } else if let Some(rest) = tail.strip_prefix(b"--") {
        (tail, close) = (rest, true);
    }
    let alone = start == 0 && spare == 0 && tail.iter().all(|b| matches!(b, b' ' | b'\t' | b'\r'));
    Ok(Some(if alone {
        Found::Delimiter { close }
    } else {
        Found::Stray
    }))
}
