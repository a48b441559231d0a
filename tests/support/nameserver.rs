// SPDX-License-Identifier: GPL-3.0-or-later
//! A name server on loopback that answers from a zone text (`common::dns::Zone`), over UDP and TCP, and misbehaves on order for names below a suffix.
//! It writes DNS messages (RFC 1035 section 4) byte by byte, so that it can write wrong ones.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use common::dns::{Resolver, Zone};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinHandle;

/// What it does with questions for names below a suffix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Never answers.
    Silent,
    /// Answers rightly, but late.
    Slow(Duration),
    /// SERVFAIL.
    Servfail,
    /// Says that the answer does not fit into UDP, and over TCP never gives it.
    Truncated,
    /// Bytes that are no DNS message.
    Garbage,
    /// This address for every name.
    Always(Ipv4Addr),
    /// Answers another question than the one that was asked.
    OtherName,
}

#[derive(Debug)]
struct State {
    zone: Resolver,
    manners: Vec<(String, Manner)>,
    asked: HashMap<String, usize>,
}

/// A running name server; it ends when dropped.
#[derive(Debug)]
pub struct NameServer {
    /// Where it answers.
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    servers: [JoinHandle<()>; 2],
}

impl NameServer {
    /// Starts one on a free port of 127.0.0.1.
    pub async fn start(zone: &str) -> NameServer {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
            let address = udp.local_addr().expect("it is bound");
            // The same port may be taken for TCP.
            if let Ok(tcp) = TcpListener::bind(address).await {
                break (udp, tcp);
            }
        };
        let address = udp.local_addr().expect("it is bound");
        let zone = Resolver::Canned(Zone::parse(zone).expect("a zone text"));
        let state = Arc::new(Mutex::new(State { zone, manners: Vec::new(), asked: HashMap::new() }));
        let servers = [tokio::spawn(serve_udp(udp, state.clone())), tokio::spawn(serve_tcp(tcp, state.clone()))];
        NameServer { address, state, servers }
    }

    /// Answers from another zone text from now on.
    pub fn zone(&self, zone: &str) {
        lock(&self.state).zone = Resolver::Canned(Zone::parse(zone).expect("a zone text"));
    }

    /// How names that end in `suffix` are answered from now on.
    pub fn misbehave(&self, suffix: &str, manner: Manner) {
        self.behave(suffix);
        lock(&self.state).manners.push((suffix.to_owned(), manner));
    }

    /// Names that end in `suffix` are answered rightly again.
    pub fn behave(&self, suffix: &str) {
        lock(&self.state).manners.retain(|(known, _)| known != suffix);
    }

    /// How often names that end in `suffix` were asked for.
    pub fn asked(&self, suffix: &str) -> usize {
        lock(&self.state).asked.iter().filter(|(name, _)| name.ends_with(suffix)).map(|(_, times)| times).sum()
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.servers.iter().for_each(JoinHandle::abort);
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

async fn serve_udp(socket: UdpSocket, state: Arc<Mutex<State>>) {
    let socket = Arc::new(socket);
    let mut buffer = [0; 1500];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        let (question, socket, state) = (buffer[..length].to_vec(), socket.clone(), state.clone());
        tokio::spawn(async move {
            if let Some(reply) = answer(&question, &state, false).await {
                // The asker may have gone.
                let _ = socket.send_to(&reply, from).await;
            }
        });
    }
}

async fn serve_tcp(listener: TcpListener, state: Arc<Mutex<State>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let state = state.clone();
        tokio::spawn(async move { dialogue(stream, &state).await });
    }
}

async fn dialogue(mut stream: TcpStream, state: &Mutex<State>) -> Option<()> {
    loop {
        let length = stream.read_u16().await.ok()?;
        let mut question = vec![0; usize::from(length)];
        stream.read_exact(&mut question).await.ok()?;
        if let Some(reply) = answer(&question, state, true).await {
            stream.write_u16(u16::try_from(reply.len()).ok()?).await.ok()?;
            stream.write_all(&reply).await.ok()?;
        }
    }
}

/// The question section ends behind the name with type and class.
fn name_of(question: &[u8]) -> Option<(String, usize)> {
    let (mut name, mut at) = (String::new(), 12);
    loop {
        let length = usize::from(*question.get(at)?);
        at += 1;
        if length == 0 {
            return Some((name, at));
        }
        if !name.is_empty() {
            name.push('.');
        }
        name.push_str(&String::from_utf8_lossy(question.get(at..at + length)?).to_lowercase());
        at += length;
    }
}

async fn answer(question: &[u8], state: &Mutex<State>, tcp: bool) -> Option<Vec<u8>> {
    let (name, end) = name_of(question)?;
    let kind = u16::from_be_bytes([*question.get(end)?, *question.get(end + 1)?]);
    let (manner, zone) = {
        let mut state = lock(state);
        *state.asked.entry(name.clone()).or_default() += 1;
        let manner = state.manners.iter().find(|(suffix, _)| name.ends_with(suffix)).map(|(_, manner)| *manner);
        (manner, state.zone.clone())
    };
    let reply = |flags: u16, records: &[Vec<u8>]| message(question, end, flags, kind, records);
    match manner {
        Some(Manner::Silent) => return None,
        Some(Manner::Truncated) if tcp => return None,
        Some(Manner::Truncated) => return Some(reply(0x8380, &[])),
        Some(Manner::Servfail) => return Some(reply(0x8182, &[])),
        Some(Manner::Garbage) => return Some(vec![question[0], question[1], 0xff, 0xff, 0xff]),
        Some(Manner::Always(address)) if kind == 1 => return Some(reply(0x8180, &[address.octets().to_vec()])),
        Some(Manner::OtherName) => {
            let mut other = question.to_vec();
            other[13] ^= 1;
            return Some(message(&other, end, 0x8180, 1, &[vec![127, 0, 0, 2]]));
        }
        Some(Manner::Slow(time)) => tokio::time::sleep(time).await,
        Some(Manner::Always(_)) | None => {}
    }
    Some(match records(&zone, &name, kind).await {
        Ok(found) => reply(if found.is_empty() { 0x8183 } else { 0x8180 }, &found),
        Err(_) => reply(0x8182, &[]),
    })
}

async fn records(zone: &Resolver, name: &str, kind: u16) -> Result<Vec<Vec<u8>>, common::dns::DnsError> {
    Ok(match kind {
        1 => zone.a(name).await?.into_iter().map(|address| address.octets().to_vec()).collect(),
        2 => zone.ns(name).await?.iter().map(|host| wire_name(host)).collect(),
        15 => {
            let record = |preference: u16, host: &str| [&preference.to_be_bytes()[..], &wire_name(host)].concat();
            zone.mx(name).await?.iter().map(|mx| record(mx.preference, &mx.exchange)).collect()
        }
        16 => {
            let strings = |text: &[u8]| -> Vec<u8> {
                text.chunks(255).flat_map(|part| [&[part.len() as u8][..], part].concat()).collect()
            };
            zone.txt(name).await?.iter().map(|text| strings(text)).collect()
        }
        28 => zone.aaaa(name).await?.into_iter().map(|address| address.octets().to_vec()).collect(),
        _ => Vec::new(),
    })
}

fn wire_name(name: &str) -> Vec<u8> {
    let labels = name.split('.').filter(|label| !label.is_empty());
    let mut wire: Vec<u8> = labels.flat_map(|label| [&[label.len() as u8][..], label.as_bytes()].concat()).collect();
    wire.push(0);
    wire
}

/// A reply with the question and these records, TTL five minutes.
fn message(question: &[u8], end: usize, flags: u16, kind: u16, records: &[Vec<u8>]) -> Vec<u8> {
    let mut out = question[..2].to_vec();
    for number in [flags, 1, records.len() as u16, 0, 0] {
        out.extend(number.to_be_bytes());
    }
    out.extend(&question[12..end + 4]);
    for record in records {
        // The name is that of the question.
        out.extend([0xc0, 12]);
        out.extend(kind.to_be_bytes());
        out.extend([0, 1, 0, 0, 1, 44]);
        out.extend((record.len() as u16).to_be_bytes());
        out.extend(record);
    }
    out
}
