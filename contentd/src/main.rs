// SPDX-License-Identifier: GPL-3.0-or-later
//! The command line of contentd: serve, check, engines, scan. Arguments, signals and exit status; everything else is in
//! the library.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use common::config::{Mistake, Mistakes, Source};
use common::exit::{self, fail};
use common::net::{self, Listener};
use common::service::{Signals, notify_ready, notify_reloading};
use contentd::config::Settings;
use contentd::daemon::Daemon;
use contentd::engines_command::{self, EnginesArgs};
use contentd::postfix;
use contentd::scan::clamd_conf;
use contentd::scan_command::{self, ScanArgs};
use contentd::unpack::helper::{self, Helpers, Program};
use contentd::witness;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const NAME: &str = "contentd";

/// Content filter for Postfix's smtpd_proxy_filter. Without a command it serves, in the foreground.
#[derive(Parser)]
#[command(name = NAME, version)]
struct Arguments {
    /// Configuration file; conf.d/*.toml beside it is read after it [default: /etc/octroi/octroi.toml, if it exists]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Say whether the configuration is good: status 0, or 78 and one line per mistake
    Check {
        /// Look at Postfix's configuration, too
        #[arg(long)]
        postfix: bool,
        /// Postfix's configuration folder [default: that of the installed Postfix]
        #[arg(long, value_name = "DIR", requires = "postfix")]
        postfix_config: Option<PathBuf>,
    },
    /// Started by contentd itself
    #[command(hide = true)]
    Witness { folder: PathBuf },
    /// Started by contentd itself
    #[command(hide = true)]
    Helper { memory: u64 },
    /// Ask each antivirus engine for its version, and whether it finds the test virus
    Engines(EnginesArgs),
    /// Inspect messages from files, folders or standard input, without server, network or database
    Scan(ScanArgs),
}

fn main() -> ExitCode {
    let _last_lines = common::record::LastLines;
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are no errors.
            let status = if error.use_stderr() { exit::USAGE } else { exit::OK };
            let _ = error.print();
            return ExitCode::from(status);
        }
    };
    if let Some(Command::Witness { folder }) = &arguments.command {
        return match witness::process::run(folder) {
            Ok(()) => ExitCode::from(exit::OK),
            Err(error) => fail(NAME, exit::UNAVAILABLE, format!("witness: {error}")),
        };
    }
    if let Some(Command::Helper { memory }) = &arguments.command {
        return match helper::process::run(*memory) {
            Ok(()) => ExitCode::from(exit::OK),
            Err(error) => fail(NAME, exit::UNAVAILABLE, format!("helper: {error}")),
        };
    }
    let settings = match read(&arguments) {
        Ok(settings) => settings,
        Err(mistakes) => return fail(NAME, exit::CONFIG, mistakes),
    };
    // Each thread has a heap of its own, and what one message leaves in it is no use to the next thread: with
    // the default of 512 threads for blocking work, a few large messages at once cost three times the memory.
    let blocking = std::thread::available_parallelism().map_or(1, usize::from) + 2;
    let runtime = match tokio::runtime::Builder::new_multi_thread().max_blocking_threads(blocking).enable_all().build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(NAME, exit::UNAVAILABLE, format!("cannot start threads: {error}")),
    };
    runtime.block_on(async {
        match &arguments.command {
            None => serve(&arguments, settings).await,
            Some(Command::Check { postfix, postfix_config }) => {
                check(settings, postfix.then_some(postfix_config.as_deref()))
            }
            Some(Command::Engines(engines)) => engines_command::run(engines.clone(), settings).await,
            Some(Command::Scan(_) | Command::Witness { .. } | Command::Helper { .. }) => {
                scan(arguments, settings).await
            }
        }
    })
}

fn read(arguments: &Arguments) -> Result<Settings, Mistakes> {
    Settings::read(&Source::load(arguments.config.as_deref())?)
}

async fn scan(arguments: Arguments, settings: Settings) -> ExitCode {
    match arguments.command {
        Some(Command::Scan(scan)) => scan_command::run(scan, settings).await,
        _ => ExitCode::from(exit::USAGE),
    }
}

fn check(settings: Settings, postfix: Option<Option<&std::path::Path>>) -> ExitCode {
    let found = postfix.map(|folder| postfix::check(&settings, folder));
    let mut gaps = clamd_conf::check(&settings.antivirus, &settings.unpack.limits(), settings.contentd.max_size);
    let confined = Helpers::new(Program::own(), &settings.unpack).probe();
    let rules = match Daemon::new(settings) {
        Ok(daemon) => daemon.rules.current(),
        Err(mistakes) => return fail(NAME, exit::CONFIG, mistakes),
    };
    match found {
        Some(Err(error)) => fail(NAME, exit::UNAVAILABLE, error),
        Some(Ok(problems)) if !problems.is_empty() => fail(NAME, exit::CONFIG, problems.join("\n")),
        _ => {
            if let Some(rules) = rules {
                say(&rules.summary());
                gaps.extend(rules.wrong_lines());
            }
            match confined {
                Ok(confinement) if confinement.is_good() => say(&format!("decoders run in helpers: {confinement}")),
                Ok(confinement) => gaps.push(format!("helpers are not confined wholly: {confinement}")),
                Err(error) => gaps.push(format!("no helper can be started, many archives stay unchecked: {error}")),
            }
            warn(&gaps);
            ExitCode::from(exit::OK)
        }
    }
}

fn say(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout().lock(), "{NAME}: {line}");
}

/// What works, but not as one may think. No reason for another exit status.
fn warn(lines: &[String]) {
    use std::io::Write;
    for line in lines {
        // Standard error may be closed; the exit status still tells.
        let _ = writeln!(std::io::stderr().lock(), "{NAME}: warning: {line}");
    }
}

async fn serve(arguments: &Arguments, settings: Settings) -> ExitCode {
    common::record::init(&settings.log);
    let signals = match Signals::install() {
        Ok(signals) => signals,
        Err(error) => return fail(NAME, exit::UNAVAILABLE, format!("cannot handle signals: {error}")),
    };
    let helpers = Helpers::new(Program::own(), &settings.unpack);
    let daemon = match Daemon::with_helpers(settings, Some(helpers)) {
        Ok(daemon) => daemon,
        Err(mistakes) => return fail(NAME, exit::CONFIG, mistakes),
    };
    let contentd = daemon.running().settings.contentd.clone();
    if let Err(error) = contentd.place().probe() {
        return fail(NAME, exit::UNAVAILABLE, error);
    }
    let spamd = daemon.running().settings.spamd.clone();
    let sockets = async {
        let spamd = net::bind(&spamd.listen, &spamd.socket_options()).await?;
        Ok((listeners(&contentd).await?, spamd, net::bind_http(&contentd.http).await?))
    };
    let (listeners, spamd, http) = match sockets.await {
        Ok(sockets) => sockets,
        Err::<_, net::BindError>(error) => return fail(NAME, exit::UNAVAILABLE, error),
    };
    let addresses: Vec<String> =
        listeners.iter().chain(&spamd).map(|listener| listener.local_address().to_string()).collect();
    let status = format!("listening on {}, next hop {}", addresses.join(" "), contentd.reinject);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), listen = addresses.join(" "), reinject = %contentd.reinject, "started");
    let stop = signals.stop();
    let reloads = tokio::spawn(reload(signals, daemon.clone(), arguments.config.clone(), status.clone()));
    let witness = Watch::start(&daemon).await;
    notify_ready(&status);
    contentd::run(listeners, spamd, http, daemon, stop).await;
    reloads.abort();
    witness.stop().await;
    tracing::info!("stopped");
    ExitCode::from(exit::OK)
}

/// The witness, and what earlier ones have left.
struct Watch {
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Watch {
    async fn start(daemon: &Arc<Daemon>) -> Watch {
        let watch = Watch { stop: CancellationToken::new(), tasks: TaskTracker::new() };
        let settings = daemon.running().settings.ledger.clone();
        for leftover in witness::recover::recover(&settings.folder(), &daemon.ledger, settings.keep).await {
            watch.tasks.spawn(leftover.follow(daemon.ledger.clone(), watch.stop.clone()));
        }
        if let Some(helpers) = daemon.helpers.clone() {
            watch.tasks.spawn(helpers.keep(watch.stop.clone()));
        }
        let (witness, stop) = (daemon.witness.clone(), watch.stop.clone());
        watch.tasks.spawn(async move { witness.keep(settings.folder(), stop).await });
        watch
    }

    async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn listeners(contentd: &contentd::config::ContentdSettings) -> Result<Vec<Listener>, net::BindError> {
    let inherited = net::inherited()?;
    if inherited.is_empty() { net::bind(&contentd.listen, &contentd.socket_options()).await } else { Ok(inherited) }
}

fn broken(error: &tokio::task::JoinError) -> Mistakes {
    Mistake { origin: "reload".to_owned(), key: String::new(), message: error.to_string() }.into()
}

/// Reads the configuration again at each SIGHUP. A wrong one is reported and the last good one stays.
async fn reload(mut signals: Signals, daemon: Arc<Daemon>, file: Option<PathBuf>, status: String) {
    loop {
        signals.reload().await;
        notify_reloading();
        let read = Source::load(file.as_deref()).and_then(|source| Settings::read(&source));
        // To load the spam rules takes a thread for a while.
        let next = daemon.clone();
        let replaced = tokio::task::spawn_blocking(move || read.and_then(|settings| next.replace(settings))).await;
        let replaced = replaced.unwrap_or_else(|error| Err(broken(&error)));
        match replaced {
            Ok(restart) => {
                tracing::info!("configuration reloaded");
                for key in restart {
                    tracing::warn!(key, "changed, but takes effect only at a restart");
                }
            }
            Err(mistakes) => {
                for mistake in mistakes.iter() {
                    tracing::error!(%mistake, "configuration not reloaded, the last good one stays");
                }
                metrics::counter!("octroi_reload_errors_total", "service" => NAME).increment(1);
            }
        }
        notify_ready(&status);
    }
}
