// SPDX-License-Identifier: GPL-3.0-or-later
//! `make run`: the whole gate in a sandbox, shown at work, then left running to be played with.
//!
//! Exit status: 0 all went as expected; 1 a letter of the show did not; 69 the sandbox could not be set up.

mod show;
mod table;

use std::process::{Command, ExitCode, Stdio};

use clap::Parser;
use tests::clamd::installed_signatures;
use tests::ports::Ports;
use tests::process::{Account, Trouble};
use tests::sandbox::{DOMAIN, Options, Sandbox};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

const UNAVAILABLE: u8 = 69;

/// A private mail gate: Postfix, policyd, contentd and clamd, in a temporary directory and on high ports.
#[derive(Debug, Parser)]
struct Arguments {
    /// Show, then end instead of staying up.
    #[arg(long)]
    once: bool,
    /// Postfix' front door.
    #[arg(long, default_value_t = Ports::default().smtp)]
    smtp_port: u16,
    /// policyd.
    #[arg(long, default_value_t = Ports::default().policy)]
    policy_port: u16,
    /// policyd's metrics.
    #[arg(long, default_value_t = Ports::default().policy_http)]
    policy_http_port: u16,
    /// contentd.
    #[arg(long, default_value_t = Ports::default().content)]
    content_port: u16,
    /// contentd's metrics.
    #[arg(long, default_value_t = Ports::default().content_http)]
    content_http_port: u16,
    /// Postfix behind contentd.
    #[arg(long, default_value_t = Ports::default().reinject)]
    reinject_port: u16,
    /// Postfix' door to its hold queue
    #[arg(long, default_value_t = Ports::default().hold)]
    hold_port: u16,
}

impl Arguments {
    fn options(&self) -> Options {
        let ports = Ports {
            smtp: self.smtp_port,
            policy: self.policy_port,
            policy_http: self.policy_http_port,
            content: self.content_port,
            content_http: self.content_http_port,
            reinject: self.reinject_port,
            hold: self.hold_port,
        };
        Options { ports, signatures: installed_signatures(), ..Options::default() }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(trouble) => {
            eprintln!("octroi: {trouble}");
            ExitCode::from(UNAVAILABLE)
        }
    }
}

/// True when the show went as expected. Whatever the way out, dropping the sandbox takes everything down.
async fn run(arguments: &Arguments) -> Result<bool, Trouble> {
    let mut stop = stop_signals()?;
    be_able_to_be_root()?;
    let options = arguments.options();
    println!("Starting clamd, policyd, contentd and Postfix in a sandbox ...");
    let starting = tokio::task::spawn_blocking(move || Sandbox::start(&options));
    let sandbox = starting.await.map_err(|error| Trouble::new("the sandbox", error))??;
    let shown = tokio::select! {
        shown = show::run(&sandbox) => shown?,
        _ = stop.recv() => return Ok(true),
    };
    if !arguments.once {
        println!("{}", guide(&sandbox));
        stop.recv().await;
        println!("\nStopping ...");
    }
    tokio::task::spawn_blocking(move || drop(sandbox)).await.map_err(|error| Trouble::new("stopping", error))?;
    Ok(shown)
}

/// Ctrl-C, a closed terminal and kill(1), from the first moment on.
fn stop_signals() -> Result<mpsc::Receiver<()>, Trouble> {
    let (sender, receiver) = mpsc::channel(4);
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        let mut signals = signal(kind).map_err(|error| Trouble::new("cannot watch for signals", error))?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                let _ = sender.try_send(());
            }
        });
    }
    Ok(receiver)
}

/// Postfix' master starts as root. Asks for the password now, if sudo wants one.
fn be_able_to_be_root() -> Result<(), Trouble> {
    if Account::ours().is_root() {
        return Ok(());
    }
    // It asks on the terminal; what it has to say about a refusal we say in one line.
    let may = Command::new("sudo").arg("-v").stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    may.then_some(())
        .ok_or_else(|| Trouble("Postfix starts as root: run this as root or as a user with sudo".to_owned()))
}

/// What to try next, ready to be copied.
fn guide(sandbox: &Sandbox) -> String {
    let ports = &sandbox.ports;
    let directory = sandbox.directory().display();
    let smtp = ports.smtp;
    format!(
        "The sandbox stays up until Ctrl-C. Mailboxes: alice, bob and carol @{DOMAIN}. Try:

  swaks --server 127.0.0.1:{smtp} --from you@sender.test --to bob@{DOMAIN}
      the first time 450, after 3 s accepted (swaks comes with: apt install swaks)
  swaks --server 127.0.0.1:{smtp} --from you@sender.test --to bob@{DOMAIN} --attach-name setup.exe --attach-body x
  smtp-source -c -s 20 -m 500 -f you@sender.test -t bob@{DOMAIN} 127.0.0.1:{smtp}
      500 messages over 20 connections, once bob knows you

  mailboxes   {directory}/mail/
  settings    {directory}/octroi.toml   (edit, then: kill -HUP {policyd} {contentd})
  logs        {directory}/mail.log, policyd.log, contentd.log
  metrics     http://127.0.0.1:{policy_http}/metrics (policyd), http://127.0.0.1:{content_http}/metrics (contentd)
",
        policyd = sandbox.policyd.id().unwrap_or_default(),
        contentd = sandbox.contentd.id().unwrap_or_default(),
        policy_http = ports.policy_http,
        content_http = ports.content_http,
    )
}
