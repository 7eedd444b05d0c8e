//! A connection from its greeting to QUIT: what the server offers, and whether it can take a transaction.

use bytes::Bytes;
use mail::{Envelope, Reply, Severity};
use tokio::io::{AsyncRead, AsyncWrite};

use super::channel::Channel;
use super::{Answer, Cause, Options, Phase, Timeouts, TlsPolicy, Trouble, transaction};
use crate::Protocol;
use crate::xforward::Xforward;

/// A connection whose server has greeted and been greeted.
pub struct Connection<S> {
    pub channel: Channel<S>,
    pub protocol: Protocol,
    pub chunking: bool,
    pub timeouts: Timeouts,
    offers: Vec<Offer>,
    /// XFORWARD commands for the next message.
    pub xforward: Vec<String>,
    /// The server may hold a transaction open: RSET goes first.
    pub open_transaction: bool,
    /// No operation failed or was dropped half-way.
    usable: bool,
}

/// A keyword of the EHLO reply with its arguments.
struct Offer {
    keyword: String,
    arguments: String,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Reads the greeting, says EHLO or LHLO, starts TLS as the policy wants and says EHLO again.
    pub async fn open(stream: S, options: &Options) -> Result<Self, Trouble> {
        let mut connection = Self {
            channel: Channel::new(stream),
            protocol: options.protocol,
            chunking: options.chunking,
            timeouts: options.timeouts,
            offers: Vec::new(),
            xforward: Vec::new(),
            open_transaction: false,
            usable: true,
        };
        let patience = options.timeouts.greeting;
        let greeting = connection.channel.reply(patience).await;
        match greeting.map_err(|cause| cause.at(Phase::Greeting))? {
            reply if reply.code == 220 => {}
            reply => return Err(Cause::Refused(reply).at(Phase::Greeting)),
        }
        connection
            .hello(options)
            .await
            .map_err(|cause| cause.at(Phase::Helo))?;
        connection
            .start_tls(options)
            .await
            .map_err(|cause| cause.at(Phase::Helo))
    }

    /// One command and its reply.
    async fn command(&mut self, line: &str, options: &Options) -> Result<Reply, Cause> {
        let patience = options.timeouts.helo;
        let written = self.channel.write(line.as_bytes(), patience).await;
        written.map_err(|unwritten| unwritten.cause)?;
        match self.channel.reply(patience).await? {
            reply if reply.code == 421 => Err(Cause::Refused(reply)),
            reply => Ok(reply),
        }
    }

    async fn hello(&mut self, options: &Options) -> Result<(), Cause> {
        let verb = match self.protocol {
            Protocol::Smtp => "EHLO",
            Protocol::Lmtp => "LHLO",
        };
        let reply = self
            .command(&format!("{verb} {}\r\n", options.helo), options)
            .await?;
        if reply.code == 250 {
            self.offers = offers(&reply);
            return Ok(());
        }
        // A server of before 1993. It cannot speak TLS either.
        let fallback = self.protocol == Protocol::Smtp
            && reply.severity() == Severity::Permanent
            && !matches!(options.tls, TlsPolicy::Required(..));
        if !fallback {
            return Err(Cause::Refused(reply));
        }
        self.offers.clear();
        match self
            .command(&format!("HELO {}\r\n", options.helo), options)
            .await?
        {
            reply if reply.code == 250 => Ok(()),
            reply => Err(Cause::Refused(reply)),
        }
    }

    async fn start_tls(mut self, options: &Options) -> Result<Self, Cause> {
        let (config, name, required) = match &options.tls {
            TlsPolicy::Never => return Ok(self),
            TlsPolicy::Opportunistic(config, name) => (config, name, false),
            TlsPolicy::Required(config, name) => (config, name, true),
        };
        let agreed = match self.offered("STARTTLS") {
            Some(_) => self.command("STARTTLS\r\n", options).await?.code == 220,
            None => false,
        };
        if !agreed {
            return if required {
                Err(Cause::NoTls)
            } else {
                Ok(self)
            };
        }
        let patience = options.timeouts.helo;
        self.channel = self
            .channel
            .secure(config.clone(), name.clone(), patience)
            .await?;
        // Nothing that was said in the clear counts any more (RFC 3207 4.2).
        self.offers.clear();
        self.hello(options).await?;
        Ok(self)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// The arguments of a keyword, when it was offered.
    pub fn offered(&self, keyword: &str) -> Option<&str> {
        let offer = self
            .offers
            .iter()
            .find(|offer| offer.keyword.eq_ignore_ascii_case(keyword));
        offer.map(|offer| offer.arguments.as_str())
    }

    /// Keeps what is known of the original client for the next message.
    pub fn xforward(&mut self, attributes: &Xforward) {
        self.xforward = match self.offered("XFORWARD") {
            Some(offered) => attributes.commands(offered),
            None => Vec::new(),
        };
    }

    /// One transaction.
    pub async fn send(
        &mut self,
        envelope: &Envelope,
        parts: &[Bytes],
    ) -> Result<Vec<Answer>, Trouble> {
        if !std::mem::take(&mut self.usable) {
            return Err(Cause::Closed.at(Phase::Mail));
        }
        self.channel
            .check_quiet()
            .await
            .map_err(|cause| cause.at(Phase::Mail))?;
        let done = transaction::run(self, envelope, parts).await?;
        self.usable = done.usable;
        Ok(done.answers)
    }

    /// QUIT.
    pub async fn quit(mut self) {
        if !self.usable {
            return;
        }
        let patience = self.timeouts.rest;
        if self.channel.write(b"QUIT\r\n", patience).await.is_ok() {
            let _ = self.channel.reply(patience).await;
        }
        let _ = tokio::time::timeout(patience, self.channel.shutdown()).await;
    }
}

/// The first line of the reply is the server's name, each other one a keyword.
fn offers(reply: &Reply) -> Vec<Offer> {
    let keywords = reply.lines.iter().skip(1).map(|line| {
        let (keyword, arguments) = line.split_once(' ').unwrap_or((line, ""));
        Offer {
            keyword: keyword.to_ascii_uppercase(),
            arguments: arguments.trim().to_owned(),
        }
    });
    keywords.collect()
}
