// SPDX-License-Identifier: GPL-3.0-or-later
//! `make bench-bombs`: what every bomb of `tests::bombs` costs an optimised contentd, first by `contentd scan`, then over SMTP through one
//! daemon that gets all of them.
//!
//! Exit status 1 when one takes longer than 5 seconds, needs more than 256 MB, or is let through as clean.

#[expect(dead_code, reason = "the other benchmarks use more of it")]
mod cpu;

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use tests::bombs::{ALL, Bomb};
use tests::daemon::{Daemon, binary};
use tests::nexthop::NextHop;
use tests::process::{Trouble, await_that};
use tests::smtp_client::SmtpClient;

/// A verdict takes no longer.
const TIME: Duration = Duration::from_secs(5);
/// And no more memory, in KiB: of contentd and its helpers together.
const MEMORY: u64 = 256 * 1024;
const PATIENCE: Duration = Duration::from_secs(60);

/// Measures what bombs cost contentd.
#[derive(Debug, Parser)]
#[command(name = "bench-bombs")]
struct Arguments {
    /// Only bombs with this in their name
    #[arg(long, default_value = "")]
    only: String,
}

/// What one verdict cost.
struct Cost {
    wall: Duration,
    cpu: Duration,
    peak_kib: u64,
    verdict: String,
}

impl Cost {
    /// What is wrong with it.
    fn fault(&self) -> Option<&'static str> {
        match () {
            () if self.verdict.starts_with("clean") => Some("clean"),
            () if self.wall > TIME => Some("over 5 s"),
            () if self.peak_kib > MEMORY => Some("over 256 MB"),
            () => None,
        }
    }

    fn columns(&self) -> String {
        let (wall, cpu, peak) = (self.wall.as_secs_f64(), self.cpu.as_secs_f64(), self.peak_kib / 1024);
        format!("{wall:>6.2} {cpu:>6.2} {peak:>5} {:<16} {:<11}", self.verdict, self.fault().unwrap_or_default())
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Arguments::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(trouble) => {
            say(&format!("bench-bombs: {trouble}"));
            ExitCode::from(common::exit::UNAVAILABLE)
        }
    }
}

async fn run(arguments: &Arguments) -> Result<bool, Trouble> {
    let folder = tempfile::tempdir().map_err(|error| Trouble::new("no temporary directory", error))?;
    let mut gate = Gate::start(folder.path()).await?;
    say(&format!("{:<40}{:<48}over SMTP", "", "contentd scan"));
    let titles = format!("{:>6} {:>6} {:>5} {:<28}", "wall s", "CPU s", "MiB", "verdict");
    say(&format!("{:<40}{titles}{titles}", "bomb"));
    let mut good = true;
    for bomb in ALL.iter().filter(|(name, _)| name.contains(&arguments.only)) {
        let message = bomb.1();
        let scanned = scan(folder.path(), bomb, &message)?;
        let sent = gate.send(bomb, &message).await?;
        good &= scanned.fault().is_none() && sent.fault().is_none();
        say(&format!("{:<40}{}{}", bomb.0, scanned.columns(), sent.columns()));
    }
    Ok(good)
}

/// Whoever reads the output is gone, if it cannot be written; there is nobody to tell.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn scan(folder: &Path, bomb: &Bomb, message: &[u8]) -> Result<Cost, Trouble> {
    let failed = |error| Trouble::new(bomb.0, error);
    let (file, report) = (folder.join("message"), folder.join("report.json"));
    std::fs::write(&file, message).map_err(failed)?;
    let begun = Instant::now();
    let mut child = Command::new(binary("contentd")?)
        .args(["scan", "--json"])
        .arg(&file)
        .current_dir(folder)
        .env("OCTROI__CONTENTD__SPOOL_DIR", folder)
        // A pipe that nobody reads while it runs would stop it.
        .stdout(std::fs::File::create(&report).map_err(failed)?)
        .stdin(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let (cpu, peak_kib) = watch(&mut child);
    let wall = begun.elapsed();
    let mut text = String::new();
    std::fs::File::open(&report).and_then(|mut file| file.read_to_string(&mut text)).map_err(failed)?;
    let report: serde_json::Value = serde_json::from_str(&text).map_err(|error| Trouble::new(bomb.0, error))?;
    let verdict = report["verdict"].as_str().unwrap_or("clean (none)").to_owned();
    Ok(Cost { wall, cpu, peak_kib, verdict })
}

/// Looks again and again at a process and its helpers until it ends.
fn watch(child: &mut Child) -> (Duration, u64) {
    let (mut cpu, mut peak) = (Duration::ZERO, 0);
    while matches!(child.try_wait(), Ok(None)) {
        cpu = cpu.max(cpu::spent(child.id()).unwrap_or_default());
        peak = peak.max(peak_of_all(child.id()));
        std::thread::sleep(Duration::from_millis(5));
    }
    (cpu, peak)
}

/// The most memory that the process and its helpers have had, each by itself; those that are gone count nothing.
fn peak_of_all(root: u32) -> u64 {
    let all = cpu::descendants(&cpu::processes(), root);
    all.into_iter().filter_map(|id| cpu::memory(id).ok()).map(|memory| memory.peak).sum()
}

/// Lets the peak begin anew (proc(5), clear_refs).
fn forget_peaks(root: u32) -> Result<(), Trouble> {
    for id in cpu::descendants(&cpu::processes(), root) {
        let path = format!("/proc/{id}/clear_refs");
        std::fs::write(&path, "5").map_err(|error| Trouble::new(path, error))?;
    }
    Ok(())
}

/// contentd as a daemon, between us and a next hop that takes everything.
struct Gate {
    daemon: Daemon,
    address: common::address::Address,
    hop: NextHop,
    messages: usize,
}

impl Gate {
    async fn start(folder: &Path) -> Result<Gate, Trouble> {
        let hop = NextHop::start(Vec::new()).await;
        let address = common::address::Address::Unix(folder.join("contentd.sock"));
        let place = folder.display();
        let text = format!(
            "[store]\nurl = \"sqlite:{place}/octroi.db\"\n[ledger]\ndirectory = \"{place}/ledger\"\n\
             [quarantine]\ndirectory = \"{place}/quarantine\"\n\
             [contentd]\nlisten = [\"{address}\"]\nhttp = \"\"\nreinject = \"{}\"\nspool_dir = \"{place}\"\n",
            hop.address(),
        );
        let configuration = folder.join("octroi.toml");
        std::fs::write(&configuration, text).map_err(|error| Trouble::new(configuration.display(), error))?;
        let mut daemon = Daemon::new("contentd", folder, &configuration)?;
        daemon.start()?;
        Ok(Gate { daemon, address, hop, messages: 0 })
    }

    async fn send(&mut self, bomb: &Bomb, message: &[u8]) -> Result<Cost, Trouble> {
        let id = self.daemon.id().ok_or_else(|| Trouble(format!("contentd is gone before: {}", bomb.0)))?;
        forget_peaks(id)?;
        let before = cpu::spent(id)?;
        let mut client = SmtpClient::in_data(&self.address).await;
        client.send(&stuffed(message)).await;
        let begun = Instant::now();
        client.send(b"\r\n.\r\n").await;
        let answer = client.answer().await;
        let wall = begun.elapsed();
        client.send(b"QUIT\r\n").await;
        let (cpu, peak_kib) = (cpu::spent(id)?.saturating_sub(before), peak_of_all(id));
        self.messages += 1;
        let category = self.category(bomb)?;
        self.hop.idle().await;
        // Too large to be looked at is no verdict, but it does not get through either.
        let passed = category == "none" && answer.code() == 250;
        let verdict = if passed { "clean (none)".to_owned() } else { format!("{category} {}", answer.code()) };
        Ok(Cost { wall, cpu, peak_kib, verdict })
    }

    /// The category of the last message, out of the log.
    fn category(&self, bomb: &Bomb) -> Result<String, Trouble> {
        let last = await_that(&format!("the log of: {}", bomb.0), PATIENCE, || {
            let log = std::fs::read_to_string(self.daemon.log()).unwrap_or_default();
            let lines: Vec<&str> = log.lines().filter(|line| line.contains("inspect_us=")).collect();
            Ok((lines.len() == self.messages).then(|| lines.last().map(|line| (*line).to_owned())).flatten())
        })?;
        let category = last.split_once("category=").map(|(_, rest)| rest.split(' ').next().unwrap_or_default());
        Ok(category.unwrap_or_default().trim_matches('"').to_owned())
    }
}

/// A message as it goes on the wire (RFC 5321 section 4.5.2).
fn stuffed(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 16);
    for line in message.split_inclusive(|byte| *byte == b'\n') {
        if line.starts_with(b".") {
            out.push(b'.');
        }
        out.extend_from_slice(line);
    }
    out
}
