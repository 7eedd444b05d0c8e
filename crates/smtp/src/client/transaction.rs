//! One transaction: in as few flights as the server allows, with a reply for each recipient.
//!
//! The point of no return is the message's last byte. Once that was handed over, a broken connection leaves the message's fate
//! unknown, and the trouble says [`Phase::End`]; at any moment before, nothing was accepted.

mod message;

use bytes::Bytes;
use mail::{Envelope, Reply};
use tokio::io::{AsyncRead, AsyncWrite};

use super::channel::Unwritten;
use super::connection::Connection;
use super::flight::{self, About, Command, Message, Offered};
use super::{Answer, Cause, Phase, Trouble};
use crate::data::canonical;

/// A message up to this size travels by BDAT in one write with its envelope, before any reply is known.
const SMALL_MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Commands in one write: their replies must fit what is read ahead, whatever a server puts into them.
const GROUP_COMMANDS_MAX: usize = 256;

/// A transaction that came to its end.
pub struct Done {
    /// One for each recipient.
    pub answers: Vec<Answer>,
    /// The connection can take another transaction.
    pub usable: bool,
}

/// How the message travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// DATA, dots stuffed.
    Data,
    /// BDAT behind RCPT, in the same write.
    SmallChunk,
    /// BDAT after the replies to RCPT.
    Chunk,
}

/// Runs a transaction on a quiet connection.
pub async fn run<S: AsyncRead + AsyncWrite + Unpin>(
    connection: &mut Connection<S>,
    envelope: &Envelope,
    parts: &[Bytes],
) -> Result<Done, Trouble> {
    let message = Message::new(canonical(parts));
    let offered = Offered {
        size: connection.offered("SIZE").is_some(),
        // 0 and nothing both say that there is no fixed limit (RFC 1870 4).
        bytes_max: connection
            .offered("SIZE")
            .and_then(|most| most.parse().ok())
            .filter(|most| *most > 0),
        eight_bit_mime: connection.offered("8BITMIME").is_some(),
        smtputf8: connection.offered("SMTPUTF8").is_some(),
        dsn: connection.offered("DSN").is_some(),
    };
    let recipients = envelope.recipients.iter();
    let fates: Vec<Option<Answer>> = recipients
        .map(|recipient| {
            let reply = flight::unsendable(envelope, recipient, &message, offered)?;
            Some(Answer {
                phase: Phase::Helo,
                reply,
            })
        })
        .collect();
    let pipelining = connection.offered("PIPELINING").is_some();
    let chunking = connection.chunking && connection.offered("CHUNKING").is_some();
    let way = match chunking {
        false => Way::Data,
        true if pipelining && message.bytes <= SMALL_MESSAGE_BYTES_MAX => Way::SmallChunk,
        true => Way::Chunk,
    };
    let mut transaction = Transaction {
        connection,
        message,
        way,
        fates,
        accepted: Vec::new(),
        mail: None,
        handed_over: false,
    };
    if transaction.fates.iter().all(Option::is_some) {
        return Ok(transaction.done(true));
    }
    let commands = transaction.commands(envelope, offered, pipelining);
    transaction.send(commands, pipelining).await
}

struct Transaction<'a, S> {
    connection: &'a mut Connection<S>,
    message: Message,
    way: Way,
    /// What is known of each recipient's end.
    fates: Vec<Option<Answer>>,
    /// Positions of the recipients whose RCPT was accepted.
    accepted: Vec<usize>,
    /// The reply to MAIL.
    mail: Option<Reply>,
    /// The message's last byte was handed over.
    handed_over: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Transaction<'_, S> {
    /// Everything up to where a reply must be awaited.
    fn commands(
        &mut self,
        envelope: &Envelope,
        offered: Offered,
        pipelining: bool,
    ) -> Vec<Command> {
        let rest = |bytes: String| Command {
            about: About::Rest,
            bytes: bytes.into_bytes(),
        };
        let mut commands = Vec::with_capacity(envelope.recipients.len() + 4);
        if self.connection.open_transaction {
            commands.push(rest("RSET\r\n".to_owned()));
        }
        commands.extend(self.connection.xforward.drain(..).map(rest));
        let bytes = flight::mail(envelope, &self.message, offered);
        commands.push(Command {
            about: About::Mail,
            bytes,
        });
        for (position, recipient) in envelope.recipients.iter().enumerate() {
            if self.fates[position].is_none() {
                let bytes = flight::rcpt(recipient, offered);
                commands.push(Command {
                    about: About::Rcpt(position),
                    bytes,
                });
            }
        }
        if self.way == Way::Data && pipelining {
            commands.push(Command {
                about: About::Data,
                bytes: b"DATA\r\n".to_vec(),
            });
        }
        self.connection.open_transaction = true;
        commands
    }

    async fn send(mut self, commands: Vec<Command>, pipelining: bool) -> Result<Done, Trouble> {
        let group_max = if pipelining { GROUP_COMMANDS_MAX } else { 1 };
        let mut data = None;
        let mut groups = commands.chunks(group_max).peekable();
        while let Some(group) = groups.next() {
            if self.mail.as_ref().is_some_and(|mail| !mail.is_positive()) {
                return Ok(self.nobody());
            }
            self.write_group(group, groups.peek().is_none()).await?;
            for command in group {
                let reply = match self.reply(command.about).await {
                    Ok(reply) => reply,
                    Err(trouble) => return self.broken(trouble),
                };
                match command.about {
                    About::Rest => {}
                    About::Mail => self.mail = Some(reply),
                    About::Rcpt(position) => self.settle_rcpt(position, reply),
                    About::Data => data = Some(reply),
                }
            }
        }
        match self.way {
            Way::SmallChunk => self.end().await,
            Way::Chunk if self.accepted.is_empty() => Ok(self.nobody()),
            Way::Chunk => self.send_chunk().await,
            Way::Data => self.send_data(data).await,
        }
    }

    /// Commands in one write: the shortest way, and no Nagle or delayed acknowledgement to meet on it.
    async fn write_group(&mut self, group: &[Command], last: bool) -> Result<(), Trouble> {
        let mut flight: Vec<u8> = group
            .iter()
            .flat_map(|command| &command.bytes)
            .copied()
            .collect();
        let with_message = last && self.way == Way::SmallChunk;
        if with_message {
            flight.reserve(self.message.bytes + 32);
            flight.extend_from_slice(format!("BDAT {} LAST\r\n", self.message.bytes).as_bytes());
            self.message
                .parts
                .iter()
                .for_each(|part| flight.extend_from_slice(part));
        }
        let phase = group[0].about.phase();
        let patience = self.patience(phase);
        let written = self.connection.channel.write(&flight, patience).await;
        let handed_over = written
            .as_ref()
            .err()
            .is_none_or(|unwritten| unwritten.handed_over);
        self.handed_over = with_message && handed_over;
        written.map_err(|Unwritten { cause, .. }| self.trouble(cause, phase))
    }

    async fn write(&mut self, bytes: &[u8], phase: Phase) -> Result<(), Trouble> {
        let patience = self.patience(phase);
        let written = self.connection.channel.write(bytes, patience).await;
        written.map_err(|unwritten| unwritten.cause.at(phase))
    }

    fn patience(&self, phase: Phase) -> std::time::Duration {
        let timeouts = &self.connection.timeouts;
        match phase {
            Phase::Mail | Phase::Rest => timeouts.mail,
            Phase::Rcpt => timeouts.rcpt,
            Phase::Data => timeouts.data_start,
            Phase::Connect | Phase::Greeting | Phase::Helo | Phase::End => timeouts.data_end,
        }
    }

    /// A reply before the end of the message.
    async fn reply(&mut self, about: About) -> Result<Reply, Trouble> {
        let phase = about.phase();
        let patience = self.patience(phase);
        match self.connection.channel.reply(patience).await {
            // It answers a command before the message: the server did not come as far as to accept anything.
            Ok(reply) if reply.code == 421 => Err(Cause::Refused(reply).at(phase)),
            Ok(reply) if reply.code / 100 == 3 && about != About::Data => Err(self.trouble(
                Cause::Protocol(format!("{phase:?} answered {reply}")),
                phase,
            )),
            Ok(reply) => Ok(reply),
            Err(cause) => Err(self.trouble(cause, phase)),
        }
    }

    /// Trouble in a phase, or at the end when the message may have been accepted.
    fn trouble(&self, cause: Cause, phase: Phase) -> Trouble {
        cause.at(if self.handed_over { Phase::End } else { phase })
    }

    fn settle_rcpt(&mut self, position: usize, reply: Reply) {
        match &self.mail {
            Some(mail) if !mail.is_positive() => {
                self.fates[position] = Some(Answer {
                    phase: Phase::Mail,
                    reply: mail.clone(),
                });
            }
            _ if reply.is_positive() => self.accepted.push(position),
            _ => {
                self.fates[position] = Some(Answer {
                    phase: Phase::Rcpt,
                    reply,
                });
            }
        }
    }

    /// The connection broke. When every recipient's end is known already, that does no harm.
    fn broken(mut self, trouble: Trouble) -> Result<Done, Trouble> {
        self.spread_refusal_of_mail();
        if self.fates.iter().all(Option::is_some) {
            Ok(self.done(false))
        } else {
            Err(trouble)
        }
    }

    /// Nobody is left to send the message to.
    fn nobody(mut self) -> Done {
        self.spread_refusal_of_mail();
        self.done(true)
    }

    fn spread_refusal_of_mail(&mut self) {
        if let Some(mail) = self.mail.take_if(|mail| !mail.is_positive()) {
            self.connection.open_transaction = false;
            self.settle(Phase::Mail, mail);
        }
    }

    /// The same reply for all whose end is not known.
    fn settle(&mut self, phase: Phase, reply: Reply) {
        let answer = Answer { phase, reply };
        for fate in &mut self.fates {
            fate.get_or_insert_with(|| answer.clone());
        }
    }

    fn done(self, usable: bool) -> Done {
        let answers = self.fates.into_iter().flatten().collect();
        Done { answers, usable }
    }
}
