//! The command line: the house's options and commands around the program's own.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgMatches, Args, FromArgMatches, Subcommand};

use super::Program;
use crate::tls::Role;

/// A command line, understood.
pub(super) struct Arguments<C> {
    pub(super) options: Options,
    pub(super) command: Option<Command<C>>,
}

/// A command of the house or of the program.
pub(super) enum Command<C> {
    House(House),
    Own(C),
}

/// What every program takes, before or after a command.
#[derive(Args)]
pub(super) struct Options {
    /// The configuration file
    #[arg(long, value_name = "FILE", global = true)]
    pub(super) config: Option<PathBuf>,
    /// Check the configuration and exit: 0 when it is good, 78 when it is wrong
    #[arg(long)]
    pub(super) check: bool,
    /// Print a command's answer as JSON
    #[arg(long, global = true)]
    pub(super) json: bool,
}

/// The commands that every program has.
#[derive(Subcommand)]
pub(super) enum House {
    /// Show the configuration
    Config {
        /// What to do with it
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Show how the running program is: readiness, listeners, certificates, work under way
    Status,
    /// Exit 0 when the running program is ready, 1 with the reasons when it is not
    Ready,
    /// Make the site's own CA and the certificates of its nodes
    Ca {
        /// What to make
        #[command(subcommand)]
        command: CaCommand,
    },
}

#[derive(Subcommand)]
pub(super) enum ConfigCommand {
    /// Print the configuration that the file amounts to, as TOML
    Show {
        /// Only keys that differ from their default
        #[arg(long)]
        non_default: bool,
    },
}

#[derive(Subcommand)]
pub(super) enum CaCommand {
    /// Make the CA and the shared secrets in a folder; nothing is ever replaced
    Init {
        /// The folder, to be kept off the network
        dir: PathBuf,
    },
    /// Make a node's certificate and key
    Node {
        /// The folder of the CA
        dir: PathBuf,
        /// The node's name, as in scan-2
        name: String,
        /// What the node may be: mx-edge, balancer, scanner, listserv or operator
        #[arg(long = "role", value_name = "ROLE", required = true, value_parser = role)]
        roles: Vec<Role>,
        /// A host name or IP address under which it is asked
        #[arg(long = "address", value_name = "ADDRESS")]
        addresses: Vec<String>,
    },
    /// Print the public key of a signing secret, as it stands in directory.pub
    Public {
        /// The secret's file: directory.key
        secret: PathBuf,
    },
}

fn role(name: &str) -> Result<Role, String> {
    let role = Role::ALL.into_iter().find(|role| role.name() == name);
    role.ok_or_else(|| {
        let names: Vec<_> = Role::ALL.iter().map(|role| role.name()).collect();
        format!("there are the roles {}", names.join(", "))
    })
}

pub(super) fn parse<P: Program>(
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<Arguments<P::Command>, clap::Error> {
    let matches = grammar::<P>().try_get_matches_from(arguments)?;
    let options = Options::from_arg_matches(&matches)?;
    Ok(Arguments {
        command: command::<P>(&matches)?,
        options,
    })
}

/// Where the configuration is when the command line says nothing.
pub(super) fn default_config<P: Program>() -> String {
    format!("/etc/mailflow/{}.toml", P::NAME)
}

fn grammar<P: Program>() -> clap::Command {
    let grammar = Options::augment_args(clap::Command::new(P::NAME));
    let default = format!(
        "The configuration file [default: {}]",
        default_config::<P>()
    );
    // Name and text last: the derived parts bring their own.
    House::augment_subcommands(P::Command::augment_subcommands(grammar))
        .about(P::ABOUT)
        .long_about(None)
        .version(env!("CARGO_PKG_VERSION"))
        .mut_arg("config", |config| config.help(default))
        .subcommand_required(false)
        .arg_required_else_help(false)
}

fn command<P: Program>(matches: &ArgMatches) -> Result<Option<Command<P::Command>>, clap::Error> {
    let Some(name) = matches.subcommand_name() else {
        return Ok(None);
    };
    if House::has_subcommand(name) {
        return House::from_arg_matches(matches).map(|house| Some(Command::House(house)));
    }
    P::Command::from_arg_matches(matches).map(|own| Some(Command::Own(own)))
}
