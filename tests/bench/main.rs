// SPDX-License-Identifier: GPL-3.0-or-later
//! `make bench`: policyd and contentd beside servers that do nothing, in one run, in one table.
//!
//! Load generators and do-nothing servers are this program; the daemons are the binaries beside it. Everything is on
//! loopback with private PostgreSQL and clamd. Not a comparison with other products.

mod content;
mod cpu;
mod measure;
mod peers;
mod policy;
mod servers;
mod smtp;
mod table;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use ::tests::process::Trouble;
use clap::{Parser, Subcommand, ValueEnum};
use common::exit;

use crate::measure::{Bounds, Subject, take_turns};
use crate::servers::{Field, Rows};
use crate::table::Report;

/// Measures policyd and contentd beside servers that do nothing. Exit status 0: every answer was right; 65: some were
/// not; 69: a server could not be had.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Arguments {
    #[command(subcommand)]
    serve: Option<Serve>,
    /// Longest time of one measurement, in seconds [default: 2, with --quick 0.3]
    #[arg(long, value_parser = seconds)]
    seconds: Option<Duration>,
    /// Most requests or messages of one measurement
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// How often the servers take turns; the table holds medians [default: 3, with --quick 1]
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..))]
    rounds: Option<u8>,
    /// One part only
    #[arg(long)]
    only: Option<Part>,
    /// Connections to policyd [default: 1,16,100, with --quick 1,16]
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=1000))]
    connections: Vec<u16>,
    /// Sessions with contentd [default: 1,20]
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=80))]
    sessions: Vec<u16>,
    /// Short: shows that everything works, the figures mean little
    #[arg(long)]
    quick: bool,
    /// The do-nothing servers alone: the floor of this machine
    #[arg(long)]
    floor: bool,
    /// Triplets in the store before policyd starts; a third of them has expired and is deleted meanwhile
    #[arg(long, default_value_t = 0)]
    rows: u64,
    /// With --rows: none of them has expired
    #[arg(long, requires = "rows")]
    kept: bool,
    /// Writes everything as JSON, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// policyd
    Policy,
    /// contentd
    Content,
}

/// The do-nothing servers; started by the program itself.
#[derive(Debug, Clone, Copy, Subcommand)]
enum Serve {
    /// A policy server that always answers DUNNO
    #[command(name = "serve-dunno")]
    Dunno {
        /// Where it listens on 127.0.0.1
        #[arg(long)]
        port: u16,
    },
    /// A content filter that lets everything pass
    #[command(name = "serve-proxy")]
    Proxy {
        /// Where it listens on 127.0.0.1
        #[arg(long)]
        port: u16,
        /// Port of the next hop
        #[arg(long)]
        next: u16,
    },
    /// A next hop that takes everything and forgets it
    #[command(name = "serve-sink")]
    Sink {
        /// Where it listens on 127.0.0.1
        #[arg(long)]
        port: u16,
    },
}

/// What a run does: the arguments with their defaults.
#[derive(Debug)]
struct Plan {
    bounds: Bounds,
    rounds: usize,
    connections: Vec<usize>,
    sessions: Vec<usize>,
    daemons: bool,
    rows: Rows,
}

impl Plan {
    fn new(arguments: &Arguments) -> Plan {
        let (time, rounds, connections): (_, _, &[u16]) = match arguments.quick {
            true => (Duration::from_millis(300), 1, &[1, 16]),
            false => (Duration::from_secs(2), 3, &[1, 16, 100]),
        };
        let given = |list: &[u16], default: &[u16]| -> Vec<usize> {
            let list = if list.is_empty() { default } else { list };
            list.iter().map(|&clients| usize::from(clients)).collect()
        };
        Plan {
            bounds: Bounds { time: arguments.seconds.unwrap_or(time), count: arguments.count },
            rounds: usize::from(arguments.rounds.unwrap_or(rounds)),
            connections: given(&arguments.connections, connections),
            sessions: given(&arguments.sessions, &[1, 20]),
            daemons: !arguments.floor,
            rows: Rows { number: arguments.rows, expired: !arguments.kept },
        }
    }

    async fn policy(&self, report: &mut Report) -> Result<(), Trouble> {
        let field = Field::policy(self.daemons, self.rows).await?;
        self.policy_loads(&field, report).await.map_err(|trouble| field.explain(trouble))?;
        field.end()
    }

    async fn policy_loads(&self, field: &Field, report: &mut Report) -> Result<(), Trouble> {
        let subjects = field.subjects()?;
        for subject in subjects.iter().filter(|subject| !subject.does_nothing) {
            policy::make_known(subject).await?;
        }
        for load in policy::Load::ALL {
            for &clients in &self.connections {
                let run = async |subject: &Subject, bounds| policy::run(load, subject, clients, bounds).await;
                let rows = take_turns(&subjects, (load.name(), clients), (self.rounds, self.bounds), run).await?;
                report.rows.extend(rows);
                progress();
            }
        }
        note_memory(report, "policy", &subjects)
    }

    async fn content(&self, report: &mut Report) -> Result<(), Trouble> {
        let field = Field::content(self.daemons)?;
        self.content_loads(&field, report).await.map_err(|trouble| field.explain(trouble))?;
        field.end()
    }

    async fn content_loads(&self, field: &Field, report: &mut Report) -> Result<(), Trouble> {
        let subjects = field.subjects()?;
        let sink = field.sink().ok_or_else(|| Trouble("there is no sink".to_owned()))?;
        for load in content::Load::all() {
            for &sessions in &self.sessions {
                let run = async |subject: &Subject, bounds| content::run(&load, subject, sink, sessions, bounds).await;
                let rows = take_turns(&subjects, (load.name, sessions), (self.rounds, self.bounds), run).await?;
                report.rows.extend(rows);
                progress();
            }
        }
        note_memory(report, "content", &subjects)
    }
}

fn note_memory(report: &mut Report, part: &'static str, subjects: &[Subject]) -> Result<(), Trouble> {
    for subject in subjects {
        report.memory.push((part, subject.name, cpu::memory(subject.process)?));
    }
    Ok(())
}

/// A sign of life for whoever waits for the table.
fn progress() {
    let mut err = std::io::stderr().lock();
    // Nobody may be watching.
    let _ = err.write_all(b".").and_then(|()| err.flush());
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    match (0.05..=600.0).contains(&seconds) {
        true => Ok(Duration::from_secs_f64(seconds)),
        false => Err("not between 0.05 and 600".to_owned()),
    }
}

async fn measure(arguments: &Arguments) -> Result<Report, Trouble> {
    let plan = Plan::new(arguments);
    let mut report = Report::default();
    if arguments.only != Some(Part::Content) {
        plan.policy(&mut report).await?;
    }
    if arguments.only != Some(Part::Policy) {
        plan.content(&mut report).await?;
    }
    Ok(report)
}

/// Ctrl-C lets go of the servers in order, like any other end.
async fn measure_until_interrupted(arguments: &Arguments) -> Result<Report, Trouble> {
    tokio::select! {
        report = measure(arguments) => report,
        _ = tokio::signal::ctrl_c() => Err(Trouble("interrupted".to_owned())),
    }
}

fn publish(arguments: &Arguments, report: &Report) -> Result<(), Trouble> {
    let text = format!("\n{}", report.text());
    std::io::stdout().write_all(text.as_bytes()).map_err(|error| Trouble::new("standard output", error))?;
    let Some(path) = &arguments.json else { return Ok(()) };
    std::fs::write(path, format!("{:#}\n", report.json())).map_err(|error| Trouble::new(path.display(), error))
}

async fn serve(serve: Serve) -> std::io::Result<()> {
    match serve {
        Serve::Dunno { port } => peers::dunno(port).await,
        Serve::Proxy { port, next } => peers::proxy(port, next).await,
        Serve::Sink { port } => peers::sink(port).await,
    }
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { exit::USAGE } else { exit::OK });
        }
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return exit::fail("bench", exit::UNAVAILABLE, error),
    };
    if let Some(what) = arguments.serve {
        return match runtime.block_on(serve(what)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => exit::fail("bench", exit::UNAVAILABLE, error),
        };
    }
    let published = runtime.block_on(measure_until_interrupted(&arguments)).and_then(|report| {
        publish(&arguments, &report)?;
        Ok(report)
    });
    match published {
        Ok(report) if report.is_right() => ExitCode::SUCCESS,
        Ok(report) => exit::fail("bench", exit::DATA, report.mistakes().join("\n")),
        Err(trouble) => exit::fail("bench", exit::UNAVAILABLE, trouble),
    }
}
