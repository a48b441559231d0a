// SPDX-License-Identifier: GPL-3.0-or-later
//! `kill -9` at random moments under load: each message arrives once, or its client still has it and sends it again.
//!
//! The clients are mail servers that try again until they are told 250, through a real Postfix into a real Postfix. `MOMENTS=200` makes it
//! as many kills; by default there are a few.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tests::mailbox::fields;
use tests::process::{Account, await_that};
use tests::sandbox::{Options, Sandbox};
use tests::sender::Sender;

use crate::{ALICE, FROM, PATIENCE, TO_ALICE, gate, settle};

/// Mail servers that send at the same time.
const SENDERS: usize = 6;
/// The longest pause before a kill.
const PAUSE: u64 = 400;

fn moments(few: usize) -> usize {
    std::env::var("MOMENTS").ok().and_then(|number| number.parse().ok()).unwrap_or(few)
}

/// Mail servers under way.
struct Traffic {
    stop: Arc<AtomicBool>,
    accepted: Arc<AtomicUsize>,
    senders: Vec<tokio::task::JoinHandle<Vec<String>>>,
}

impl Traffic {
    fn start(gate: &Sandbox) -> Traffic {
        let (stop, accepted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let sender = |_| {
            let (port, stop, accepted) = (gate.ports.smtp, stop.clone(), accepted.clone());
            tokio::spawn(async move {
                let mut sent = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let letter = TO_ALICE.attached("storm", "data.bin", vec![7; 20_000]);
                    while !Sender::default().deliver(port, FROM, &[ALICE], &letter.bytes).await.accepted() {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    accepted.fetch_add(1, Ordering::Relaxed);
                    sent.push(letter.id);
                }
                sent
            })
        };
        let senders = (0..SENDERS).map(sender).collect();
        Traffic { stop, accepted, senders }
    }

    /// Waits until mail flows, and then for a random moment.
    async fn moment(&self) {
        let before = self.accepted.load(Ordering::Relaxed);
        let flows = async {
            while self.accepted.load(Ordering::Relaxed) < before + 3 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(2 * PATIENCE, flows).await.expect("mail flows again");
        let pause = RandomState::new().hash_one(before) % (PAUSE * 1000);
        tokio::time::sleep(Duration::from_micros(pause)).await;
    }

    /// Lets each server finish its message; the ids of all.
    async fn end(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        let mut sent = Vec::new();
        for sender in self.senders {
            let ended = tokio::time::timeout(Duration::from_secs(300), sender).await;
            sent.extend(ended.expect("the last messages are accepted").expect("a sender does not panic"));
        }
        sent
    }
}

/// Copies of each message in the mailbox, by Message-ID without brackets.
fn arrived(gate: &Sandbox) -> HashMap<String, usize> {
    settle(gate);
    let mut copies = HashMap::new();
    for message in gate.mailbox("alice").messages() {
        for id in fields(&message, "Message-ID") {
            *copies.entry(id.trim_matches(['<', '>']).to_owned()).or_default() += 1;
        }
    }
    copies
}

/// Messages that did not arrive, and copies too many.
fn wrong(sent: &[String], copies: &HashMap<String, usize>) -> (usize, usize) {
    let lost = sent.iter().filter(|id| !copies.contains_key(*id)).count();
    let doubled = copies.values().map(|copies| copies - 1).sum();
    (lost, doubled)
}

/// The only child of contentd.
fn witness(gate: &Sandbox) -> Option<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", gate.contentd.id()?)).ok()?;
    let children = tasks.flatten().map(|task| std::fs::read_to_string(task.path().join("children")));
    children.flatten().collect::<String>().split_whitespace().next()?.parse().ok()
}

fn kill(id: u32) {
    let mut command = match Account::ours().is_root() {
        true => std::process::Command::new("kill"),
        false => std::process::Command::new("sudo"),
    };
    if !Account::ours().is_root() {
        command.args(["-n", "kill"]);
    }
    // It may have ended by itself.
    let _ = command.args(["-9", &id.to_string()]).status();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn killed_at_random_each_message_arrives_once() {
    // Not the messages kill here, however often one happens to be under inspection: none of them is to go into the quarantine.
    let mut gate = gate(&Options::for_tests().with("[poison]\nafter = 0"));
    let traffic = Traffic::start(&gate);
    let moments = moments(9);
    for number in 0..moments {
        traffic.moment().await;
        match number % 5 {
            // The helper; its daemon goes on and starts another.
            3 => {
                if let Some(id) = witness(&gate) {
                    kill(id);
                    await_that("another witness", PATIENCE, || Ok(witness(&gate).filter(|new| *new != id))).unwrap();
                }
            }
            4 => {
                gate.clamd.kill();
                gate.clamd.start_again();
            }
            _ => {
                gate.contentd.kill();
                gate.contentd.start().unwrap();
            }
        }
    }
    let sent = traffic.end().await;
    let copies = arrived(&gate);
    let (lost, doubled) = wrong(&sent, &copies);
    println!("{moments} kills, {} messages, {lost} lost, {doubled} doubled", sent.len());
    if let Some(id) = sent.iter().find(|id| !copies.contains_key(*id)) {
        let log = std::fs::read_to_string(gate.contentd.log()).unwrap();
        let repeats: Vec<&str> = log.lines().filter(|line| line.contains("reason=delivered-before")).collect();
        panic!("{id} is lost, of {}; what was not delivered again:\n{}", sent.len(), repeats.join("\n"));
    }
    assert_eq!((lost, doubled), (0, 0), "of {}", sent.len());
    assert_eq!(copies.len(), sent.len(), "nothing arrives that nobody was told of");
}

/// The smtpd processes behind the reinjection door.
fn next_hops(gate: &Sandbox) -> Vec<u32> {
    let door = format!("smtpd\0-n\0127.0.0.1:{}\0", gate.ports.reinject);
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|id| std::fs::read_to_string(format!("/proc/{id}/cmdline")).is_ok_and(|line| line.starts_with(&door)))
        .collect()
}

/// A next hop that dies between taking a message and saying so leaves nobody who knows. That is told, and nothing else is doubled.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_next_hop_killed_at_random_loses_nothing() {
    let gate = gate(&Options::for_tests());
    let traffic = Traffic::start(&gate);
    let moments = moments(6) / 2;
    for _ in 0..moments {
        traffic.moment().await;
        next_hops(&gate).into_iter().for_each(kill);
    }
    let sent = traffic.end().await;
    let (lost, doubled) = wrong(&sent, &arrived(&gate));
    let log = std::fs::read_to_string(gate.contentd.log()).unwrap();
    let silent = log.lines().filter(|line| line.contains("reason=next-hop-silent")).count();
    println!("{moments} kills, {} messages, {lost} lost, {doubled} doubled, {silent} told as unknown", sent.len());
    assert_eq!(lost, 0, "of {}", sent.len());
    assert!(doubled <= silent, "{doubled} doubled, {silent} told");
}
