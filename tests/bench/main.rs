// SPDX-License-Identifier: GPL-3.0-or-later
//! `make bench`: policyd and contentd beside servers that do nothing, in one run, in one table.
//!
//! Load generators and do-nothing servers are this program; the daemons are the binaries beside it. Everything is on
//! loopback with private PostgreSQL and clamd. With `--peers` postgrey and sqlgrey are in the same table.

mod content;
mod cpu;
mod expiry;
mod greylisters;
mod limiters;
mod measure;
mod names;
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

use crate::measure::{Bounds, Kind, Subject, take_turns};
use crate::policy::Load;
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
    /// One part only; the first two are the usual ones
    #[arg(long)]
    only: Option<Part>,
    /// postgrey, sqlgrey, postfwd and policyd-rate-limit as well, in the same table
    #[arg(long)]
    peers: bool,
    /// Only these loads on policyd
    #[arg(long, value_delimiter = ',')]
    load: Vec<Load>,
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
    /// Triplets in the store before policyd starts; a third of them has expired and is deleted meanwhile [default: 0; of the part
    /// expiry 10000000, with --quick 600000]
    #[arg(long)]
    rows: Option<u64>,
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
    /// policyd while a large table is cleaned, beside the same table at rest
    Expiry,
    /// What single settings of policyd cost
    Settings,
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

/// Requests a second at which policyd keeps every decision that may be asked about.
const PACE: u32 = 1000;

/// What a run does: the arguments with their defaults.
#[derive(Debug)]
struct Plan {
    bounds: Bounds,
    rounds: usize,
    connections: Vec<usize>,
    sessions: Vec<usize>,
    loads: Vec<Load>,
    daemons: bool,
    peers: bool,
    rows: Rows,
}

impl Plan {
    fn new(arguments: &Arguments) -> Plan {
        let (time, rounds, connections): (_, _, &[u16]) = match arguments.quick {
            true => (Duration::from_millis(300), 1, &[1, 16]),
            false => (Duration::from_secs(2), 3, &[1, 16, 100]),
        };
        let rows = match (arguments.only, arguments.quick) {
            (Some(Part::Expiry), true) => 600_000,
            (Some(Part::Expiry), false) => 10_000_000,
            _ => 0,
        };
        // One at a time says nothing about cleaning, and there are only ten seconds for all of them before it begins.
        let connections = if arguments.only == Some(Part::Expiry) { &[16, 100] } else { connections };
        let given = |list: &[u16], default: &[u16]| -> Vec<usize> {
            let list = if list.is_empty() { default } else { list };
            list.iter().map(|&clients| usize::from(clients)).collect()
        };
        Plan {
            bounds: Bounds { time: arguments.seconds.unwrap_or(time), count: arguments.count, pace: None },
            rounds: usize::from(arguments.rounds.unwrap_or(rounds)),
            connections: given(&arguments.connections, connections),
            sessions: given(&arguments.sessions, &[1, 20]),
            loads: if arguments.load.is_empty() { Load::COMMON.to_vec() } else { arguments.load.clone() },
            daemons: !arguments.floor,
            peers: arguments.peers && !arguments.floor,
            rows: Rows { number: arguments.rows.unwrap_or(rows), expired: !arguments.kept },
        }
    }

    async fn policy(&self, report: &mut Report) -> Result<(), Trouble> {
        let field = Field::policy(self.daemons, self.rows, self.peers).await?;
        self.policy_loads(&field, report).await.map_err(|trouble| field.explain(trouble))?;
        field.end()
    }

    async fn policy_loads(&self, field: &Field, report: &mut Report) -> Result<(), Trouble> {
        let subjects = field.subjects()?;
        if self.loads.iter().any(|load| matches!(load, Load::Known | Load::Hot)) {
            for subject in
                subjects.iter().filter(|subject| Load::Known.suits(subject.kind) && subject.kind != Kind::Nothing)
            {
                policy::make_known(subject).await?;
            }
        }
        for &load in &self.loads {
            let suited: Vec<Subject> = subjects.iter().filter(|subject| load.suits(subject.kind)).cloned().collect();
            for &clients in &self.connections {
                self.policy_load(report, &suited, (load, load.name()), clients, self.bounds).await?;
            }
        }
        note_memory(report, "policy", &subjects)
    }

    async fn policy_load(
        &self,
        report: &mut Report,
        subjects: &[Subject],
        (load, name): (Load, &str),
        clients: usize,
        bounds: Bounds,
    ) -> Result<(), Trouble> {
        let run = async |subject: &Subject, bounds| policy::run(load, subject, clients, bounds).await;
        report.rows.extend(take_turns(subjects, (name, clients), (self.rounds, bounds), run).await?);
        progress();
        Ok(())
    }

    /// Known triplets, and first contacts as fast as they are answered and at a pace at which every one of them is kept to be explained.
    async fn settings(&self, report: &mut Report) -> Result<(), Trouble> {
        let names = names::serve().await.map_err(|error| Trouble::new("a name server", error))?;
        let field = Field::settings(names).await?;
        let subjects = field.subjects()?;
        for subject in subjects.iter().filter(|subject| subject.kind == Kind::Ours) {
            policy::make_known(subject).await?;
        }
        let paced = Bounds { pace: Some(PACE), ..self.bounds };
        for &clients in &self.connections {
            self.policy_load(report, &subjects, (Load::Known, "known triplet"), clients, self.bounds).await?;
            self.policy_load(report, &subjects, (Load::New, "first contact"), clients, self.bounds).await?;
            let name = "first contact, new domain";
            self.policy_load(report, &subjects, (Load::NewDomain, name), clients, self.bounds).await?;
            self.policy_load(report, &subjects, (Load::New, "first contact, 1000/s"), clients, paced).await?;
        }
        note_memory(report, "policy", &subjects)?;
        field.end()
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
    let parts = arguments.only.map_or(vec![Part::Policy, Part::Content], |part| vec![part]);
    for part in parts {
        match part {
            Part::Policy => plan.policy(&mut report).await?,
            Part::Content => plan.content(&mut report).await?,
            Part::Settings => plan.settings(&mut report).await?,
            Part::Expiry => {
                let how_long = (plan.rounds, plan.bounds);
                expiry::measure(&mut report, plan.rows, &plan.connections, how_long).await?;
            }
        }
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
