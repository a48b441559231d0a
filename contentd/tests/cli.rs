// SPDX-License-Identifier: GPL-3.0-or-later
//! The command line of the real binary: arguments, exit statuses (sysexits(3)), readiness, signals.

use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

fn contentd() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_contentd"));
    command.stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    contentd().args(arguments).output().expect("contentd runs")
}

fn config(folder: &Path, text: &str) -> String {
    let file = folder.join("octroi.toml");
    std::fs::write(&file, text).expect("written");
    file.display().to_string()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A configuration to serve with, that keeps everything in `folder`.
fn serving(folder: &Path, socket: &Path) -> String {
    let folder = folder.display();
    format!(
        "[store]\nurl = \"sqlite:{folder}/octroi.db\"\n[ledger]\ndirectory = \"{folder}/contentd\"\n\
        [quarantine]\ndirectory = \"{folder}/quarantine\"\n[contentd]\nlisten = [\"unix:{}\"]\nhttp = \"\"\n",
        socket.display()
    )
}

#[test]
fn wrong_arguments_are_status_64() {
    assert_eq!(run(&["--colour"]).status.code(), Some(64));
    assert_eq!(run(&["scan"]).status.code(), Some(64));
    assert_eq!(run(&["check", "--postfix-config", "/x"]).status.code(), Some(64));
    let version = run(&["--version"]);
    assert_eq!(version.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&version.stdout).starts_with("contentd 0."));
}

#[test]
fn check_names_file_line_and_key_of_every_mistake() {
    let folder = tempfile::tempdir().expect("a folder");
    let good = config(folder.path(), "[contentd]\nmax_size = \"5MB\"\n");
    assert_eq!(run(&["check", "--config", &good]).status.code(), Some(0));
    let bad = config(folder.path(), "[contentd]\nmax_size = 5\nno_such = 1\n\n[destiny]\nvirus = \"bounce\"\n");
    for output in [run(&["check", "--config", &bad]), run(&["--config", &bad])] {
        assert_eq!(output.status.code(), Some(78));
        let told = errors(&output);
        for wrong in [
            format!("{bad}:2: contentd.max_size: "),
            format!("{bad}:3: contentd.no_such: "),
            format!("{bad}:6: destiny.virus: "),
        ] {
            assert!(told.contains(&wrong), "{wrong} is not in {told}");
        }
    }
    let environment =
        contentd().args(["check", "--config", &good]).env("OCTROI__CONTENTD__DEADLINE", "5 parsecs").output();
    let output = environment.expect("contentd runs");
    assert_eq!(output.status.code(), Some(78));
    assert!(
        errors(&output).contains("environment OCTROI__CONTENTD__DEADLINE: contentd.deadline: "),
        "{}",
        errors(&output)
    );
    assert_eq!(run(&["check", "--config", "/dev/null/octroi.toml"]).status.code(), Some(78));
}

#[test]
fn a_taken_socket_is_status_69_and_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("taken.sock");
    let _taken = UnixListener::bind(&socket).expect("bound");
    let file = config(folder.path(), &serving(folder.path(), &socket));
    let output = run(&["--config", &file]);
    assert_eq!(output.status.code(), Some(69));
    assert!(errors(&output).contains(&format!("cannot listen on unix:{}", socket.display())), "{}", errors(&output));
}

/// Kills the child when a test fails before its end.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits for READY=1 or STOPPING=1 (sd_notify(3)).
fn await_notice(notices: &UnixDatagram, wanted: &str) {
    let mut notice = [0; 4096];
    loop {
        let length = notices.recv(&mut notice).unwrap_or_else(|error| panic!("no {wanted}: {error}"));
        if String::from_utf8_lossy(&notice[..length]).lines().any(|line| line == wanted) {
            return;
        }
    }
}

#[test]
fn it_says_when_it_is_ready_and_ends_on_sigterm() {
    let folder = tempfile::tempdir().expect("a folder");
    let (socket, notify) = (folder.path().join("contentd.sock"), folder.path().join("notify"));
    let notices = UnixDatagram::bind(&notify).expect("bound");
    notices.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
    let file = config(folder.path(), &serving(folder.path(), &socket));
    let child = contentd().args(["--config", &file]).env("NOTIFY_SOCKET", &notify).stderr(Stdio::piped()).spawn();
    let mut running = Running(child.expect("started"));
    await_notice(&notices, "READY=1");
    assert!(UnixStream::connect(&socket).is_ok());
    let killed = Command::new("kill").args(["-TERM", &running.0.id().to_string()]).status();
    assert!(killed.expect("kill runs").success());
    await_notice(&notices, "STOPPING=1");
    assert_eq!(running.0.wait().expect("ended").code(), Some(0));
    assert!(!socket.exists(), "the socket is removed");
}
