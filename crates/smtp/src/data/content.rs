//! A message as it is being received: its bytes, its limit, and the first fault that was found in it.
//!
//! A faulty message keeps no bytes, but its reader goes on to the message's end: what is left of it must not be read as commands.

/// What is done with a bare CR or LF in a message: neither ends DATA, neither is passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BareNewline {
    /// Each becomes CRLF.
    Normalize,
    /// Likewise, and it is told ([`crate::server::Facts::bare_newline`]).
    Note,
    /// 550 5.5.2 once the message has been read to its end.
    Refuse,
}

/// Why a message will be refused when it has been read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is larger than allowed.
    TooLarge,
    /// It contains a bare CR or LF.
    BareNewline,
    /// No memory was left for it.
    NoMemory,
}

/// The smallest buffer, bytes: most mail without attachments fits in twice this.
const BYTES_MIN: usize = 4096;

/// A message that is being received.
#[derive(Debug)]
pub struct Content {
    bytes: Vec<u8>,
    bytes_max: usize,
    bare_newline: BareNewline,
    /// One stood in it, and is told.
    noted: bool,
    fault: Option<Fault>,
}

impl Content {
    /// An empty message of at most `bytes_max`.
    pub fn new(bytes_max: u64, bare_newline: BareNewline) -> Self {
        Self {
            bytes: Vec::new(),
            bytes_max: usize::try_from(bytes_max).unwrap_or(usize::MAX),
            bare_newline,
            noted: false,
            fault: None,
        }
    }

    /// How many bytes of memory must be granted before `more` bytes from the wire may be read; 0 when there is room.
    pub fn wants(&self, more: usize) -> usize {
        let capacity = self.bytes.capacity();
        // Each bare newline doubles, and the end of the last line may be added.
        let needed = self
            .bytes
            .len()
            .saturating_add(more.saturating_mul(2).saturating_add(2));
        if self.fault.is_some() || needed <= capacity || capacity >= self.bytes_max {
            return 0;
        }
        let target = needed.max(capacity.saturating_mul(2)).max(BYTES_MIN);
        target.min(self.bytes_max) - capacity
    }

    /// Grows the buffer by what `wants` asked for.
    pub fn grant(&mut self, bytes: usize) {
        let capacity = self.bytes.capacity() + bytes;
        self.bytes.reserve_exact(capacity - self.bytes.len());
    }

    /// Marks the message: its reader goes on to the end, nothing is kept. The first fault stays.
    pub fn spoil(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault);
        self.bytes = Vec::new();
    }

    /// The message, or why it is refused.
    pub fn finish(self) -> Result<Vec<u8>, Fault> {
        match self.fault {
            Some(fault) => Err(fault),
            None => Ok(self.bytes),
        }
    }

    /// Whether a bare newline stood in it that is to be told.
    pub fn noted(&self) -> bool {
        self.noted
    }

    /// The first fault, if any.
    pub fn fault(&self) -> Option<Fault> {
        self.fault
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.fault.is_some() {
            return;
        }
        if bytes.len() > self.bytes_max - self.bytes.len() {
            return self.spoil(Fault::TooLarge);
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// A bare CR or LF stands here.
    pub(super) fn push_bare_newline(&mut self) {
        match self.bare_newline {
            BareNewline::Normalize => self.push(b"\r\n"),
            BareNewline::Note => {
                self.noted = true;
                self.push(b"\r\n");
            }
            BareNewline::Refuse => self.spoil(Fault::BareNewline),
        }
    }

    pub(super) fn at_line_start(&self) -> bool {
        self.bytes.is_empty() || self.bytes.ends_with(b"\r\n")
    }
}
