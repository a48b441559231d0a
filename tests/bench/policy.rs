// SPDX-License-Identifier: GPL-3.0-or-later
//! The load on a policy server: requests as Postfix 3.7's smtpd(8) sends them at RCPT TO, one after the other on each
//! connection, every answer read and judged (SMTPD_POLICY_README).
//!
//! No two requests belong to the same message, and no two first contacts have the same triplet, in all of a run.

use std::io::Write;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ::tests::process::Trouble;
use clap::ValueEnum;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::measure::{Bounds, Budget, Failure, Kind, Sample, Subject, Tally};

/// Triplets that are made known before anything is measured.
const KNOWN: u64 = 1000;
/// Users that have logged in.
const USERS: u64 = 1000;
/// Senders' domains, of all loads but one.
const DOMAINS: u64 = 997;
/// The clients with this network are whitelisted (RFC 5737, TEST-NET-1).
pub(crate) const WHITELISTED: &str = "192.0.2.0/24";
/// The greylist delay the daemons must be set to, the shortest there is.
pub(crate) const DELAY: Duration = Duration::from_secs(1);
/// Postfix would wait longer; we have seen enough.
const PATIENCE: Duration = Duration::from_secs(10);
const LONGEST_ANSWER: usize = 4096;

/// Numbers requests, and with them triplets. The first ones are the known triplets.
static NEXT: AtomicU64 = AtomicU64::new(KNOWN);

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Load {
    /// A triplet that has passed before.
    Known,
    /// A triplet nobody has ever seen.
    New,
    /// The same triplet from everybody; it has passed before.
    Hot,
    /// A client in the whitelist.
    Whitelisted,
    /// A recipient of one of a thousand users that have logged in, each far below its limit.
    Rate,
    /// The same of a single user.
    Rate1,
    /// A triplet nobody has ever seen, and a sender's domain nobody has ever seen either.
    NewDomain,
}

impl Load {
    /// Those of the common table, in its order.
    pub(crate) const COMMON: [Load; 6] =
        [Load::Known, Load::Hot, Load::New, Load::Whitelisted, Load::Rate, Load::Rate1];

    /// What the table calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Load::Known => "known triplet",
            Load::Hot => "one triplet",
            Load::New => "first contact",
            Load::Whitelisted => "whitelisted",
            Load::Rate => "1000 limited users",
            Load::Rate1 => "one limited user",
            Load::NewDomain => "first contact, new domain",
        }
    }

    /// Whether it is a question to such a server.
    pub(crate) fn suits(self, kind: Kind) -> bool {
        match kind {
            Kind::Nothing | Kind::Ours => true,
            // They have other whitelists.
            Kind::Greylister => matches!(self, Load::Known | Load::Hot | Load::New | Load::NewDomain),
            Kind::Limiter => matches!(self, Load::Rate | Load::Rate1),
        }
    }

    fn is_right(self, kind: Kind, action: &str) -> bool {
        let passes = action == "DUNNO" || action.starts_with("PREPEND X-Greylist: ");
        match (kind, self) {
            (Kind::Nothing, _) => action == "DUNNO",
            (_, Load::Rate | Load::Rate1) | (Kind::Limiter, _) => action.eq_ignore_ascii_case("DUNNO"),
            (_, Load::Known | Load::Hot) => passes,
            (Kind::Ours, Load::New | Load::NewDomain) => action.starts_with("DEFER_IF_PERMIT 4.7.1 Greylisted"),
            (Kind::Greylister, Load::New | Load::NewDomain) => {
                action.get(..16).is_some_and(|verb| verb.eq_ignore_ascii_case("DEFER_IF_PERMIT "))
            }
            (_, Load::Whitelisted) => action == "DUNNO",
        }
    }

    /// Request number `number` of this load, in `out`.
    fn write(self, number: u64, out: &mut Vec<u8>) {
        out.clear();
        match self {
            Load::Known => write_request(number, number % KNOWN, DOMAINS, spread(number % KNOWN), "", out),
            Load::Hot => write_request(number, 0, DOMAINS, spread(0), "", out),
            Load::New => write_request(number, number, DOMAINS, spread(number), "", out),
            Load::NewDomain => write_request(number, number, u64::MAX, spread(number), "", out),
            Load::Rate => {
                let user = format!("user{}", number % USERS);
                write_request(number, number, DOMAINS, spread(number), &user, out)
            }
            Load::Rate1 => write_request(number, number, DOMAINS, spread(number), "user", out),
            Load::Whitelisted => {
                let client = Ipv4Addr::new(192, 0, 2, (number % 250) as u8 + 1);
                write_request(number, number, DOMAINS, client, "", out)
            }
        }
    }
}

/// The network of all clients that are not whitelisted.
pub(crate) const CLIENTS: &str = "10.0.0.0/8";

/// Clients all over a large network, neighbours far apart.
fn spread(triplet: u64) -> Ipv4Addr {
    let [_, a, b, c] = (triplet.wrapping_mul(2_654_435_761) as u32).to_be_bytes();
    Ipv4Addr::new(10, a, b, c)
}

fn write_request(number: u64, triplet: u64, domains: u64, client: Ipv4Addr, user: &str, out: &mut Vec<u8>) {
    let organisation = triplet % domains;
    let written = write!(
        out,
        "request=smtpd_access_policy\nprotocol_state=RCPT\nprotocol_name=ESMTP\nclient_address={client}\n\
         client_name=mx{triplet}.org{organisation}.example\nclient_port=41234\n\
         reverse_client_name=mx{triplet}.org{organisation}.example\nserver_address=198.51.100.25\nserver_port=25\n\
         helo_name=mx{triplet}.org{organisation}.example\nsender=writer@org{organisation}.example\n\
         recipient=reader{triplet}@bench.test\nrecipient_count=0\nqueue_id=\ninstance=be9c.{number:x}.0\nsize=4711\n\
         etrn_domain=\nstress=\nsasl_method=\nsasl_username={user}\nsasl_sender=\nccert_subject=\nccert_issuer=\n\
         ccert_fingerprint=\nccert_pubkey_fingerprint=\nencryption_protocol=TLSv1.3\n\
         encryption_cipher=TLS_AES_256_GCM_SHA384\nencryption_keysize=256\npolicy_context=\n\n"
    );
    debug_assert!(written.is_ok(), "a Vec takes everything");
}

/// One connection, as one smtpd process has it.
#[derive(Debug)]
struct Client {
    stream: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Client {
    async fn connect(port: u16) -> std::io::Result<Client> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.set_nodelay(true)?;
        Ok(Client { stream, request: Vec::with_capacity(1024), answer: Vec::with_capacity(LONGEST_ANSWER) })
    }

    /// Asks once; the action of the answer.
    async fn ask(&mut self, load: Load, number: u64) -> Result<&str, Failure> {
        load.write(number, &mut self.request);
        match timeout(PATIENCE, self.exchange()).await {
            Ok(done) => done?,
            Err(_) => return Err(Failure::Broken(format!("no answer within {} s", PATIENCE.as_secs()))),
        }
        let text = std::str::from_utf8(&self.answer).ok();
        let action = text.and_then(|text| text.strip_prefix("action=")?.strip_suffix("\n\n"));
        match action.filter(|action| !action.contains(['\n', '\r'])) {
            Some(action) => Ok(action),
            None => Err(Failure::Wrong(format!("not an answer: {}", self.answer.escape_ascii()))),
        }
    }

    async fn exchange(&mut self) -> Result<(), Failure> {
        self.stream.write_all(&self.request).await?;
        self.answer.clear();
        while !self.answer.ends_with(b"\n\n") {
            if self.stream.read_buf(&mut self.answer).await? == 0 {
                return Err(Failure::Broken("closed without an answer".to_owned()));
            }
            if self.answer.len() >= LONGEST_ANSWER {
                return Err(Failure::Broken(format!("an answer of more than {LONGEST_ANSWER} bytes")));
            }
        }
        Ok(())
    }

    async fn ask_and_judge(&mut self, load: Load, kind: Kind) -> Result<(), Failure> {
        let action = self.ask(load, NEXT.fetch_add(1, Ordering::Relaxed)).await?;
        if load.is_right(kind, action) {
            return Ok(());
        }
        Err(Failure::Wrong(format!("answer to a {}: {action}", load.name())))
    }
}

/// The closed loop: `clients` connections, each asks again as soon as it is answered.
pub(crate) async fn run(load: Load, subject: &Subject, clients: usize, bounds: Bounds) -> Result<Sample, Trouble> {
    let mut connections = Vec::new();
    for _ in 0..clients {
        let connection = Client::connect(subject.port).await.map_err(|error| Trouble::new("cannot connect", error))?;
        connections.push(connection);
    }
    let budget = Arc::new(Budget::start(bounds));
    let mut running = JoinSet::new();
    for mut client in connections {
        let (mut tally, kind) = (Tally::new(&budget), subject.kind);
        running.spawn(async move {
            while tally.begin_at_pace().await {
                tally.end(client.ask_and_judge(load, kind).await);
            }
            tally.sample
        });
    }
    let mut sample = Sample::default();
    while let Some(done) = running.join_next().await {
        sample.add(done.map_err(|error| Trouble::new("a client of the load", error))?);
    }
    sample.elapsed = budget.elapsed();
    Ok(sample)
}

/// Makes the known triplets known: a first contact each, and again when the delay is over.
pub(crate) async fn make_known(subject: &Subject) -> Result<(), Trouble> {
    let trouble = |why: String| Trouble::new(format!("{}: making triplets known", subject.name), why);
    let mut client = Client::connect(subject.port).await.map_err(|error| trouble(error.to_string()))?;
    let deadline = Instant::now() + DELAY + 12 * PATIENCE;
    let mut waiting: Vec<u64> = (0..KNOWN).collect();
    let mut instance = 0;
    while !waiting.is_empty() {
        let mut deferred = Vec::new();
        for &triplet in &waiting {
            // The instance must be new, the triplet must not.
            instance += KNOWN;
            let action = client.ask(Load::Known, instance + triplet).await;
            let action = action.map_err(|failure| trouble(format!("{failure:?}")))?;
            match action {
                deferral if Load::New.is_right(subject.kind, deferral) => deferred.push(triplet),
                passed if Load::Known.is_right(subject.kind, passed) => {}
                other => return Err(trouble(other.to_owned())),
            }
        }
        if !deferred.is_empty() && Instant::now() > deadline {
            return Err(trouble(format!("{} of {KNOWN} still do not pass", deferred.len())));
        }
        waiting = deferred;
        tokio::time::sleep(DELAY / 4).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(load: Load, number: u64) -> String {
        let mut out = b"old".to_vec();
        load.write(number, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn attribute<'a>(request: &'a str, name: &str) -> &'a str {
        request.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap()
    }

    #[test]
    fn a_request_is_one_that_policyd_reads() {
        let text = request(Load::New, 5000);
        assert!(text.starts_with("request=smtpd_access_policy\n") && text.ends_with("\n\n"));
        assert_eq!(text.matches("\n\n").count(), 1);
        assert_eq!(attribute(&text, "recipient"), "reader5000@bench.test");
        assert_eq!(attribute(&text, "instance"), "be9c.1388.0");
        assert!(text.lines().all(|line| line.is_empty() || line.contains('=')));
    }

    #[test]
    fn known_triplets_come_again_and_first_contacts_do_not() {
        let triplet =
            |text: &str| ["client_address", "sender", "recipient"].map(|name| attribute(text, name).to_owned());
        assert_eq!(triplet(&request(Load::Known, 7)), triplet(&request(Load::Known, 7 + KNOWN)));
        assert_ne!(
            attribute(&request(Load::Known, 7), "instance"),
            attribute(&request(Load::Known, 7 + KNOWN), "instance")
        );
        assert_ne!(triplet(&request(Load::New, KNOWN)), triplet(&request(Load::New, KNOWN + 1)));
        assert!(attribute(&request(Load::Whitelisted, 250), "client_address").starts_with("192.0.2."));
    }

    #[test]
    fn answers_are_judged() {
        let (ours, nothing, peer) = (Kind::Ours, Kind::Nothing, Kind::Greylister);
        for (load, kind, action, right) in [
            (Load::New, ours, "DEFER_IF_PERMIT 4.7.1 Greylisted, try again in 1s; id X", true),
            (Load::New, ours, "DEFER_IF_PERMIT 4.3.0 store", false),
            (Load::New, ours, "DUNNO", false),
            (Load::New, nothing, "DUNNO", true),
            (Load::Known, ours, "DUNNO", true),
            (Load::Known, ours, "PREPEND X-Greylist: delayed 1s by mx.test", true),
            (Load::Known, ours, "DEFER_IF_PERMIT 4.7.1 Greylisted", false),
            (Load::Known, nothing, "PREPEND X-Greylist: x", false),
            (Load::Whitelisted, ours, "DUNNO", true),
            (Load::Whitelisted, ours, "OK", false),
            (Load::New, peer, "defer_if_permit Greylisted by x", true),
            (Load::New, peer, "PREPEND X-Greylist: x", false),
            (Load::Known, peer, "PREPEND X-Greylist: x", true),
        ] {
            assert_eq!(load.is_right(kind, action), right, "{load:?} {kind:?} {action}");
        }
    }

    #[tokio::test]
    async fn a_wrong_answer_is_an_error() {
        let port = ::tests::ports::free_port();
        tokio::spawn(crate::peers::dunno(port));
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err() {
            tokio::task::yield_now().await;
        }
        let subject = Subject { name: "dunno", port, process: 0, beside: None, kind: Kind::Nothing };
        let bounds = Bounds { time: Duration::from_secs(60), count: 50, pace: None };
        let sample = run(Load::New, &subject, 4, bounds).await.unwrap();
        assert_eq!((sample.latencies.len(), sample.errors), (50, 0));
        let pretender = Subject { kind: Kind::Ours, ..subject };
        let sample = run(Load::New, &pretender, 4, bounds).await.unwrap();
        assert_eq!((sample.latencies.len(), sample.errors), (0, 50));
        assert_eq!(sample.first_error.as_deref(), Some("answer to a first contact: DUNNO"));
        assert!(make_known(&pretender).await.is_ok(), "DUNNO is what a known triplet gets");
    }
}
