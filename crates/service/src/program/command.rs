//! What a command line asks for, done: a check, a command here or at the running daemon, or the daemon itself.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;

use super::cli::{Arguments, CaCommand, Command, ConfigCommand, House, Options, default_config};
use super::{Configuration, EXIT_FAILED, End, Invocation, Program, complain, daemon, say};
use crate::control::Request;
use crate::{authority, config, control};

pub(super) fn dispatch<P: Program>(arguments: Arguments<P::Command>) -> Result<ExitCode, End> {
    let Arguments { options, command } = arguments;
    // The only one that needs no configuration.
    if let Some(Command::House(House::Ca { command })) = command {
        say(&make(&command).map_err(End::failed)?);
        return Ok(ExitCode::SUCCESS);
    }
    let path = config_path::<P>(&options);
    let (config, complaints) = config::read::<P::Config>(&path).map_err(End::config)?;
    let checked = match complaints.is_empty() {
        true => Ok(()),
        false => Err(End::config(complaints.join("\n"))),
    };
    if options.check {
        checked?;
        say(&format!("{}: good", path.display()));
        return Ok(ExitCode::SUCCESS);
    }
    let invocation = match command {
        None => {
            checked?;
            return daemon::run::<P>(path, config);
        }
        Some(Command::Own(own)) => P::command(own, &config),
        Some(Command::House(House::Ready)) => return ready(&config),
        Some(Command::House(House::Status)) => Invocation::Control {
            request: Request::get("/status"),
            print: |status| outline(status, 0),
        },
        Some(Command::House(House::Config { command })) => {
            let ConfigCommand::Show { non_default } = command;
            let shown = match options.json {
                true => json(&config, non_default)?,
                false => config::show(&config, non_default),
            };
            Invocation::Here(Box::new(move || Ok(shown)))
        }
        Some(Command::House(House::Ca { .. })) => unreachable!("done above"),
    };
    match invocation {
        Invocation::Here(act) => {
            checked?;
            say(&act().map_err(End::failed)?);
        }
        Invocation::Report { act, print, good } => {
            checked?;
            let found = act().map_err(End::failed)?;
            return Ok(report(&found, options.json, print, good));
        }
        Invocation::Inquiry {
            request,
            print,
            good,
        } => {
            let answer = answer(&config, &request)?;
            let found = serde_json::from_slice(&answer).map_err(End::failed)?;
            return Ok(report(&found, options.json, print, good));
        }
        Invocation::Follow {
            begin,
            look,
            print,
            over,
        } => follow(&config, options.json, [begin, look], print, over)?,
        Invocation::Control { request, print } => {
            let answer = answer(&config, &request)?;
            match serde_json::from_slice::<Value>(&answer) {
                Ok(value) if options.json => say(&value.to_string()),
                Ok(value) => say(&print(&value)),
                Err(_) => say(&String::from_utf8_lossy(&answer)),
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Between two looks at what goes on.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Begins something and shows how far it is until it is over.
fn follow<C: Configuration>(
    config: &C,
    as_json: bool,
    [begin, look]: [Request; 2],
    print: fn(&Value) -> String,
    over: fn(&Value) -> bool,
) -> Result<(), End> {
    answer(config, &begin)?;
    let mut shown = String::new();
    loop {
        let found: Value = serde_json::from_slice(&answer(config, &look)?).map_err(End::failed)?;
        let text = match as_json {
            true => found.to_string(),
            false => print(&found),
        };
        if text != shown {
            say(&text);
            shown = text;
        }
        if over(&found) {
            return Ok(());
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
}

/// Prints a finding; 0 when all is as it should be.
fn report(
    found: &Value,
    as_json: bool,
    print: fn(&Value) -> String,
    good: fn(&Value) -> bool,
) -> ExitCode {
    match as_json {
        true => say(&found.to_string()),
        false => say(&print(found)),
    }
    match good(found) {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(EXIT_FAILED),
    }
}

fn config_path<P: Program>(options: &Options) -> PathBuf {
    let given = options.config.clone();
    given.unwrap_or_else(|| default_config::<P>().into())
}

fn json<C: Configuration>(config: &C, non_default: bool) -> Result<String, End> {
    let shown = config::show(config, non_default);
    let shown: toml::Table = toml::from_str(&shown).map_err(End::failed)?;
    serde_json::to_string(&shown).map_err(End::failed)
}

fn make(command: &CaCommand) -> Result<String, String> {
    match command {
        CaCommand::Init { dir } => {
            authority::init(dir)?;
            let dir = dir.display();
            Ok(format!(
                "made {dir}/ca.pem (goes to every node), {dir}/ca.key (stays here, off the network),\n\
                 {dir}/verdict.key (edges and scanners), {dir}/cookie.key (list hosts and edges),\n\
                 {dir}/directory.key (list hosts), {dir}/directory.pub (edges)"
            ))
        }
        CaCommand::Node {
            dir,
            name,
            roles,
            addresses,
        } => {
            authority::node(dir, name, roles, addresses)?;
            let (dir, roles) = (dir.display(), roles.iter().map(|role| role.name()));
            Ok(format!(
                "made {dir}/{name}.pem and {dir}/{name}.key for the roles {}; they go to {name} with {dir}/ca.pem",
                roles.collect::<Vec<_>>().join(", ")
            ))
        }
        CaCommand::Public { secret } => {
            let shown = secret.display();
            let public = crate::signing::public_of(&config::secret(secret)?);
            public.map_err(|why| format!("{shown}: {why}"))
        }
    }
}

/// 0 when ready; otherwise 1 and why not.
fn ready<C: Configuration>(config: &C) -> Result<ExitCode, End> {
    let (status, text) = ask(config, &Request::get("/readyz"))?;
    let text = String::from_utf8_lossy(&text);
    if status == 200 {
        say(&text);
        return Ok(ExitCode::SUCCESS);
    }
    complain(&text);
    Ok(ExitCode::from(EXIT_FAILED))
}

/// A daemon's answer when it is a good one.
fn answer<C: Configuration>(config: &C, request: &Request) -> Result<Vec<u8>, End> {
    let (status, answer) = ask(config, request)?;
    if (200..300).contains(&status) {
        return Ok(answer);
    }
    let text = match serde_json::from_slice::<Value>(&answer) {
        Ok(Value::Object(fields)) => match fields.get("error") {
            Some(Value::String(error)) => error.clone(),
            _ => Value::Object(fields).to_string(),
        },
        _ => String::from_utf8_lossy(&answer).into_owned(),
    };
    let text = text.trim();
    Err(End::failed(match text.is_empty() {
        true => format!("{} {} was answered {status}", request.method, request.path),
        false => text.to_owned(),
    }))
}

fn ask<C: Configuration>(config: &C, request: &Request) -> Result<(u16, Vec<u8>), End> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(End::failed)?;
    let asked = runtime.block_on(control::ask(&config.control().socket, request));
    asked.map_err(End::failed)
}

/// JSON as a person reads it: `key: value`, sections indented.
pub(super) fn outline(value: &Value, depth: usize) -> String {
    let indent = "  ".repeat(depth);
    let plain = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let entries: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(k, v)| (format!("{k}:"), v)).collect(),
        Value::Array(items) => items.iter().map(|item| ("-".to_owned(), item)).collect(),
        other => return format!("{indent}{}\n", plain(other)),
    };
    let mut text = String::new();
    for (name, value) in entries {
        let empty = match value {
            Value::Object(fields) => fields.is_empty(),
            Value::Array(items) => items.is_empty(),
            _ => false,
        };
        match value {
            Value::Object(_) | Value::Array(_) if empty => {
                text.push_str(&format!("{indent}{name} none\n"));
            }
            Value::Object(_) | Value::Array(_) => {
                text.push_str(&format!("{indent}{name}\n{}", outline(value, depth + 1)));
            }
            value => text.push_str(&format!("{indent}{name} {}\n", plain(value))),
        }
    }
    text
}
