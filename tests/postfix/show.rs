// SPDX-License-Identifier: GPL-3.0-or-later
//! `make run`, that is its program: what it shows, and that it leaves no process and no file behind however it ends.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tests::ports::Ports;
use tests::process::await_that;

use crate::PATIENCE;

struct Show {
    process: Child,
    output: BufReader<std::process::ChildStdout>,
    ports: Ports,
    /// Everything it makes is in here.
    place: TempDir,
}

impl Show {
    fn start(arguments: &[&str]) -> Show {
        let ports = Ports::free();
        let place = tempfile::Builder::new().permissions(std::fs::Permissions::from_mode(0o755)).tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_sandbox"));
        command.args(arguments).env("TMPDIR", place.path()).stdout(Stdio::piped());
        for (name, port) in [
            ("smtp", ports.smtp),
            ("policy", ports.policy),
            ("policy-http", ports.policy_http),
            ("content", ports.content),
            ("content-http", ports.content_http),
            ("reinject", ports.reinject),
            ("hold", ports.hold),
        ] {
            command.arg(format!("--{name}-port={port}"));
        }
        let mut process = command.spawn().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        Show { process, output, ports, place }
    }

    fn read_until(&mut self, mark: &str) {
        let mut line = String::new();
        while !line.contains(mark) {
            line.clear();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "ended before it said {mark:?}");
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    /// Its exit status and the rest of its output, when all its processes are gone.
    fn end(mut self) -> (Option<i32>, String, TempDir) {
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        let status = self.process.wait().unwrap();
        await_that("no process left", PATIENCE, || Ok(running_in(self.place.path()).is_empty().then_some(())))
            .unwrap_or_else(|late| panic!("{late}: {:?}", running_in(self.place.path())));
        // A process lets go of its sockets a little after its memory is gone.
        await_that("free ports", PATIENCE, || Ok(self.ports.must_be_free().ok())).unwrap();
        (status.code(), rest, self.place)
    }
}

/// The processes that have this directory in their command line or environment.
fn running_in(place: &Path) -> Vec<String> {
    let place = place.display().to_string();
    let names = |file: std::path::PathBuf| {
        let text = std::fs::read(file).unwrap_or_default();
        String::from_utf8_lossy(&text).replace('\0', " ")
    };
    let processes = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    processes
        .filter(|process| {
            [names(process.join("cmdline")), names(process.join("environ"))].iter().any(|text| text.contains(&place))
        })
        .map(|process| names(process.join("cmdline")))
        .collect()
}

fn is_empty(place: &TempDir) -> bool {
    std::fs::read_dir(place.path()).unwrap().next().is_none()
}

#[test]
fn the_show_goes_as_announced() {
    let (status, output, place) = Show::start(&["--once"]).end();
    assert_eq!(status, Some(0), "{output}");
    for part in ["450 4.7.1", "250 2.0.0 Ok", "554 5.7.0", "+ X-Greylist: ", "+ X-Virus-Scanned: ", "All as expected."]
    {
        assert!(output.contains(part), "{part} is missing in:\n{output}");
    }
    assert!(is_empty(&place));
}

#[test]
fn it_stays_up_until_ctrl_c_and_leaves_nothing() {
    let mut show = Show::start(&[]);
    show.read_until("stays up until Ctrl-C");
    show.signal(Signal::INT);
    let (status, _, place) = show.end();
    assert_eq!(status, Some(0));
    assert!(is_empty(&place));
}

#[test]
fn terminated_while_it_starts_it_leaves_nothing() {
    let mut show = Show::start(&[]);
    show.read_until("Starting");
    show.signal(Signal::TERM);
    let (_, _, place) = show.end();
    assert!(is_empty(&place));
}

#[test]
fn even_killed_it_leaves_no_process() {
    let mut show = Show::start(&[]);
    show.read_until("stays up until Ctrl-C");
    show.signal(Signal::KILL);
    let (status, _, _) = show.end();
    assert_eq!(status, None);
}
