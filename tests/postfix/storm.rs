// SPDX-License-Identifier: GPL-3.0-or-later
//! `kill -9` at random moments under load: each message arrives once, or its client still has it and sends it again.
//!
//! The clients are mail servers that try again until they are told 250, through a real Postfix into a real Postfix. What contentd puts into
//! the quarantine (`[poison]`) has arrived there. `MOMENTS=200` makes it as many kills; by default there are a few.

use std::collections::HashMap;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use flate2::read::GzDecoder;
use tests::bombs::sevenz_dictionary;
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
                    // Something for a helper, and something to send.
                    let data = [sevenz_dictionary(), vec![7; 20_000]].concat();
                    let letter = TO_ALICE.attached("storm", "data.7z", data);
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

/// Children of contentd with this word behind their program's name: `witness`, `helper`.
fn children(gate: &Sandbox, word: &str) -> Vec<u32> {
    let tasks = gate.contentd.id().and_then(|id| std::fs::read_dir(format!("/proc/{id}/task")).ok());
    let tasks = tasks.into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let ids: Vec<u32> =
        lists.flat_map(|list| list.split(' ').filter_map(|id| id.parse().ok()).collect::<Vec<_>>()).collect();
    let named = |id: &u32| {
        let line = std::fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default();
        line.split('\0').nth(1) == Some(word)
    };
    ids.into_iter().filter(named).collect()
}

fn witness(gate: &Sandbox) -> Option<u32> {
    children(gate, "witness").pop()
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

/// Message-IDs of what is in the quarantine, without brackets; each with its row in the index, and each row with its file.
async fn quarantined(gate: &Sandbox) -> Vec<String> {
    let files = files_below(&gate.directory().join("quarantine"));
    let url = format!("sqlite:{}", gate.directory().join("octroi.db").display());
    let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
    let mut rows: Vec<String> = sqlx::query_scalar("select id from quarantine").fetch_all(&pool).await.unwrap();
    pool.close().await;
    let id = |file: &PathBuf| file.file_name()?.to_str()?.strip_suffix(".eml.gz").map(str::to_owned);
    let mut named: Vec<String> = files.iter().filter_map(id).collect();
    // A crash between file and row leaves a file, which the cleaner takes away later; never a row without its file.
    named.retain(|name| rows.contains(name));
    rows.sort();
    named.sort();
    assert_eq!(named, rows, "rows without a file");
    let kept = files.iter().filter(|file| id(file).is_some_and(|id| rows.contains(&id)));
    kept.map(|file| {
        let mut message = Vec::new();
        GzDecoder::new(File::open(file).unwrap()).read_to_end(&mut message).expect("a whole file");
        fields(&message, "Message-ID").pop().expect("ours have one").trim_matches(['<', '>']).to_owned()
    })
    .collect()
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

/// What the logs say of messages that are not where they should be, and of the rest what went wrong.
fn story(gate: &Sandbox, ids: &[&String]) -> String {
    let log = std::fs::read_to_string(gate.contentd.log()).unwrap();
    let words = ["delivered-before", "poison", "quarantine", "delivered, but", "delivered after", "witness", "ledger"];
    let told = log.lines().filter(|line| words.iter().any(|word| line.contains(word)));
    let mail = gate.mail_log();
    let queued = mail.lines().filter(|line| ids.iter().any(|id| line.contains(*id)));
    told.chain(queued).collect::<Vec<_>>().join("\n")
}

/// Kills contentd, its witness, its helpers and clamd at random moments, and counts what arrived. `settings` are laid over those of the sandbox.
async fn kill_at_random(settings: &str) -> (Sandbox, usize) {
    let mut gate = gate(&Options::for_tests().with(settings));
    let traffic = Traffic::start(&gate);
    let moments = moments(12);
    for number in 0..moments {
        traffic.moment().await;
        match number % 6 {
            // Its daemon goes on and starts another.
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
            // What is being taken apart there stays shut, and the message goes on.
            5 => children(&gate, "helper").into_iter().for_each(kill),
            _ => {
                gate.contentd.kill();
                gate.contentd.start().unwrap();
            }
        }
    }
    let sent = traffic.end().await;
    let (delivered, kept) = (arrived(&gate), quarantined(&gate).await);
    let held = kept.len();
    let mut copies = delivered;
    kept.into_iter().for_each(|id| *copies.entry(id).or_default() += 1);
    let (lost, doubled) = wrong(&sent, &copies);
    println!("{moments} kills, {} messages, {lost} lost, {doubled} doubled, {held} quarantined", sent.len());
    if (lost, doubled) != (0, 0) {
        let missing = sent.iter().filter(|id| !copies.contains_key(*id));
        let odd: Vec<&String> =
            missing.chain(copies.iter().filter(|(_, copies)| **copies > 1).map(|(id, _)| id)).collect();
        panic!("{lost} lost, {doubled} doubled of {}: {odd:?}\n{}", sent.len(), story(&gate, &odd));
    }
    assert_eq!(copies.len(), sent.len(), "nothing arrives that nobody was told of");
    (gate, held)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn killed_at_random_each_message_arrives_once() {
    // Not the messages kill here, however often one happens to be under inspection: none of them goes into the quarantine.
    let (_gate, held) = kill_at_random("[poison]\nafter = 0").await;
    assert_eq!(held, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn killed_at_random_each_message_arrives_once_or_is_in_the_quarantine() {
    // Every message that is under inspection at a kill goes there; by default it takes two kills.
    kill_at_random("[poison]\nafter = 1").await;
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
    // Postfix waits a minute before it starts a service again whose processes die; senders would wait with it.
    let gate = gate(&Options::for_tests().with_postfix("service_throttle_time", "1s"));
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
