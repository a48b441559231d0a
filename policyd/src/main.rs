// SPDX-License-Identifier: GPL-3.0-or-later
//! The program `policyd`: arguments, log, signals, sockets. What it does is in the library; the sub-commands that print are in
//! `commands`.

mod commands;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use common::config::{Mistakes, Source};
use common::exit::{self, fail};
use common::service::{Signals, notify_ready, notify_reloading};
use common::store::Store;
use policyd::config::Settings;
use policyd::policy::Live;

const PROGRAM: &str = "policyd";

/// Postfix policy daemon: access lists and greylisting on a store shared by the hosts of a farm.
#[derive(Debug, Parser)]
#[command(name = PROGRAM, version)]
struct Arguments {
    /// Configuration file [default: /etc/octroi/octroi.toml, if it exists].
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check the configuration and its list files, and say every mistake with file, line and key.
    Check {
        /// Check too whether Postfix on this host asks this daemon.
        #[arg(long)]
        postfix: bool,
        /// Postfix's configuration folder [default: that of the installed Postfix].
        #[arg(long, value_name = "DIR", requires = "postfix")]
        postfix_config: Option<PathBuf>,
    },
    /// Read policy requests and print what each check says and what Postfix would be told; nothing is changed.
    Test {
        /// File with requests, each ended by an empty line; "-" is standard input.
        #[arg(default_value = "-")]
        file: PathBuf,
        /// Tell also which rules do not match
        #[arg(long)]
        all_rules: bool,
        /// Ask the policy servers that rules ask or compare with; they take these for real requests
        #[arg(long)]
        ask: bool,
    },
}

fn main() -> ExitCode {
    let _last_lines = common::record::LastLines;
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // --help and --version come here too, and are no errors.
            let status = if error.use_stderr() { exit::USAGE } else { exit::OK };
            let _ = error.print();
            return ExitCode::from(status);
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(PROGRAM, exit::UNAVAILABLE, format!("cannot start threads: {error}")),
    };
    let config = arguments.config;
    match arguments.command {
        None => runtime.block_on(serve(config)),
        Some(Command::Check { postfix, postfix_config }) => {
            commands::check::run(config, postfix.then_some(postfix_config.as_deref()))
        }
        Some(Command::Test { file, all_rules, ask }) => {
            runtime.block_on(commands::test::run(config, &file, commands::test::Asked { all_rules, ask }))
        }
    }
}

/// Reads the configuration for the first time; the result can read it again.
fn read(config: Option<PathBuf>) -> Result<Live, Mistakes> {
    Live::new(move || Settings::read(&Source::load(config.as_deref())?))
}

/// The daemon, in the foreground.
async fn serve(config: Option<PathBuf>) -> ExitCode {
    let live = match read(config) {
        Ok(live) => live,
        Err(mistakes) => return fail(PROGRAM, exit::CONFIG, mistakes),
    };
    let settings = live.current().settings.clone();
    common::record::init(&settings.log);
    let live = Arc::new(with_dns(live, &settings));
    common::metrics::install();
    tell_notices(&live);
    let store = match Store::open(&settings.store).await {
        Ok(store) => store,
        Err(error) => return fail(PROGRAM, exit::UNAVAILABLE, error),
    };
    let (listeners, http) = match sockets(&settings).await {
        Ok(sockets) => sockets,
        Err(error) => return fail(PROGRAM, exit::UNAVAILABLE, error),
    };
    let signals = match Signals::install() {
        Ok(signals) => signals,
        Err(error) => return fail(PROGRAM, exit::UNAVAILABLE, format!("cannot handle signals: {error}")),
    };
    let stop = signals.stop();
    let places: Vec<String> = listeners.iter().map(|listener| listener.local_address().to_string()).collect();
    tracing::info!(listen = places.join(" "), store = store.kind(), "policyd serves");
    let reloading = tokio::spawn(reload_on_hangup(signals, live.clone()));
    notify_ready("serving");
    policyd::run(listeners, http, live, store, stop).await;
    reloading.abort();
    tracing::info!("policyd ends");
    ExitCode::from(exit::OK)
}

/// What is odd in lists of other programs is in force all the same.
fn tell_notices(live: &Live) {
    for notice in live.current().lists.notices() {
        tracing::warn!(notice, "an odd entry in a list of another program");
    }
}

/// With a resolver, or without look-ups when there is none to be had.
fn with_dns(live: Live, settings: &Settings) -> Live {
    match settings.dns.resolver() {
        Ok(resolver) => live.with_resolver(resolver),
        Err(error) => {
            tracing::warn!(error, "no DNS: greylisting goes by name and network");
            live
        }
    }
}

type Sockets = (Vec<common::net::Listener>, Option<tokio::net::TcpListener>);

/// The sockets that systemd passed, else those of the configuration; and the health page.
async fn sockets(settings: &Settings) -> Result<Sockets, common::net::BindError> {
    let mut listeners = common::net::inherited()?;
    if listeners.is_empty() {
        listeners = common::net::bind(&settings.policyd.listen, &settings.policyd.socket_options()).await?;
    }
    let Some(address) = settings.policyd.http_address() else { return Ok((listeners, None)) };
    let page = common::net::bind(&[address], &settings.policyd.socket_options()).await?;
    let http = page.into_iter().find_map(|listener| match listener {
        common::net::Listener::Tcp(listener) => Some(listener),
        common::net::Listener::Unix(..) => None,
    });
    Ok((listeners, http))
}

/// Reads the configuration again at every SIGHUP; what is wrong is logged, and the last good one stays.
async fn reload_on_hangup(mut signals: Signals, live: Arc<Live>) {
    loop {
        signals.reload().await;
        notify_reloading();
        let again = live.clone();
        match tokio::task::spawn_blocking(move || again.reload()).await {
            Ok(Ok(waiting)) => {
                tracing::info!(entries = live.current().lists.len(), "configuration reloaded");
                tell_notices(&live);
                for key in waiting {
                    tracing::warn!(key, "this key has changed and takes effect at the next start only");
                }
            }
            Ok(Err(mistakes)) => {
                for mistake in mistakes.iter() {
                    tracing::error!(
                        mistake = mistake.to_string(),
                        "configuration not reloaded, the last good one stays"
                    );
                }
            }
            Err(error) => tracing::error!(%error, "the reload ended early"),
        }
        notify_ready("serving");
    }
}
