//! The message itself, by DATA or BDAT, and what is said of it.

use mail::Reply;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Done, Transaction, Way};
use crate::Protocol;
use crate::client::channel::Unwritten;
use crate::client::flight::About;
use crate::client::{Answer, Cause, Phase, Trouble};
use crate::data::Stuffer;

/// A message is written in blocks of this size, each within `timeouts.data_block`.
const BLOCK_BYTES: usize = 64 * 1024;

impl<S: AsyncRead + AsyncWrite + Unpin> Transaction<'_, S> {
    pub(super) async fn send_data(mut self, pipelined: Option<Reply>) -> Result<Done, Trouble> {
        let reply = match pipelined {
            Some(reply) => reply,
            None if self.accepted.is_empty() => return Ok(self.nobody()),
            None => {
                self.write(b"DATA\r\n", Phase::Data).await?;
                self.reply(About::Data).await?
            }
        };
        match reply.code {
            354 if self.accepted.is_empty() => self.send_nothing().await,
            354 => self.send_body(Vec::new(), Some(Stuffer::default())).await,
            400.. => {
                self.spread_refusal_of_mail();
                self.settle(Phase::Data, reply);
                Ok(self.done(true))
            }
            _ => Err(Cause::Protocol(format!("DATA answered {reply}")).at(Phase::Data)),
        }
    }

    /// The server wants a message though it accepted nobody: it gets a lone dot (RFC 2920 3.1).
    async fn send_nothing(mut self) -> Result<Done, Trouble> {
        let patience = self.connection.timeouts.rest;
        let channel = &mut self.connection.channel;
        let written = channel.write(b".\r\n", patience).await.is_ok();
        // LMTP owes a reply a recipient, that is none; whether this server knows that is not worth finding out.
        let answered = written
            && self.connection.protocol == Protocol::Smtp
            && channel
                .reply(patience)
                .await
                .is_ok_and(|reply| reply.code != 421);
        self.spread_refusal_of_mail();
        Ok(self.done(answered))
    }

    pub(super) async fn send_chunk(self) -> Result<Done, Trouble> {
        let command = format!("BDAT {} LAST\r\n", self.message.bytes);
        self.send_body(command.into_bytes(), None).await
    }

    /// Writes the message in blocks, behind what `block` holds already.
    async fn send_body(
        mut self,
        mut block: Vec<u8>,
        mut stuffer: Option<Stuffer>,
    ) -> Result<Done, Trouble> {
        let parts = std::mem::take(&mut self.message.parts);
        let mut left = self.message.bytes;
        block.reserve(left.min(BLOCK_BYTES + BLOCK_BYTES / 16) + 64);
        for piece in parts.iter().flat_map(|part| part.chunks(BLOCK_BYTES)) {
            match &mut stuffer {
                Some(stuffer) => stuffer.write(piece, &mut block),
                None => block.extend_from_slice(piece),
            }
            left -= piece.len();
            if block.len() >= BLOCK_BYTES && left > 0 {
                if let Err(unwritten) = self.write_block(&block).await {
                    return self.cut_short(unwritten.cause).await;
                }
                block.clear();
            }
        }
        if let Some(stuffer) = stuffer {
            stuffer.end(&mut block);
        }
        match self.write_block(&block).await {
            Ok(()) => self.handed_over = true,
            Err(Unwritten {
                cause,
                handed_over: true,
            }) => return Err(cause.at(Phase::End)),
            Err(Unwritten { cause, .. }) => return self.cut_short(cause).await,
        }
        self.end().await
    }

    async fn write_block(&mut self, block: &[u8]) -> Result<(), Unwritten> {
        let patience = self.connection.timeouts.data_block;
        self.connection.channel.write(block, patience).await
    }

    /// The message could not be written to its end. A server that closes within it has perhaps said why.
    async fn cut_short(mut self, cause: Cause) -> Result<Done, Trouble> {
        let patience = self.connection.timeouts.rest;
        match self.connection.channel.reply(patience).await {
            Ok(reply) if reply.code == 421 => Err(Cause::Refused(reply).at(Phase::Data)),
            Ok(reply) if !reply.is_positive() => {
                self.settle(Phase::Data, reply);
                Ok(self.done(false))
            }
            _ => Err(cause.at(Phase::Data)),
        }
    }

    /// Reads the replies to the message.
    pub(super) async fn end(mut self) -> Result<Done, Trouble> {
        if self.accepted.is_empty() {
            // A chunk was sent ahead, for nobody as it turns out; its refusal is read so that the next transaction is not met by it.
            let patience = self.connection.timeouts.rest;
            let reply = self.connection.channel.reply(patience).await;
            self.spread_refusal_of_mail();
            return Ok(self.done(reply.is_ok_and(|reply| reply.code != 421)));
        }
        let patience = self.connection.timeouts.data_end;
        let accepted = std::mem::take(&mut self.accepted);
        let owed = match self.connection.protocol {
            Protocol::Smtp => 1,
            Protocol::Lmtp => accepted.len(),
        };
        for (nth, &position) in accepted.iter().enumerate().take(owed) {
            let cause = match self.connection.channel.reply(patience).await {
                Ok(reply) if reply.code == 421 => {
                    // In place of the reply: this message was not accepted, for this recipient and the following.
                    self.settle(Phase::End, reply);
                    return Ok(self.done(false));
                }
                Ok(reply) if reply.code / 100 != 3 => {
                    self.fates[position] = Some(Answer {
                        phase: Phase::End,
                        reply,
                    });
                    continue;
                }
                Ok(reply) => Cause::Protocol(format!("the message answered {reply}")),
                Err(cause) => cause,
            };
            if nth == 0 {
                return Err(cause.at(Phase::End));
            }
            // What the server owns it said; the others are tried again, at the risk of a second copy.
            let reply = format!("no reply for this recipient: {cause}");
            self.settle(Phase::End, Reply::new(451, (4, 4, 2), reply));
            return Ok(self.done(false));
        }
        let reply = self.fates[accepted[0]].as_ref();
        let reply = reply.map(|answer| answer.reply.clone());
        // After a refused BDAT the state is indeterminate (RFC 3030 4.1); in all other cases the transaction is over.
        self.connection.open_transaction =
            self.way != Way::Data && reply.as_ref().is_some_and(|reply| !reply.is_positive());
        if let Some(reply) = reply.filter(|_| owed == 1) {
            self.settle(Phase::End, reply);
        }
        Ok(self.done(true))
    }
}
