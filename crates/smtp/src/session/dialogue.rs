//! What each command does in each state, and what a handler's answer does.

use bytes::BytesMut;
use mail::{Envelope, Recipient, Reply, Severity};

use super::state::{Asked, State};
use super::{Session, replies};
use crate::Protocol;
use crate::command::{Command, CommandError, ForwardPath, Line, Mail, Rcpt};
use crate::data::BareNewline;
use crate::facts::{Ending, Facts};
use crate::objection::{Objection, Refusal};
use crate::xclient::Xclient;

impl Session {
    pub(super) fn read_command(
        &mut self,
        state: State,
        input: &mut BytesMut,
        out: &mut Vec<u8>,
    ) -> bool {
        let Some(line) = self.lines.next(input) else {
            self.state = state;
            return false;
        };
        let line = match line {
            Line::Whole(line) => Ok(line),
            Line::BareLf(line) => match self.settings.bare_newline {
                BareNewline::Normalize | BareNewline::Note => Ok(line),
                BareNewline::Refuse => Err(CommandError::Control),
            },
            Line::TooLong => Err(CommandError::TooLong),
        };
        let said = line.clone().unwrap_or_default();
        match line.and_then(|line| Command::parse(&line, &self.extensions())) {
            Ok(command) => {
                let junk = is_junk(&command, &state);
                self.obey(state, command, input, out);
                if junk {
                    self.count_junk(out);
                }
            }
            // What follows can be told neither from a chunk nor from commands; or was never meant for us.
            Err(error @ (CommandError::ChunkSize | CommandError::Foreign)) => {
                let objection = match error {
                    CommandError::Foreign => Objection::Foreign,
                    _ => Objection::Syntax,
                };
                self.state = state;
                self.part(Refusal::new(objection, error.reply()), Ending::Foreign, out);
            }
            Err(error) => {
                let objection = objection(verb(&said), &state);
                self.object(objection, state, error.reply(), out);
            }
        }
        if let Some(refusal) = self.objected.front_mut() {
            refusal.answers(&said);
        }
        true
    }

    /// Follows a command. The match is over what may come where; everything else falls through to the bottom.
    fn obey(&mut self, state: State, command: Command, input: &BytesMut, out: &mut Vec<u8>) {
        use Protocol::{Lmtp, Smtp};
        match (command, state, self.settings.protocol) {
            (Command::Helo(name), state, Smtp) => self.helo(state, name, false, input, out),
            (Command::Ehlo(name), state, Smtp) | (Command::Lhlo(name), state, Lmtp) => {
                self.helo(state, name, true, input, out);
            }
            (Command::Quit, _, _) => {
                replies::bye(&self.settings.hostname).write(out);
                self.state = State::Closed(Ending::Quit);
            }
            (Command::Rset, State::Fresh, _) => {
                self.state = State::Fresh;
                replies::ok().write(out);
            }
            (Command::Rset, _, _) => {
                self.end_transaction();
                replies::ok().write(out);
            }
            (Command::Noop, state, _) => self.reply(state, replies::ok(), out),
            (Command::Help, state, _) => self.reply(state, replies::help(), out),
            (Command::Bdat { bytes, last }, state, _) => self.bdat(state, bytes, last),
            (Command::StartTls, state, _) => self.start_tls(state, out),
            (
                Command::Mail(_) | Command::Vrfy | Command::Xforward(_) | Command::Xclient(_),
                state,
                _,
            ) if self.settings.tls_required && self.facts.tls.is_none() => {
                self.object(Objection::Sequence, state, replies::tls_required(), out);
            }
            (Command::Vrfy, state, _) => self.reply(state, replies::cannot_verify(), out),
            (Command::Mail(mail), State::Ready, _) => self.mail(mail, out),
            (Command::Rcpt(rcpt), State::Transaction(envelope), _) => {
                self.rcpt(envelope, rcpt, out);
            }
            // DATA ends a group (RFC 2920 3.1). What was sent ahead is a message, and must not be read as commands, even if
            // DATA itself is refused.
            (Command::Data, state, _) if spoke_ahead(input) => {
                self.state = state;
                self.end(Objection::Pipelined, Ending::Pipelined, out);
            }
            (Command::Data, State::Transaction(envelope), _) => self.data(envelope, out),
            (Command::Xforward(arguments), State::Ready, _) => self.xforward(&arguments, out),
            (Command::Xclient(arguments), State::Ready, _) => self.xclient(&arguments, out),
            (command, state, _) => {
                let reply = replies::out_of_order(&command, &state, self.settings.protocol);
                self.object(Objection::Sequence, state, reply, out);
            }
        }
    }

    fn helo(
        &mut self,
        state: State,
        name: Box<str>,
        extended: bool,
        input: &BytesMut,
        out: &mut Vec<u8>,
    ) {
        // Before it has read what we offer, nobody may know that we take commands in groups; and EHLO ends a group (RFC 2920 3.1).
        if matches!(state, State::Fresh) && spoke_ahead(input) {
            self.state = state;
            return self.end(Objection::Pipelined, Ending::Pipelined, out);
        }
        self.end_transaction();
        self.facts.helo = name;
        self.facts.extended = extended;
        self.state = State::Asked(Asked::Helo { extended });
    }

    fn start_tls(&mut self, state: State, out: &mut Vec<u8>) {
        let offered = self.extensions().starttls;
        match state {
            state @ (State::Fresh | State::Ready) if offered => {
                let greeted = matches!(state, State::Ready);
                self.state = State::Asked(Asked::StartTls { greeted });
            }
            state => {
                let transaction = !matches!(state, State::Fresh | State::Ready);
                let reply = replies::no_tls(self.facts.tls.is_some(), transaction && offered);
                self.object(Objection::Sequence, state, reply, out);
            }
        }
    }

    fn mail(&mut self, mail: Mail, out: &mut Vec<u8>) {
        if mail
            .size
            .is_some_and(|size| size > self.settings.message_bytes_max)
        {
            let objection = Objection::Announced;
            let mut refusal = Refusal::new(objection, objection.reply());
            refusal.from = mail.reverse_path.to_string().into();
            self.state = State::Ready;
            return self.refuse_as(refusal, out);
        }
        self.state = State::Asked(Asked::Mail(mail));
    }

    fn rcpt(&mut self, envelope: Envelope, rcpt: Rcpt, out: &mut Vec<u8>) {
        if rcpt.eight_bit && !envelope.parameters.smtputf8 {
            let (reply, state) = (CommandError::EightBit.reply(), State::Transaction(envelope));
            return self.object(Objection::Recipient, state, reply, out);
        }
        if envelope.recipients.len() >= self.settings.recipients_max {
            // Not an error of the client: it comes again with the rest (RFC 5321 4.5.3.1.10).
            let objection = Objection::Recipients;
            let mut refusal = Refusal::new(objection, objection.reply()).within(&envelope);
            if let ForwardPath::Mailbox(address) = &rcpt.forward_path {
                refusal.to = vec![address.to_string().into()];
            }
            self.state = State::Transaction(envelope);
            return self.refuse_as(refusal, out);
        }
        let address = match rcpt.forward_path {
            ForwardPath::Mailbox(address) => Ok(address),
            ForwardPath::Postmaster => {
                mail::Address::new("postmaster", self.settings.hostname.clone())
            }
        };
        match address {
            Ok(address) => {
                let recipient = Recipient {
                    address,
                    parameters: rcpt.parameters,
                };
                self.state = State::Asked(Asked::Rcpt {
                    envelope,
                    recipient,
                });
            }
            Err(error) => {
                let reply = CommandError::Recipient(error).reply();
                let state = State::Transaction(envelope);
                self.object(Objection::Recipient, state, reply, out);
            }
        }
    }

    fn xforward(&mut self, arguments: &str, out: &mut Vec<u8>) {
        if !self.extensions().xforward {
            let reply = replies::not_authorized();
            return self.object(Objection::Sequence, State::Ready, reply, out);
        }
        match self.facts.xforward.read(arguments) {
            Ok(()) => self.reply(State::Ready, replies::ok(), out),
            Err(error) => {
                let reply = Reply::new(501, (5, 5, 4), error.to_string());
                self.object(Objection::Syntax, State::Ready, reply, out);
            }
        }
    }

    /// Another client from here on: greeted anew, and nothing that was said counts for it (XCLIENT_README).
    fn xclient(&mut self, arguments: &str, out: &mut Vec<u8>) {
        if !self.extensions().xclient {
            let reply = replies::not_authorized();
            return self.object(Objection::Sequence, State::Ready, reply, out);
        }
        match Xclient::read(arguments) {
            Ok(told) => {
                self.end_transaction();
                let Facts { client, local, .. } = self.facts;
                (self.facts.client, self.facts.local) = told.ends(client, local);
                self.facts.helo = Box::default();
                self.facts.extended = false;
                self.state = State::Asked(Asked::Connect);
            }
            Err(error) => {
                let reply = Reply::new(501, (5, 5, 4), error.to_string());
                self.object(Objection::Syntax, State::Ready, reply, out);
            }
        }
    }

    /// The handler agrees.
    pub(super) fn agreed(&mut self, asked: Asked, out: &mut Vec<u8>) {
        match asked {
            Asked::Connect => {
                replies::greeting(&self.settings).write(out);
                self.state = State::Fresh;
            }
            Asked::Helo { extended } => {
                let extensions = extended.then(|| self.extensions());
                replies::hello(&self.settings, extensions.as_ref()).write(out);
                self.state = State::Ready;
            }
            Asked::Mail(mail) => {
                replies::sender_ok().write(out);
                self.state = State::Transaction(Envelope {
                    reverse_path: mail.reverse_path,
                    parameters: mail.parameters,
                    recipients: Vec::new(),
                });
            }
            Asked::Rcpt {
                mut envelope,
                recipient,
            } => {
                envelope.recipients.push(recipient);
                replies::recipient_ok().write(out);
                self.state = State::Transaction(envelope);
            }
            Asked::StartTls { .. } => {
                replies::start_tls().write(out);
                self.end_transaction();
                self.facts.helo = Box::default();
                self.facts.extended = false;
                self.state = State::Securing;
            }
            asked @ Asked::Message { .. } => {
                debug_assert!(false, "a message is answered by replies");
                self.state = State::Asked(asked);
            }
        }
    }

    /// The handler refuses: the transaction stays as it was.
    pub(super) fn refused(&mut self, asked: Asked, reply: Reply, out: &mut Vec<u8>) {
        match asked {
            Asked::Connect => {
                self.say(reply, out);
                self.state = State::Closed(Ending::Refused);
            }
            Asked::Helo { .. } => {
                self.facts.helo = Box::default();
                self.facts.extended = false;
                self.reject(State::Fresh, reply, out);
            }
            Asked::Mail(_) => self.reject(State::Ready, reply, out),
            Asked::Rcpt { envelope, .. } => {
                self.reject(State::Transaction(envelope), reply, out);
            }
            Asked::StartTls { greeted: true } => self.reject(State::Ready, reply, out),
            Asked::StartTls { greeted: false } => self.reject(State::Fresh, reply, out),
            asked @ Asked::Message { .. } => {
                debug_assert!(false, "a message is answered by replies");
                self.state = State::Asked(asked);
            }
        }
    }

    pub(super) fn reply(&mut self, state: State, reply: Reply, out: &mut Vec<u8>) {
        reply.write(out);
        self.state = state;
    }

    pub(super) fn reject(&mut self, state: State, reply: Reply, out: &mut Vec<u8>) {
        self.state = state;
        self.refuse(reply, out);
    }

    /// Rejects on the session's own account.
    pub(super) fn object(
        &mut self,
        objection: Objection,
        state: State,
        reply: Reply,
        out: &mut Vec<u8>,
    ) {
        let mut refusal = Refusal::new(objection, reply);
        if let Some(envelope) = state.envelope() {
            refusal = refusal.within(envelope);
        }
        self.state = state;
        self.refuse_as(refusal, out);
    }

    /// The same with what is known of it.
    pub(super) fn refuse_as(&mut self, mut refusal: Refusal, out: &mut Vec<u8>) {
        let severity = refusal.reply.severity();
        refusal.reply = self.say(refusal.reply, out);
        self.objected.push_back(Box::new(refusal));
        self.judge(severity, out);
    }

    /// Says a reply of the handler.
    pub(super) fn refuse(&mut self, reply: Reply, out: &mut Vec<u8>) {
        let severity = reply.severity();
        self.say(reply, out);
        self.judge(severity, out);
    }

    /// A permanent refusal counts as the client's error, however it was worded, and one too many ends the session behind it: what was
    /// refused for good must not look as if it might be taken later (RFC 5321 3.8 lets 421 be said at any time).
    fn judge(&mut self, severity: Severity, out: &mut Vec<u8>) {
        if severity == Severity::Permanent {
            self.errors += 1;
        }
        self.end_if_too_many(out);
    }

    fn end_if_too_many(&mut self, out: &mut Vec<u8>) {
        if !self.exempt && self.errors >= self.settings.errors_max_now() {
            self.end(Objection::Errors, Ending::Errors, out);
        }
    }

    /// Ends the session, and with it the transaction that it is in.
    pub(super) fn end(&mut self, objection: Objection, ending: Ending, out: &mut Vec<u8>) {
        let reply = objection.parting(&self.settings.hostname);
        self.part(Refusal::new(objection, reply), ending, out);
    }

    fn part(&mut self, mut refusal: Refusal, ending: Ending, out: &mut Vec<u8>) {
        if let Some(envelope) = self.state.envelope() {
            refusal = refusal.of(envelope);
        }
        refusal.reply = self.say(refusal.reply, out);
        self.objected.push_back(Box::new(refusal));
        self.state = State::Closed(ending);
    }

    /// Says a reply of anybody, in the words that refusals have here. Returns what was said.
    pub(super) fn say(&self, mut reply: Reply, out: &mut Vec<u8>) -> Reply {
        if let (Some(wording), false) = (&self.settings.guard.wording, reply.is_positive()) {
            reply = wording.refusal(&self.facts, reply);
        }
        reply.write(out);
        reply
    }

    /// One more command that brings no message on has been followed: a client may probe and wait so, but not for ever.
    fn count_junk(&mut self, out: &mut Vec<u8>) {
        self.junk = self.junk.saturating_add(1);
        if !self.exempt && self.junk > self.settings.junk_commands_max_now() {
            self.errors += 1;
            let followed = Refusal::new(Objection::Junk, replies::ok());
            self.objected.push_back(Box::new(followed));
            self.end_if_too_many(out);
        }
    }
}

/// Whether a command brings no message on. The first HELO does, and the one behind STARTTLS.
fn is_junk(command: &Command, state: &State) -> bool {
    match command {
        Command::Noop | Command::Rset | Command::Vrfy | Command::Help => true,
        Command::Helo(_) | Command::Ehlo(_) | Command::Lhlo(_) => !matches!(state, State::Fresh),
        _ => false,
    }
}

/// The first four octets of a line, in capitals.
fn verb(line: &impl AsRef<[u8]>) -> [u8; 4] {
    let mut verb = [b' '; 4];
    for (ours, theirs) in verb.iter_mut().zip(line.as_ref()) {
        *ours = theirs.to_ascii_uppercase();
    }
    verb
}

/// By the verb of a command that cannot be read. A forward-path is one only within a transaction; elsewhere RCPT is a command like
/// any other.
fn objection(verb: [u8; 4], state: &State) -> Objection {
    match (&verb, state) {
        (b"MAIL", _) => Objection::Sender,
        (b"RCPT", State::Transaction(_)) => Objection::Recipient,
        _ => Objection::Syntax,
    }
}

/// Whether there is more than an empty line behind a command.
fn spoke_ahead(input: &BytesMut) -> bool {
    input.iter().any(|&byte| byte != b'\r' && byte != b'\n')
}
