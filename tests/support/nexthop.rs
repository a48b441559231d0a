// SPDX-License-Identifier: GPL-3.0-or-later
//! A next hop (port 10025) that does what a test orders, right or wrong, at each stage, and remembers what it was sent.
//!
//! It has its own idea of SMTP, shares no code with contentd and keeps the message as it was on the wire. A
//! message counts as completed when its final dot was answered with 2xx. RFC 5321; Postfix XFORWARD_README.

use std::sync::Arc;
use std::time::Duration;

use common::address::Address;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The longest wait for anything that a test expects to happen.
const PATIENCE: Duration = Duration::from_secs(30);
const EHLO: &[u8] = b"250-hop.test\r\n250-PIPELINING\r\n250-SIZE 100000000\r\n250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-DSN\r\n250 XFORWARD NAME ADDR PROTO HELO PORT IDENT SOURCE\r\n";

/// Where in the dialogue an order holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Instead of the greeting.
    Banner,
    /// At EHLO.
    Ehlo,
    /// At XFORWARD.
    Xforward,
    /// At MAIL.
    Mail,
    /// At RSET.
    Rset,
    /// At RCPT.
    Rcpt,
    /// At a RCPT in which this stands.
    RcptFor(&'static str),
    /// At DATA.
    Data,
    /// Once that many bytes of the message have come.
    Body(usize),
    /// At the final dot.
    End,
}

/// What happens there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// These bytes are the answer, whatever they are.
    Say(Vec<u8>),
    /// These bytes, then the connection is closed.
    SayAndDrop(Vec<u8>),
    /// The connection is closed.
    Drop,
    /// These bytes are the answer, after a while.
    Late(Duration, Vec<u8>),
    /// Nothing is said and nothing is read any more.
    Hang,
}

/// An order: at that stage, do that.
pub type Order = (Stage, Act);

/// One transaction whose final dot has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Received {
    /// EHLO, XFORWARD, MAIL and RCPT lines as they came, without line ends.
    pub commands: Vec<Vec<u8>>,
    /// The message on the wire: from behind DATA up to and without the final dot.
    pub wire: Vec<u8>,
    /// Whether the dot was answered with 2xx.
    pub completed: bool,
}

impl Received {
    /// The commands with this verb.
    pub fn lines(&self, verb: &str) -> Vec<String> {
        let lines = self.commands.iter().map(|line| String::from_utf8_lossy(line).into_owned());
        lines.filter(|line| line.starts_with(verb)).collect()
    }

    /// The message with its dots unstuffed.
    pub fn message(&self) -> Vec<u8> {
        let mut message = Vec::with_capacity(self.wire.len());
        for line in self.wire.split_inclusive(|byte| *byte == b'\n') {
            message.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
        }
        message
    }
}

/// What has happened so far.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Connections accepted.
    pub opened: usize,
    /// Connections that are over.
    pub closed: usize,
    /// Messages whose final dot has come.
    pub messages: Vec<Received>,
    /// Messages whose final dot has not come, though they began.
    pub unfinished: usize,
    /// Bytes of messages read.
    pub bytes: usize,
}

impl Seen {
    /// How many messages were accepted.
    pub fn completed(&self) -> usize {
        self.messages.iter().filter(|message| message.completed).count()
    }
}

/// The fake. It ends when it is dropped.
#[derive(Debug)]
pub struct NextHop {
    address: Address,
    seen: watch::Receiver<Seen>,
    accepting: JoinHandle<()>,
}

impl NextHop {
    /// Starts one that follows `orders` in every session.
    pub async fn start(orders: Vec<Order>) -> NextHop {
        NextHop::start_by_session(move |_| orders.clone()).await
    }

    /// Starts one with orders for each session, counted from 0.
    pub async fn start_by_session(orders: impl Fn(usize) -> Vec<Order> + Send + 'static) -> NextHop {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let (sender, seen) = watch::channel(Seen::default());
        let sender = Arc::new(sender);
        let accepting = tokio::spawn(async move {
            let mut sessions = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let number = sender.borrow().opened;
                sender.send_modify(|seen| seen.opened += 1);
                let session = Session {
                    stream,
                    input: Vec::new(),
                    orders: orders(number),
                    seen: sender.clone(),
                    current: Received::default(),
                    answered: false,
                };
                sessions.spawn(session.run());
            }
        });
        NextHop { address: Address::tcp("127.0.0.1", port), seen, accepting }
    }

    /// Where it listens.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// What has happened so far.
    pub fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }

    /// Waits until what has happened is as wanted; panics when that takes too long.
    pub async fn wait(&self, what: &str, wanted: impl FnMut(&Seen) -> bool) -> Seen {
        let mut seen = self.seen.clone();
        let reached = tokio::time::timeout(PATIENCE, seen.wait_for(wanted)).await;
        match reached {
            Ok(Ok(seen)) => seen.clone(),
            _ => panic!("the next hop never saw {what}: {:?}", self.seen.borrow().clone()),
        }
    }

    /// Waits until no session is open.
    pub async fn idle(&self) -> Seen {
        self.wait("the end of all sessions", |seen| seen.opened == seen.closed).await
    }
}

impl Drop for NextHop {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

struct Session {
    stream: TcpStream,
    input: Vec<u8>,
    orders: Vec<Order>,
    seen: Arc<watch::Sender<Seen>>,
    current: Received,
    /// A reply to the message has been given before its end: the dot gets no other.
    answered: bool,
}

/// The session is over.
struct Over;

impl Session {
    async fn run(mut self) {
        let _ = self.dialogue().await;
        // A socket closed with unread input sends a reset, which can overtake the last reply.
        let _ = self.stream.shutdown().await;
        self.seen.send_modify(|seen| seen.closed += 1);
    }

    async fn dialogue(&mut self) -> Result<(), Over> {
        self.act(Stage::Banner, b"220 hop.test ESMTP\r\n").await?;
        loop {
            let line = self.line().await?;
            let verb: Vec<u8> =
                line.iter().take_while(|byte| byte.is_ascii_alphabetic()).map(u8::to_ascii_uppercase).collect();
            match verb.as_slice() {
                b"EHLO" => self.command(line, Stage::Ehlo, EHLO).await?,
                b"XFORWARD" => self.command(line, Stage::Xforward, b"250 2.0.0 Ok\r\n").await?,
                b"MAIL" => self.command(line, Stage::Mail, b"250 2.1.0 Ok\r\n").await?,
                b"RCPT" => {
                    let stage = self.stage_of_rcpt(&line);
                    self.command(line, stage, b"250 2.1.5 Ok\r\n").await?;
                }
                b"DATA" => {
                    let answer = self.act(Stage::Data, b"354 End data with <CR><LF>.<CR><LF>\r\n").await?;
                    if answer.starts_with(b"354") {
                        self.message().await?;
                    }
                }
                b"RSET" => self.act(Stage::Rset, b"250 2.0.0 Ok\r\n").await.map(drop)?,
                b"NOOP" => self.say(b"250 2.0.0 Ok\r\n").await?,
                b"QUIT" => {
                    self.say(b"221 2.0.0 Bye\r\n").await?;
                    return Err(Over);
                }
                _ => self.say(b"500 5.5.2 What?\r\n").await?,
            }
        }
    }

    /// An order for this recipient comes before one for all.
    fn stage_of_rcpt(&self, line: &[u8]) -> Stage {
        let line = String::from_utf8_lossy(line);
        let mut stages = self.orders.iter().map(|(stage, _)| *stage);
        let own = stages.find(|stage| matches!(stage, Stage::RcptFor(text) if line.contains(text)));
        own.unwrap_or(Stage::Rcpt)
    }

    async fn command(&mut self, line: Vec<u8>, stage: Stage, usual: &[u8]) -> Result<(), Over> {
        self.current.commands.push(line);
        self.act(stage, usual).await.map(drop)
    }

    async fn message(&mut self) -> Result<(), Over> {
        self.seen.send_modify(|seen| seen.unfinished += 1);
        // The CR LF of the DATA line counts for a dot right at the start.
        let mut wire = b"\r\n".to_vec();
        wire.append(&mut self.input);
        let mut searched = 0;
        loop {
            if let Some(at) = wire[searched..].windows(5).position(|bytes| bytes == b"\r\n.\r\n") {
                self.input = wire.split_off(searched + at + 5);
                wire.truncate(searched + at + 2);
                break;
            }
            searched = wire.len().saturating_sub(4);
            self.during_body(wire.len() - 2).await?;
            let before = wire.len();
            if !matches!(self.stream.read_buf(&mut wire).await, Ok(1..)) {
                return Err(Over);
            }
            self.seen.send_modify(|seen| seen.bytes += wire.len() - before);
        }
        self.current.wire = wire.split_off(2);
        let received = std::mem::take(&mut self.current);
        let index = self.seen.borrow().messages.len();
        self.seen.send_modify(|seen| {
            seen.unfinished -= 1;
            seen.messages.push(received);
        });
        if std::mem::take(&mut self.answered) {
            return Ok(());
        }
        let answer = self.act(Stage::End, b"250 2.0.0 Ok: queued as FAKE\r\n").await?;
        if answer.starts_with(b"2") {
            self.seen.send_modify(|seen| {
                let open = seen.messages[index..].iter_mut().find(|message| !message.completed);
                open.expect("pushed above and never removed").completed = true;
            });
        }
        Ok(())
    }

    async fn during_body(&mut self, have: usize) -> Result<(), Over> {
        let due = self.orders.iter().position(|(stage, _)| matches!(stage, Stage::Body(after) if have >= *after));
        match due {
            Some(at) => {
                let (_, act) = self.orders.remove(at);
                self.answered = true;
                self.perform(&act).await
            }
            None => Ok(()),
        }
    }

    /// Follows the order for this stage, or answers as usual; gives what was said.
    async fn act(&mut self, stage: Stage, usual: &[u8]) -> Result<Vec<u8>, Over> {
        let act = self
            .orders
            .iter()
            .find(|(at, _)| *at == stage)
            .map_or_else(|| Act::Say(usual.to_vec()), |(_, act)| act.clone());
        self.perform(&act).await?;
        match act {
            Act::Say(said) | Act::Late(_, said) => Ok(said),
            _ => Err(Over),
        }
    }

    async fn perform(&mut self, act: &Act) -> Result<(), Over> {
        match act {
            Act::Say(bytes) => self.say(bytes).await,
            Act::Late(wait, bytes) => {
                tokio::time::sleep(*wait).await;
                self.say(bytes).await
            }
            Act::SayAndDrop(bytes) => {
                self.say(bytes).await?;
                Err(Over)
            }
            Act::Drop => Err(Over),
            Act::Hang => std::future::pending().await,
        }
    }

    async fn say(&mut self, bytes: &[u8]) -> Result<(), Over> {
        self.stream.write_all(bytes).await.map_err(|_| Over)
    }

    async fn line(&mut self) -> Result<Vec<u8>, Over> {
        loop {
            if let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.input.drain(..=end).collect();
                line.truncate(line.len() - if line.ends_with(b"\r\n") { 2 } else { 1 });
                return Ok(line);
            }
            if !matches!(self.stream.read_buf(&mut self.input).await, Ok(1..)) {
                return Err(Over);
            }
        }
    }
}
