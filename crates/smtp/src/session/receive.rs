//! A message coming in, by DATA or by BDAT: always read to its end, whatever is to be said then.

use bytes::{Buf, Bytes, BytesMut};
use mail::{Envelope, Reply};

use super::state::{Asked, Chunked, Incoming, State};
use super::{Session, replies};
use crate::data::{ChunkReader, Content, DotReader};
use crate::objection::{Objection, Refusal};

impl Session {
    /// One transition; `false` when the session waits for something.
    pub(super) fn advance(&mut self, input: &mut BytesMut, out: &mut Vec<u8>) -> bool {
        match self.state.take() {
            state @ (State::Asked(_) | State::Securing | State::Closed(_)) => {
                self.state = state;
                false
            }
            state @ (State::Fresh | State::Ready | State::Transaction(_) | State::Chunks(_)) => {
                self.read_command(state, input, out)
            }
            State::Data {
                mut incoming,
                mut reader,
            } => {
                if input.is_empty() || incoming.content.wants(input.len()) > 0 {
                    self.state = State::Data { incoming, reader };
                    return false;
                }
                match reader.read(input, &mut incoming.content) {
                    Some(read) => {
                        input.advance(read);
                        self.received(*incoming, out);
                        true
                    }
                    None => {
                        input.clear();
                        self.state = State::Data { incoming, reader };
                        false
                    }
                }
            }
            State::Chunk {
                incoming,
                reader,
                left,
                last,
            } => self.read_chunk(incoming, reader, left, last, input, out),
            State::Discard { left, reply, after } => {
                let read = input.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                input.advance(read);
                let left = left - read as u64;
                if left > 0 {
                    self.state = State::Discard { left, reply, after };
                    return false;
                }
                self.object(Objection::Sequence, *after, reply, out);
                true
            }
        }
    }

    fn read_chunk(
        &mut self,
        mut incoming: Box<Incoming>,
        mut reader: ChunkReader,
        left: u64,
        last: bool,
        input: &mut BytesMut,
        out: &mut Vec<u8>,
    ) -> bool {
        let room = incoming.content.wants(input.len()) == 0;
        if left > 0 && (input.is_empty() || !room) {
            self.state = State::Chunk {
                incoming,
                reader,
                left,
                last,
            };
            return false;
        }
        let read = input.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        reader.read(&input.split_to(read), &mut incoming.content);
        let left = left - read as u64;
        if left > 0 {
            self.state = State::Chunk {
                incoming,
                reader,
                left,
                last,
            };
            return true;
        }
        if last {
            reader.end(&mut incoming.content);
            self.received(*incoming, out);
        } else {
            let fault = incoming.content.fault();
            self.state = State::Chunks(Box::new(Chunked {
                incoming: *incoming,
                reader,
            }));
            match fault {
                Some(fault) => self.refuse_chunk(fault.into(), out),
                None => replies::chunk_received().write(out),
            }
        }
        true
    }

    /// A faulty message is refused at each chunk, so that its client need not send the rest; the handler is told once.
    fn refuse_chunk(&mut self, objection: Objection, out: &mut Vec<u8>) {
        let refusal = Refusal::new(objection, objection.reply());
        match &mut self.state {
            State::Chunks(chunked) if !chunked.incoming.told => {
                chunked.incoming.told = true;
                let refusal = refusal.of(&chunked.incoming.envelope);
                self.refuse_as(refusal, out);
            }
            _ => self.refuse(refusal.reply, out),
        }
    }

    /// A message has been read to its end.
    fn received(&mut self, incoming: Incoming, out: &mut Vec<u8>) {
        let Incoming {
            envelope,
            content,
            told,
        } = incoming;
        self.facts.bare_newline = content.noted();
        match content.finish() {
            Ok(message) => {
                let message = Bytes::from(message);
                self.state = State::Asked(Asked::Message { envelope, message });
            }
            Err(fault) => {
                let objection = Objection::from(fault);
                let mut refusal = Refusal::new(objection, objection.reply()).of(&envelope);
                let reply = refusal.reply.clone();
                for _ in 0..self.replies_to_message(&envelope) {
                    refusal.reply = self.say(reply.clone(), out);
                }
                if !told {
                    self.objected.push_back(Box::new(refusal));
                }
                self.end_transaction();
            }
        }
    }

    pub(super) fn data(&mut self, envelope: Envelope, out: &mut Vec<u8>) {
        if envelope.recipients.is_empty() {
            let reply = replies::no_recipients(self.settings.protocol);
            let state = State::Transaction(envelope);
            return self.object(Objection::Sequence, state, reply, out);
        }
        replies::start_data().write(out);
        let incoming = Box::new(self.incoming(envelope));
        self.state = State::Data {
            incoming,
            reader: DotReader::default(),
        };
    }

    /// The chunk is consumed whatever becomes of it: else its content would become commands.
    pub(super) fn bdat(&mut self, state: State, bytes: u64, last: bool) {
        let refuse = |after: State, reply: Reply| State::Discard {
            left: bytes,
            reply,
            after: Box::new(after),
        };
        let chunked = match state {
            _ if !self.extensions().chunking => {
                self.state = refuse(state, replies::not_implemented());
                return;
            }
            State::Transaction(envelope) if envelope.recipients.is_empty() => {
                let reply = replies::no_recipients(self.settings.protocol);
                self.state = refuse(State::Transaction(envelope), reply);
                return;
            }
            State::Transaction(envelope) => Chunked {
                incoming: self.incoming(envelope),
                reader: ChunkReader::default(),
            },
            State::Chunks(chunked) => *chunked,
            state => {
                let reply = replies::bad_sequence("MAIL first");
                self.state = refuse(state, reply);
                return;
            }
        };
        let Chunked { incoming, reader } = chunked;
        let incoming = Box::new(incoming);
        self.state = State::Chunk {
            incoming,
            reader,
            left: bytes,
            last,
        };
    }

    fn incoming(&self, envelope: Envelope) -> Incoming {
        let Self { settings, .. } = self;
        let content = Content::new(settings.message_bytes_max, settings.bare_newline);
        Incoming {
            envelope,
            content,
            told: false,
        }
    }
}
