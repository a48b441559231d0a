// SPDX-License-Identifier: GPL-3.0-or-later
//! Debian's spamc, the client of SpamAssassin's daemon.

use std::io::Write;
use std::process::{Command, Stdio};

/// What spamc said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Its standard output.
    pub text: String,
    /// Its exit status.
    pub status: i32,
}

/// Runs spamc with these arguments and this message on its standard input. Where something is wrong it ends with an error instead of
/// passing the message through, and does not try again.
pub async fn spamc(arguments: &[&str], message: &[u8]) -> Said {
    // No settings of this machine.
    let fixed = ["-F", "/dev/null", "-x", "--connect-retries=1", "-t", "120"];
    let arguments: Vec<String> = fixed.iter().chain(arguments).map(|word| (*word).to_owned()).collect();
    let message = message.to_vec();
    tokio::task::spawn_blocking(move || run(&arguments, message)).await.expect("no panic")
}

fn run(arguments: &[String], message: Vec<u8>) -> Said {
    let mut child = Command::new("spamc")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("spamc is installed (package spamc)");
    let mut stdin = child.stdin.take().expect("a pipe was asked for");
    // One that reads nothing must not stop us.
    let feeder = std::thread::spawn(move || stdin.write_all(&message));
    let output = child.wait_with_output().expect("spamc ends");
    // It may have closed before it had read all.
    let _ = feeder.join().expect("no panic");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Said { text, status: output.status.code().expect("ended by itself") }
}
