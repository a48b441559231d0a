// SPDX-License-Identifier: GPL-3.0-or-later
//! The next hop fails in every way at every stage, and the client leaves: the client gets the next hop's own
//! words or a 4xx, and there is one copy at most, none without a 2xx.

use std::time::{Duration, Instant};

use common::address::Address;
use tests::filter::Filter;
use tests::nexthop::{Act, NextHop, Order, Stage};
use tests::smtp_client::{Answer, SmtpClient};

/// Plays one message and gives the first reply that is not 2xx or 3xx, or the last.
async fn play(filter: &Filter, body: &[u8]) -> Answer {
    let mut client = SmtpClient::greeted(&filter.address).await;
    let mut answer = Answer(Vec::new());
    for command in ["XFORWARD NAME=a ADDR=192.0.2.1", "MAIL FROM:<a@example.org>", "RCPT TO:<b@example.net>", "DATA"] {
        answer = client.command(command).await;
        if answer.code() >= 400 {
            return answer;
        }
    }
    assert_eq!(answer.code(), 354);
    client.send(body).await;
    client.send(b".\r\n").await;
    client.answer().await
}

async fn with(orders: Vec<Order>, lines: &str, body: &[u8]) -> (Answer, NextHop) {
    let hop = NextHop::start(orders).await;
    let filter = Filter::start(hop.address(), lines).await;
    let answer = play(&filter, body).await;
    filter.stop().await;
    (answer, hop)
}

fn assert_own_451(answer: &Answer, what: &str) {
    let text = answer.text();
    assert!(text.starts_with("451 4.") && text.contains(" id="), "{what}: {text}");
}

const STAGES: [Stage; 8] = [
    Stage::Banner,
    Stage::Ehlo,
    Stage::Xforward,
    Stage::Mail,
    Stage::Rcpt,
    Stage::Data,
    Stage::Body(100_000),
    Stage::End,
];

fn body() -> Vec<u8> {
    b"0123456789abcdef0123456789abcdef\r\n".repeat(30_000)
}

#[tokio::test]
async fn refused_connection() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    drop(listener);
    let filter = Filter::start(&Address::tcp("127.0.0.1", port), "").await;
    let answer = play(&filter, b"x\r\n").await;
    assert_own_451(&answer, "refused");
    assert!(answer.text().starts_with("451 4.4.1"));
    filter.stop().await;
}

#[tokio::test]
async fn a_refusal_at_any_stage_is_passed_on_or_becomes_451() {
    for stage in STAGES {
        for code in ["421", "450", "552"] {
            let said = format!("{code}-4.7.7 two\r\n{code} 4.7.7 lines \u{e9}\r\n").into_bytes();
            let (answer, hop) = with(vec![(stage, Act::Say(said.clone()))], "", &body()).await;
            let what = format!("{code} at {stage:?}");
            match stage {
                Stage::Banner | Stage::Ehlo | Stage::Xforward => assert_own_451(&answer, &what),
                _ => assert_eq!(answer.0, said, "{what}"),
            }
            assert_eq!(hop.idle().await.completed(), 0, "{what}");
        }
    }
}

#[tokio::test]
async fn a_connection_dropped_at_any_stage_becomes_451() {
    for stage in STAGES {
        let (answer, hop) = with(vec![(stage, Act::Drop)], "", &body()).await;
        assert_own_451(&answer, &format!("{stage:?}"));
        assert_eq!(hop.idle().await.completed(), 0, "{stage:?}");
    }
}

#[tokio::test]
async fn parting_words_are_heard() {
    let words = b"421 4.3.2 hop.test shutting down\r\n".to_vec();
    for stage in [Stage::Mail, Stage::Rcpt, Stage::Data, Stage::Body(1000), Stage::End] {
        let (answer, hop) = with(vec![(stage, Act::SayAndDrop(words.clone()))], "", &body()).await;
        assert_eq!(answer.0, words, "{stage:?}");
        assert_eq!(hop.idle().await.completed(), 0, "{stage:?}");
    }
}

#[tokio::test]
async fn garbage_and_replies_out_of_place_become_451() {
    for stage in STAGES {
        for said in ["HTTP/1.1 400 Bad Request\r\n\r\n", "\r\n", "250-a\r\n550 b\r\n", "354 go on\r\n"] {
            if stage == Stage::Data && said.starts_with("354") {
                continue;
            }
            let (answer, hop) = with(vec![(stage, Act::Say(said.into()))], "", &body()).await;
            assert_own_451(&answer, &format!("{said:?} at {stage:?}"));
            // The fake counts by the first digit that it sent.
            let counted = usize::from(stage == Stage::End && said.starts_with('2'));
            assert_eq!(hop.idle().await.completed(), counted, "{said:?} at {stage:?}");
        }
    }
}

#[tokio::test]
async fn success_before_the_dot_is_no_success() {
    // So large that it cannot be on its way as a whole when the reply comes.
    let order = (Stage::Body(1000), Act::Say(b"250 2.0.0 Ok: queued\r\n".to_vec()));
    let (answer, hop) = with(vec![order], "", &body().repeat(30)).await;
    assert_own_451(&answer, "early 250");
    let seen = hop.idle().await;
    assert_eq!((seen.messages.len(), seen.unfinished), (0, 1), "no final dot was sent");
}

#[tokio::test]
async fn a_hanging_next_hop_becomes_451_in_time() {
    let limits = "deadline = \"6s\"\nproxy_timeout = \"9s\"\nreinject_timeout = \"700ms\"";
    for stage in STAGES {
        // More than the kernel's buffers take, where the sender is to be stuck in the middle.
        let message = if matches!(stage, Stage::Body(_)) { body().repeat(15) } else { b"x\r\n".to_vec() };
        let started = Instant::now();
        let (answer, hop) = with(vec![(stage, Act::Hang)], limits, &message).await;
        assert_own_451(&answer, &format!("{stage:?}"));
        assert!(started.elapsed() < Duration::from_secs(25), "{stage:?}: {:?}", started.elapsed());
        let seen = hop.seen();
        assert_eq!((seen.completed(), seen.messages.len()), (0, usize::from(stage == Stage::End)), "{stage:?}");
    }
}

#[tokio::test]
async fn a_next_hop_that_closed_while_the_client_was_slow_is_asked_again() {
    // The first session is closed by the next hop right after it took the recipient.
    let hop = NextHop::start_by_session(|session| match session {
        0 => vec![(Stage::Rcpt, Act::Say(b"250 2.1.5 Ok\r\n".to_vec())), (Stage::Data, Act::Drop)],
        _ => Vec::new(),
    })
    .await;
    let filter = Filter::start(hop.address(), "").await;
    assert_eq!(play(&filter, b"x\r\n").await.code(), 250);
    let seen = hop.idle().await;
    assert_eq!((seen.opened, seen.completed()), (2, 1));
    assert_eq!(seen.messages[0].lines("MAIL"), ["MAIL FROM:<a@example.org>"]);
    assert_eq!(seen.messages[0].lines("XFORWARD"), ["XFORWARD NAME=a ADDR=192.0.2.1"]);
    filter.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_before_the_dot_never_sent_anything() {
    let hop = NextHop::start(Vec::new()).await;
    let filter = Filter::start(hop.address(), "").await;
    let mut client = SmtpClient::in_data(&filter.address).await;
    client.send(b"Subject: half\r\n\r\nof a mess").await;
    drop(client);
    let seen = hop.idle().await;
    assert_eq!((seen.messages.len(), seen.unfinished), (0, 0), "the next hop has seen no DATA");
    filter.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_while_we_send_gets_no_copy_delivered() {
    // The next hop reads slowly enough: it holds still in the body until the client is gone.
    let hop = NextHop::start(vec![(Stage::Data, Act::Hang)]).await;
    let filter = Filter::start(hop.address(), "reinject_timeout = \"2s\"").await;
    let mut client = SmtpClient::in_data(&filter.address).await;
    client.send(b"x\r\n.\r\n").await;
    hop.wait("RCPT", |seen| seen.opened == 1).await;
    drop(client);
    filter.stop().await;
    assert_eq!(hop.seen().messages.len(), 0);
}

#[tokio::test]
async fn the_client_is_gone_right_before_the_final_dot() {
    // The whole message has been sent when the client leaves; only the dot is missing.
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let hop = GatedHop::start(gate.clone()).await;
    let filter = Filter::start(&hop.address, "").await;
    let mut client = SmtpClient::in_data(&filter.address).await;
    client.send(b"x\r\n.\r\n").await;
    hop.at_data.acquire().await.expect("open").forget();
    drop(client);
    gate.add_permits(1);
    let after_354 = hop.finished.await.expect("the fake does not panic");
    assert!(!after_354.windows(5).any(|bytes| bytes == b"\r\n.\r\n"), "{}", String::from_utf8_lossy(&after_354));
    filter.stop().await;
}

/// A next hop that says 354 only when the gate is opened, and tells what came after that.
struct GatedHop {
    address: Address,
    at_data: std::sync::Arc<tokio::sync::Semaphore>,
    finished: tokio::task::JoinHandle<Vec<u8>>,
}

impl GatedHop {
    async fn start(gate: std::sync::Arc<tokio::sync::Semaphore>) -> GatedHop {
        use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = Address::tcp("127.0.0.1", listener.local_addr().expect("bound").port());
        let at_data = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
        let arrived = at_data.clone();
        let finished = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("accepted");
            let mut stream = BufReader::new(stream);
            stream.write_all(b"220 gate\r\n").await.expect("banner");
            let mut line = String::new();
            while stream.read_line(&mut line).await.expect("a line") > 0 && !line.starts_with("DATA") {
                stream.write_all(b"250 2.0.0 Ok\r\n").await.expect("reply");
                line.clear();
            }
            arrived.add_permits(1);
            gate.acquire().await.expect("open").forget();
            stream.write_all(b"354 go\r\n").await.expect("354");
            let mut rest = b"\r\n".to_vec();
            let _ = stream.read_to_end(&mut rest).await;
            rest
        });
        GatedHop { address, at_data, finished }
    }
}
