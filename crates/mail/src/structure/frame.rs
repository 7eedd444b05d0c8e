//! What is open around a line, and which boundaries readers are therefore looking for.

use super::delimiter::{Boundary, Sought, State};

/// Something that is open around the present line.
pub(super) enum Frame {
    Message,
    Multipart {
        boundary: Boundary,
        digest: bool,
        progress: Progress,
    },
}

/// How far a multipart has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// No delimiter yet.
    Preamble,
    /// In its parts.
    Parts,
    /// Behind its closing delimiter.
    Epilogue,
    /// Its closing delimiter came before any part or in a header: over to a strict reader, in its parts to a lax one.
    Doubtful,
}

impl Frame {
    /// What readers look for while this frame, `at` deep, is open.
    fn sought(&self, at: usize) -> Option<Sought<'_>> {
        let Self::Multipart {
            boundary, progress, ..
        } = self
        else {
            return None;
        };
        let state = match progress {
            Progress::Preamble | Progress::Parts | Progress::Doubtful => State::Open(at),
            Progress::Epilogue => State::Closed(at),
        };
        Some(Sought { boundary, state })
    }
}

/// All boundaries that some reader may be looking for.
pub(super) fn sought<'a>(
    frames: &'a [Frame],
    abandoned: &'a [Boundary],
) -> impl Iterator<Item = Sought<'a>> + Clone {
    let over = abandoned.iter().map(|boundary| Sought {
        boundary,
        state: State::Abandoned,
    });
    let open = frames.iter().enumerate();
    open.filter_map(|(at, frame)| frame.sought(at)).chain(over)
}
