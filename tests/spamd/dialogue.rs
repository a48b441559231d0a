// SPDX-License-Identifier: GPL-3.0-or-later
//! Clients that say exactly what a test wants: old ones, slow ones, liars, and those that leave.

use std::time::Duration;

use common::units::Period;
use contentd::identity::Identity;
use contentd::ledger::Kind;
use contentd::spool::Message;
use flate2::Compression;
use flate2::write::ZlibEncoder;
use std::io::Write;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Gate;

const SPAM: &str = "Subject: lottery\r\n\r\ncheap pills\r\n";
const PATIENCE: Duration = Duration::from_secs(60);

struct Client(TcpStream);

impl Client {
    async fn connect(gate: &Gate) -> Client {
        Client(TcpStream::connect(("127.0.0.1", gate.port())).await.unwrap())
    }

    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Everything up to where the server closes.
    async fn answer(&mut self) -> String {
        let mut text = Vec::new();
        let read = tokio::time::timeout(PATIENCE, self.0.read_to_end(&mut text)).await;
        read.expect("closed in time").expect("no reset");
        String::from_utf8(text).unwrap()
    }
}

/// Sends a request, stops writing as spamc does, and reads the answer.
async fn ask(gate: &Gate, request: impl AsRef<[u8]>) -> String {
    let mut client = Client::connect(gate).await;
    client.send(request).await;
    client.0.shutdown().await.unwrap();
    client.answer().await
}

fn request(command: &str, headers: &str, message: &str) -> String {
    format!("{command}\r\nContent-length: {}\r\n{headers}\r\n{message}", message.len())
}

const VERDICT: &str = "SPAMD/1.1 0 EX_OK\r\nSpam: True ; 5.8 / 5.0\r\n\r\n";

#[tokio::test]
async fn clients_of_all_ages() {
    let gate = Gate::start("").await;
    assert_eq!(ask(&gate, request("CHECK SPAMC/1.5", "User: ann\r\n", SPAM)).await, VERDICT);
    assert_eq!(ask(&gate, format!("CHECK SPAMC/1.0\r\n{SPAM}")).await, VERDICT);
    assert_eq!(ask(&gate, format!("CHECK SPAMC/1.5\r\n\r\n{SPAM}")).await, VERDICT, "no length");
    let symbols = ask(&gate, request("SYMBOLS SPAMC/1.2", "", SPAM)).await;
    assert_eq!(symbols, format!("{VERDICT}T_LOTTERY,T_PILLS\r\n"));
    assert_eq!(ask(&gate, "PING SPAMC/1.2").await, "SPAMD/1.5 0 PONG\r\n");
    assert_eq!(ask(&gate, "PING SPAMC/1.2\r\n\r\n").await, "SPAMD/1.5 0 PONG\r\n");
    assert_eq!(ask(&gate, "PING SPAMC/1.5\r\n\r\n").await, "SPAMD/1.5 0 PONG\r\n");
    assert_eq!(ask(&gate, "SKIP SPAMC/1.5\r\n\r\n").await, "");
    assert_eq!(ask(&gate, "").await, "");
    gate.filter.stop().await;
}

/// Exim 4.96 asks as 1.2 and wants the `Spam:` line right behind the first one, the report behind an empty line.
#[tokio::test]
async fn what_exim_asks_for() {
    let gate = Gate::start("").await;
    let answer = ask(&gate, request("REPORT SPAMC/1.2", "User: nobody\r\n", SPAM)).await;
    let report = answer.strip_prefix(VERDICT).expect("what Exim reads");
    assert!(report.contains(" 3.5 T_LOTTERY              The subject speaks"), "{report}");
    assert!(report.contains("\n 2.2 T_PILLS                Pills\n"), "{report}");
    gate.filter.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_close_has_its_answer_all_the_same() {
    let gate = Gate::start("").await;
    let mut client = Client::connect(&gate).await;
    client.send(request("CHECK SPAMC/1.5", "", SPAM)).await;
    assert_eq!(client.answer().await, VERDICT);
    gate.filter.stop().await;
}

#[tokio::test]
async fn byte_by_byte() {
    let gate = Gate::start("").await;
    let mut client = Client::connect(&gate).await;
    client.0.set_nodelay(true).unwrap();
    for byte in request("CHECK SPAMC/1.5", "", SPAM).as_bytes() {
        client.send([*byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(client.answer().await, VERDICT);
    gate.filter.stop().await;
}

#[tokio::test]
async fn what_breaks_the_protocol() {
    let gate = Gate::start("").await;
    let bad = |why: &str| format!("SPAMD/1.0 76 Bad header line: ({why})\r\n");
    assert_eq!(ask(&gate, "GET / HTTP/1.0\r\n\r\n").await, bad("unknown command"));
    assert_eq!(ask(&gate, "LOG SPAMC/1.5\r\n\r\n").await, bad("unknown command"));
    assert_eq!(ask(&gate, b"\x16\x03\x01\x00\xff\n\xfe").await, bad("unknown command"), "TLS");
    assert_eq!(ask(&gate, "x".repeat(300_000)).await, bad("line too long"));
    assert_eq!(ask(&gate, "CHECK SPAMC/1.5\r\nUser: x\r\n").await, bad("EOF during headers"));
    let many = format!("CHECK SPAMC/1.5\r\n{}", "X-A: y\r\n".repeat(300));
    assert_eq!(ask(&gate, many).await, bad("too many headers"));
    let short = ask(&gate, format!("CHECK SPAMC/1.5\r\nContent-length: 100\r\n\r\n{SPAM}")).await;
    assert_eq!(short, bad("Content-length mismatch: expected 100 bytes, got 33 bytes"));
    let long = ask(&gate, format!("CHECK SPAMC/1.5\r\nContent-length: 5\r\n\r\n{SPAM}")).await;
    assert_eq!(long, bad("Content-length mismatch: expected 5 bytes, got 33 bytes"));
    let no_length = ask(&gate, "CHECK SPAMC/1.5\r\nCompress: zlib\r\n\r\nx").await;
    assert_eq!(no_length, "SPAMD/1.0 69 Service Unavailable: (Compress requires Content-length header)\r\n");
    assert_eq!(ask(&gate, request("CHECK SPAMC/1.5", "", SPAM)).await, VERDICT, "and it still serves");
    gate.filter.stop().await;
}

#[tokio::test]
async fn compressed_messages() {
    let gate = Gate::start("").await;
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(SPAM.as_bytes()).unwrap();
    let small = encoder.finish().unwrap();
    let head = format!("CHECK SPAMC/1.5\r\nCompress: zlib\r\nContent-length: {}\r\n\r\n", small.len());
    assert_eq!(ask(&gate, [head.as_bytes(), &small].concat()).await, VERDICT);
    let cut = head.replace(&small.len().to_string(), "9");
    let answer = ask(&gate, [cut.as_bytes(), &small[..9]].concat()).await;
    assert_eq!(answer, "SPAMD/1.0 69 Service Unavailable: (zlib: failed to find end of zlib stream)\r\n");
    gate.filter.stop().await;
}

#[tokio::test]
async fn what_is_too_large_is_heard_out_and_told() {
    let gate = Gate::start("max_size = \"10KB\"").await;
    let refusal = "SPAMD/1.0 65 Message refused: (message over 10000 bytes)\r\n";
    let large = "x".repeat(20_000_000);
    assert_eq!(ask(&gate, request("CHECK SPAMC/1.5", "", &large)).await, refusal);
    assert_eq!(ask(&gate, format!("CHECK SPAMC/1.5\r\n\r\n{large}")).await, refusal);
    let mut bomb = ZlibEncoder::new(Vec::new(), Compression::best());
    bomb.write_all(&vec![0; 5_000_000]).unwrap();
    let bomb = bomb.finish().unwrap();
    assert!(bomb.len() < 10_000);
    let head = format!("CHECK SPAMC/1.5\r\nCompress: zlib\r\nContent-length: {}\r\n\r\n", bomb.len());
    assert_eq!(ask(&gate, [head.as_bytes(), &bomb].concat()).await, refusal);
    gate.filter.stop().await;
}

#[tokio::test]
async fn who_says_nothing_is_told_so() {
    let gate = Gate::start("request_timeout = \"200ms\"\ndata_timeout = \"200ms\"").await;
    let mut silent = Client::connect(&gate).await;
    assert_eq!(silent.answer().await, "SPAMD/1.0 79 Timeout: (no whole request)\r\n");
    let mut stuck = Client::connect(&gate).await;
    stuck.send("CHECK SPAMC/1.5\r\nContent-length: 100\r\n\r\nhalf").await;
    assert_eq!(stuck.answer().await, "SPAMD/1.0 79 Timeout: (message not received in time)\r\n");
    gate.filter.stop().await;
}

#[tokio::test]
async fn who_leaves_does_no_harm() {
    let gate = Gate::start("max_requests = 2").await;
    let large = format!("Subject: x\r\n\r\n{}", "x".repeat(2_000_000));
    for count in 0..6 {
        let mut client = Client::connect(&gate).await;
        // The answer to PROCESS is more than the system keeps for a client that reads nothing.
        let request = request("PROCESS SPAMC/1.5", "", &large);
        let sent = if count % 2 == 0 { request.len() } else { 1_000_000 };
        client.send(&request[..sent]).await;
    }
    assert_eq!(ask(&gate, request("CHECK SPAMC/1.5", "", SPAM)).await, VERDICT);
    gate.filter.stop().await;
}

#[tokio::test]
async fn who_takes_no_answer_is_left() {
    let gate = Gate::start("max_requests = 1\nreply_timeout = \"300ms\"").await;
    let mut deaf = Client::connect(&gate).await;
    // More than the system keeps for a client that reads nothing.
    deaf.send(request("PROCESS SPAMC/1.5", "", &format!("Subject: x\r\n\r\n{}", "x".repeat(30_000_000)))).await;
    assert_eq!(ask(&gate, request("CHECK SPAMC/1.5", "", SPAM)).await, VERDICT);
    drop(deaf);
    gate.filter.stop().await;
}

#[tokio::test]
async fn more_clients_than_turns_wait_for_theirs() {
    let gate = Gate::start("max_requests = 1").await;
    let asked = (0..5).map(|_| ask(&gate, request("CHECK SPAMC/1.5", "", SPAM)));
    let (a, b, c, d, e) = {
        let mut asked = asked;
        let mut next = || asked.next().unwrap();
        tokio::join!(next(), next(), next(), next(), next())
    };
    for answer in [a, b, c, d, e] {
        assert_eq!(answer, VERDICT);
    }
    gate.filter.stop().await;
}

#[tokio::test]
async fn messages_of_spamc_count_among_all() {
    let gate = Gate::start_with("max_messages = 1", "").await;
    let mut first = Client::connect(&gate).await;
    first.send("CHECK SPAMC/1.5\r\nContent-length: 33\r\n\r\n").await;
    // Until its head has been read there is still room.
    loop {
        let answer = ask(&gate, request("CHECK SPAMC/1.5", "", SPAM)).await;
        if answer == "SPAMD/1.0 75 Temporary failure: (too many messages at once: messages)\r\n" {
            break;
        }
        assert_eq!(answer, VERDICT);
    }
    first.send(SPAM).await;
    assert_eq!(first.answer().await, VERDICT);
    gate.filter.stop().await;
}

#[tokio::test]
async fn strangers_get_no_word() {
    let gate = Gate::start("allow = [\"192.0.2.1\"]").await;
    let mut client = Client::connect(&gate).await;
    // The system may reset the connection before we have written all.
    let _ = client.0.write_all(request("CHECK SPAMC/1.5", "", SPAM).as_bytes()).await;
    let mut text = Vec::new();
    let _ = client.0.read_to_end(&mut text).await;
    assert!(text.is_empty());
    gate.filter.stop().await;
}

#[tokio::test]
async fn a_stop_lets_requests_end() {
    let gate = Gate::start("").await;
    let idle = Client::connect(&gate).await;
    let mut busy = Client::connect(&gate).await;
    busy.send("CHECK SPAMC/1.5\r\nContent-length: 33\r\n\r\n").await;
    // The server has read the head when this one is served.
    assert_eq!(ask(&gate, request("CHECK SPAMC/1.5", "", SPAM)).await, VERDICT);
    gate.filter.begin_stop();
    let Client(mut idle) = idle;
    assert_eq!(idle.read(&mut [0; 10]).await.unwrap(), 0);
    busy.send(SPAM).await;
    assert_eq!(busy.answer().await, VERDICT);
    gate.filter.stop().await;
}

#[tokio::test]
async fn what_cannot_be_checked_now_is_no_ham() {
    let silent = Gate::start("[antivirus.clamd]\naddress = \"127.0.0.1:1\"").await;
    let answer = ask(&silent, request("CHECK SPAMC/1.5", "", SPAM)).await;
    assert_eq!(answer, "SPAMD/1.0 75 Temporary failure: (content could not be checked now)\r\n");
    silent.filter.stop().await;
    let late = Gate::start_with("deadline = \"1ms\"", "").await;
    // More than anybody reads in that time.
    let large = format!("{SPAM}{}", "many words\r\n".repeat(30_000));
    let answer = ask(&late, request("CHECK SPAMC/1.5", "", &large)).await;
    assert_eq!(answer, "SPAMD/1.0 79 Timeout: (content could not be checked in time)\r\n");
    late.filter.stop().await;
}

#[tokio::test]
async fn what_has_crashed_contentd_twice_is_not_inspected_again() {
    let gate = Gate::start("").await;
    let key = Identity::read(&Message::from_bytes(SPAM.into())).unwrap().key();
    let question = request("CHECK SPAMC/1.5", "", SPAM);
    for try_id in ["ID1", "ID2"] {
        assert_eq!(ask(&gate, &question).await, VERDICT);
        drop(gate.filter.daemon.ledger.add(Kind::Crashed, &[key], try_id, "", Period::seconds(3600)));
    }
    let refusal = "SPAMD/1.0 70 Message not checked: (content could not be checked)\r\n";
    assert_eq!(ask(&gate, &question).await, refusal);
    assert!(ask(&gate, request("CHECK SPAMC/1.5", "", "Subject: x\r\n\r\n")).await.contains("Spam: False"));
    gate.filter.stop().await;
}
