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

/// A boundary that readers may be looking for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sought<'a> {
    pub(super) boundary: &'a Boundary,
    pub(super) state: State,
}

/// How a boundary's multipart stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Open, at this depth.
    Open(usize),
    /// Its closing delimiter has come, and none of an outer one yet.
    Closed(usize),
    /// An outer delimiter came first: it is over, but not to readers that look for the innermost boundary alone.
    Abandoned,
}

/// The delimiter that a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Delimiter {
    /// The depth of its multipart.
    pub(super) at: usize,
    /// Whether it closes it.
    pub(super) close: bool,
}

/// How a boundary occurs in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Occurrence {
    /// The line is its delimiter, or with `close` its closing delimiter.
    Alone { close: bool },
    /// The line is no delimiter to a strict reader.
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

/// The delimiter that this line is, when all readers agree on it.
pub(super) fn find<'a>(
    line: &[u8],
    sought: impl Iterator<Item = Sought<'a>> + Clone,
    budget: &mut Budget,
) -> Result<Option<Delimiter>, Objection> {
    let mut delimiter = None;
    let mut innermost_stray = None;
    let mut at = 0;
    while let Some(start) = line[at..].iter().position(|b| *b == b'-') {
        let start = at + start;
        let run = line[start..].iter().take_while(|b| **b == b'-').count();
        at = start + run;
        if run < 2 {
            continue;
        }
        for Sought { boundary, state } in sought.clone() {
            match (occurs(line, start, run, boundary, budget)?, state) {
                (None, _) | (Some(Occurrence::Stray), State::Closed(_)) => {}
                (Some(_), State::Abandoned) => {
                    return Err(Objection::Ambiguous("part behind the end of its multipart"));
                }
                (Some(Occurrence::Alone { close }), State::Open(at) | State::Closed(at)) => {
                    if delimiter.replace(Delimiter { at, close }).is_some() {
                        return Err(Objection::Ambiguous("delimiter of two multiparts"));
                    }
                }
                (Some(Occurrence::Stray), State::Open(at)) => {
                    innermost_stray = innermost_stray.max(Some(at));
                }
            }
        }
    }
    // A delimiter may well start like one of a multipart around its own; not like one inside it, nor may other lines.
    if innermost_stray > delimiter.map(|delimiter| delimiter.at) {
        return Err(Objection::Ambiguous("boundary inside a line"));
    }
    Ok(delimiter)
}

/// Whether `--boundary` occurs so that it ends or begins in the run of dashes `start..start + run`.
fn occurs(
    line: &[u8],
    start: usize,
    run: usize,
    boundary: &Boundary,
    budget: &mut Budget,
) -> Result<Option<Occurrence>, Objection> {
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
        Occurrence::Alone { close }
    } else {
        Occurrence::Stray
    }))
}
