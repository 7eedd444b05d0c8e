//! What a session says on its own account; a handler's replies are its own.

use mail::{Domain, Reply};

use super::state::State;
use crate::Protocol;
use crate::command::{Command, Extensions};
use crate::settings::Settings;
use crate::{xclient, xforward};

pub fn greeting(settings: &Settings) -> Reply {
    let protocol = match settings.protocol {
        Protocol::Smtp => "ESMTP",
        Protocol::Lmtp => "LMTP",
    };
    Reply::plain(220, format!("{} {protocol} Mailflow", settings.hostname))
}

/// The reply to EHLO and LHLO with what is offered, or to HELO without.
pub fn hello(settings: &Settings, extensions: Option<&Extensions>) -> Reply {
    let mut lines = vec![settings.hostname.to_string()];
    if let Some(extensions) = extensions {
        let keywords = [
            (extensions.pipelining, "PIPELINING".to_owned()),
            (
                extensions.size,
                format!("SIZE {}", settings.message_bytes_max),
            ),
            (extensions.eight_bit_mime, "8BITMIME".to_owned()),
            (extensions.smtputf8, "SMTPUTF8".to_owned()),
            (
                extensions.enhanced_status_codes,
                "ENHANCEDSTATUSCODES".to_owned(),
            ),
            (extensions.chunking, "CHUNKING".to_owned()),
            (extensions.dsn, "DSN".to_owned()),
            (extensions.starttls, "STARTTLS".to_owned()),
            (
                extensions.xforward,
                format!("XFORWARD {}", xforward::ATTRIBUTES),
            ),
            (
                extensions.xclient,
                format!("XCLIENT {}", xclient::ATTRIBUTES),
            ),
        ];
        lines.extend(
            keywords
                .into_iter()
                .filter_map(|(on, keyword)| on.then_some(keyword)),
        );
    }
    Reply {
        code: 250,
        enhanced: None,
        lines,
    }
}

pub fn ok() -> Reply {
    Reply::new(250, (2, 0, 0), "Ok")
}

pub fn sender_ok() -> Reply {
    Reply::new(250, (2, 1, 0), "Ok")
}

pub fn recipient_ok() -> Reply {
    Reply::new(250, (2, 1, 5), "Ok")
}

pub fn chunk_received() -> Reply {
    Reply::new(250, (2, 0, 0), "Ok, go on")
}

pub fn start_data() -> Reply {
    Reply::plain(354, "End data with <CR><LF>.<CR><LF>")
}

pub fn start_tls() -> Reply {
    Reply::new(220, (2, 0, 0), "Ready to start TLS")
}

pub fn bye(hostname: &Domain) -> Reply {
    Reply::new(221, (2, 0, 0), format!("{hostname} closing connection"))
}

pub fn help() -> Reply {
    Reply::new(214, (2, 0, 0), "See RFC 5321")
}

pub fn cannot_verify() -> Reply {
    Reply::new(252, (2, 5, 0), "Cannot verify; send mail and see")
}

pub fn no_recipients(protocol: Protocol) -> Reply {
    match protocol {
        Protocol::Smtp => Reply::new(554, (5, 5, 1), "No valid recipients"),
        // RFC 2033 4.2 demands this code.
        Protocol::Lmtp => Reply::new(503, (5, 5, 1), "No valid recipients"),
    }
}

pub fn no_reply() -> Reply {
    Reply::new(451, (4, 3, 0), "Internal error, try again later")
}

pub fn tls_required() -> Reply {
    Reply::new(530, (5, 7, 0), "Must issue a STARTTLS command first")
}

pub fn not_authorized() -> Reply {
    Reply::new(550, (5, 7, 0), "Insufficient authorization")
}

pub fn not_implemented() -> Reply {
    Reply::new(502, (5, 5, 1), "Command not implemented")
}

pub fn bad_sequence(what: &str) -> Reply {
    Reply::new(503, (5, 5, 1), format!("Bad sequence of commands: {what}"))
}

/// STARTTLS where it cannot be followed.
pub fn no_tls(active: bool, transaction: bool) -> Reply {
    if active {
        bad_sequence("TLS is already active")
    } else if transaction {
        bad_sequence("STARTTLS within a transaction")
    } else {
        not_implemented()
    }
}

/// A command that may not come in this state.
pub fn out_of_order(command: &Command, state: &State, protocol: Protocol) -> Reply {
    let transaction = matches!(state, State::Transaction(_) | State::Chunks(_));
    match command {
        // The other protocol's greeting (RFC 2033 4.1, RFC 5321 4.1.1.1).
        Command::Helo(_) | Command::Ehlo(_) => Reply::new(500, (5, 5, 1), "This is LMTP, say LHLO"),
        Command::Lhlo(_) => Reply::new(500, (5, 5, 1), "This is SMTP, say EHLO"),
        Command::Auth | Command::Expn if !transaction => not_implemented(),
        Command::Auth | Command::Expn => bad_sequence("not within a transaction"),
        _ if matches!(state, State::Fresh) => match protocol {
            Protocol::Smtp => bad_sequence("EHLO first"),
            Protocol::Lmtp => bad_sequence("LHLO first"),
        },
        _ if matches!(state, State::Chunks(_)) => bad_sequence("BDAT, RSET or QUIT expected"),
        Command::Mail(_) => bad_sequence("nested MAIL"),
        Command::Xforward(_) => bad_sequence("XFORWARD within a transaction"),
        Command::Xclient(_) => bad_sequence("XCLIENT within a transaction"),
        _ => bad_sequence("MAIL first"),
    }
}
