// SPDX-License-Identifier: GPL-3.0-or-later
//! `octroi`, the administrator's command: arguments and exit status. Each sub-command is a file of its name.

mod allow;
mod chart;
mod check;
mod decisions;
mod greylist;
mod import;
mod limit;
mod list;
mod migrate;
mod quarantine;
mod rules;
mod session;
mod why;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use common::exit;

const NAME: &str = "octroi";

/// The administrator's command of the mail gateway Octroi.
#[derive(Debug, Parser)]
#[command(name = NAME, version, arg_required_else_help = true)]
struct Arguments {
    /// Configuration file; conf.d/*.toml beside it is read after it [default: /etc/octroi/octroi.toml, if it exists]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check the whole configuration, of both daemons: status 0, or 78 and one line per mistake
    Check {
        /// Look at Postfix's configuration, too
        #[arg(long)]
        postfix: bool,
        /// Postfix's configuration folder [default: that of the installed Postfix]
        #[arg(long, value_name = "DIR", requires = "postfix")]
        postfix_config: Option<PathBuf>,
    },
    /// Bring the schema of the store up to date; the daemons do so themselves when they start
    Migrate,
    /// Take over what another greylister has learnt
    Import(import::Args),
    /// Access lists in the store, in force on every host within a second
    #[command(subcommand)]
    List(list::Action),
    /// How much of its limits a key has used, and what holds for it instead of the configuration
    #[command(subcommand)]
    Limit(limit::Action),
    /// What greylisting costs and brings
    #[command(subcommand)]
    Greylist(greylist::Action),
    /// The rules: try a changed configuration on recorded requests, look for oddities, take over those of other programs
    #[command(subcommand)]
    Rules(rules::Action),
    /// Messages that were accepted and not delivered: look at them, release them, delete them
    #[command(subcommand)]
    Quarantine(quarantine::Action),
    /// Why a sender was told to come again, how it stands now, and what would let the mail through
    Why {
        /// From the reply that the sender got, or from the log
        #[arg(value_parser = why::id, required_unless_present_any = ["client", "sender", "recipient"],
            conflicts_with_all = ["client", "sender", "recipient"])]
        id: Option<policyd::verdict::DecisionId>,
        #[command(flatten)]
        about: decisions::About,
    },
    /// Let the next try of that mail pass, without waiting for the delay
    Allow {
        /// From the reply that the sender got, or from the log
        #[arg(value_parser = why::id)]
        id: policyd::verdict::DecisionId,
    },
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are no errors.
            let status = if error.use_stderr() { exit::USAGE } else { exit::OK };
            // Nobody reads it when the terminal is gone; the exit status still tells.
            let _ = error.print();
            return ExitCode::from(status);
        }
    };
    let config: Option<&Path> = arguments.config.as_deref();
    match arguments.command {
        Command::Check { postfix, postfix_config } => check::run(config, postfix.then_some(postfix_config.as_deref())),
        Command::Migrate => migrate::run(config),
        Command::Import(args) => import::run(config, &args),
        Command::Limit(action) => limit::run(config, action),
        Command::List(action) => list::run(config, action),
        Command::Greylist(action) => greylist::run(config, action),
        Command::Quarantine(action) => quarantine::run(config, action),
        Command::Rules(action) => rules::run(config, action),
        Command::Why { id: Some(id), .. } => why::run(config, id),
        Command::Why { id: None, about } => decisions::run(config, &about),
        Command::Allow { id } => allow::run(config, id),
    }
}
