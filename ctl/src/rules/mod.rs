// SPDX-License-Identifier: GPL-3.0-or-later
//! `octroi rules`: the rules of both daemons. Of policyd's: what a changed configuration would decide about recorded requests, what is odd in them,
//! the rules of other programs as ours. Of contentd's spam rules: mistakes, a list, a test on messages, what they have done.

mod glob;
mod import;
mod lint;
mod list;
mod milter_greylist;
mod postfwd;
mod rate_limit;
mod recorded;
mod replay;
mod spam;
mod stats;
mod test;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What is done with rules.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Action {
    /// Decide recorded requests by the configuration and by a candidate for it, and show which decisions change
    ///
    /// Recorded are requests as Postfix sends them (as for `policyd test`), or log lines of decisions. Everything happens in this command,
    /// on an empty store; nothing is asked, nothing is changed.
    Replay {
        /// The configuration that may take the place of the present one; conf.d/*.toml beside it is read after it
        #[arg(long, value_name = "FILE")]
        candidate: PathBuf,
        /// Requests or log lines; "-" is standard input
        recorded: PathBuf,
        /// Look up in DNS what rules and checks ask for; otherwise it cannot be told
        #[arg(long)]
        dns: bool,
        /// Examples shown of each change
        #[arg(long, default_value_t = 3)]
        examples: usize,
    },
    /// What the spam rules have done in the last days: hits, marginal decisions, mistakes, cost
    Stats(stats::Args),
    /// Look for mistakes: policyd's rules that never come to pass or do nothing, lines of spam rules that are wrong, spam rules that cannot run
    Lint(lint::Args),
    /// The spam rules: type, score, where they were written, whether they run
    List(list::Args),
    /// Run the spam rules over messages from files, and show which hit
    Test(test::Args),
    /// Print rules or limits of another program as ours; what is not carried over is named
    Import {
        /// Whose rules they are
        #[arg(value_enum)]
        program: import::Program,
        /// Its rules or configuration; "-" is standard input
        file: PathBuf,
    },
}

pub(crate) fn run(config: Option<&Path>, action: Action) -> ExitCode {
    match action {
        Action::Replay { candidate, recorded, dns, examples } => {
            replay::run(&replay::Plan { config, candidate: &candidate, recorded: &recorded, dns, examples })
        }
        Action::Stats(args) => stats::stats(config, &args),
        Action::Lint(args) => lint::run(config, &args),
        Action::List(args) => list::run(config, &args),
        Action::Test(args) => test::run(config, &args),
        Action::Import { program, file } => import::run(program, &file),
    }
}
