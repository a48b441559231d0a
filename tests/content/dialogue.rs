// SPDX-License-Identifier: GPL-3.0-or-later
//! What goes through unchanged: parameters, XFORWARD, replies, the message; and what the limits of the dialogue say.

use tests::filter::Filter;
use tests::nexthop::{Act, NextHop, Stage};
use tests::smtp_client::SmtpClient;

async fn pair(lines: &str) -> (Filter, NextHop) {
    let hop = NextHop::start(Vec::new()).await;
    let filter = Filter::start(hop.address(), lines).await;
    (filter, hop)
}

#[tokio::test]
async fn a_message_goes_through_as_postfix_sends_it() {
    let (filter, hop) = pair("").await;
    let mut client = SmtpClient::greeted(&filter.address).await;
    let commands = [
        "XFORWARD NAME=client.example.org ADDR=IPV6:2001:db8::1 PORT=4711 HELO=a+20b",
        "XFORWARD IDENT=4Xabc PROTO=ESMTP SOURCE=REMOTE",
        "MAIL FROM:<sender@example.org> SIZE=4000 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=QQ314159+3D",
        "RCPT TO:<\"odd one\"@example.net> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;odd+20one@example.net",
        "RCPT TO:<\u{e9}t\u{e9}@[192.0.2.1]> NOTIFY=NEVER X-UNKNOWN=1",
    ];
    for command in commands {
        let answer = client.command(command).await;
        assert_eq!(answer.code(), 250, "{command}: {}", answer.text());
    }
    assert_eq!(client.command("DATA").await.code(), 354);
    client.send(b"Subject: x\r\n\r\n..dot\r\n8-bit \xe9\xff\r\n.\r\n").await;
    assert_eq!(client.answer().await.text(), "250 2.0.0 Ok: queued as FAKE\r\n");
    assert_eq!(client.command("QUIT").await.code(), 221);
    let seen = hop.idle().await;
    assert_eq!(seen.completed(), 1);
    let received = &seen.messages[0];
    assert_eq!(received.lines("EHLO"), ["EHLO filter.test"]);
    assert_eq!(
        received.lines("XFORWARD"),
        [
            "XFORWARD NAME=client.example.org ADDR=IPV6:2001:db8::1 PORT=4711 HELO=a+20b IDENT=4Xabc PROTO=ESMTP SOURCE=REMOTE"
        ]
    );
    assert_eq!(received.lines("MAIL"), commands[2..3]);
    assert_eq!(received.lines("RCPT"), commands[3..]);
    let message = received.message();
    assert!(
        message.ends_with(b"Subject: x\r\n\r\n.dot\r\n8-bit \xe9\xff\r\n"),
        "{}",
        String::from_utf8_lossy(&message)
    );
    filter.stop().await;
}

#[tokio::test]
async fn only_announced_attributes_go_on_and_only_for_one_transaction() {
    let ehlo = b"250-hop\r\n250 XFORWARD NAME ADDR\r\n".to_vec();
    let hop = NextHop::start(vec![(Stage::Ehlo, Act::Say(ehlo))]).await;
    let filter = Filter::start(hop.address(), "").await;
    let mut client = SmtpClient::greeted(&filter.address).await;
    for xforward in ["XFORWARD NAME=one ADDR=192.0.2.1 HELO=hidden", "NOOP"] {
        client.command(xforward).await;
        for command in ["MAIL FROM:<>", "RCPT TO:<a@example.net>"] {
            assert_eq!(client.command(command).await.code(), 250);
        }
        assert_eq!(client.command("DATA").await.code(), 354);
        client.send(b"x\r\n.\r\n").await;
        assert_eq!(client.answer().await.code(), 250);
    }
    let seen = hop.wait("two messages", |seen| seen.completed() == 2).await;
    assert_eq!(seen.messages[0].lines("XFORWARD"), ["XFORWARD NAME=one ADDR=192.0.2.1"]);
    assert_eq!(seen.messages[1].lines("XFORWARD"), Vec::<String>::new());
    filter.stop().await;
}

#[tokio::test]
async fn replies_come_back_byte_for_byte_at_their_command() {
    let odd = b"550-5.1.1 Destinataire inconnu \xe9\xe0\r\n550-\r\n550 5.1.1 voir http://example.org/?a=1\r\n".to_vec();
    let accepted = b"250-2.1.0 welcome\r\n250 2.1.0 sender\r\n".to_vec();
    let queued = b"250-2.6.0 <id@x>\r\n250 2.0.0 Ok: queued \xfc as 4X\r\n".to_vec();
    let hop = NextHop::start_by_session({
        let (odd, accepted, queued) = (odd.clone(), accepted.clone(), queued.clone());
        move |session| match session {
            0 => vec![(Stage::Mail, Act::Say(odd.clone()))],
            1 => vec![(Stage::Mail, Act::Say(accepted.clone())), (Stage::Rcpt, Act::Say(odd.clone()))],
            2 => vec![(Stage::Data, Act::Say(odd.clone()))],
            3 => vec![(Stage::End, Act::Say(odd.clone()))],
            _ => vec![(Stage::End, Act::Say(queued.clone()))],
        }
    })
    .await;
    let filter = Filter::start(hop.address(), "").await;
    let mut client = SmtpClient::greeted(&filter.address).await;
    assert_eq!(client.command("MAIL FROM:<a@example.org>").await.0, odd);
    assert_eq!(client.command("MAIL FROM:<a@example.org>").await.0, accepted);
    assert_eq!(client.command("RCPT TO:<a@example.net>").await.0, odd);
    assert_eq!(client.command("DATA").await.text(), "554 5.5.1 No valid recipients\r\n");
    assert_eq!(SmtpClient::deliver(&filter.address, b"x\r\n").await.0, odd, "refused at DATA");
    assert_eq!(SmtpClient::deliver(&filter.address, b"x\r\n").await.0, odd, "refused at the dot");
    assert_eq!(SmtpClient::deliver(&filter.address, b"x\r\n").await.0, queued);
    assert_eq!(client.command("RSET").await.code(), 250);
    assert_eq!(hop.idle().await.completed(), 1);
    filter.stop().await;
}

#[tokio::test]
async fn pipelined_commands_are_answered_in_order() {
    let (filter, hop) = pair("").await;
    let mut client = SmtpClient::connect(&filter.address).await;
    client.send(b"EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\nDATA\r\n").await;
    let mut codes = Vec::new();
    for _ in 0..5 {
        codes.push(client.answer().await.code());
    }
    assert_eq!(codes, [250, 250, 250, 250, 354]);
    client.send(b"one\r\n.\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n").await;
    for code in [250, 250, 250, 354] {
        assert_eq!(client.answer().await.code(), code);
    }
    client.send(b"two\r\n.\r\nQUIT\r\n").await;
    assert_eq!(client.answer().await.code(), 250);
    assert_eq!(client.answer().await.code(), 221);
    assert!(client.is_closed().await);
    let seen = hop.idle().await;
    assert_eq!((seen.opened, seen.completed()), (2, 2));
    assert!(seen.messages[0].wire.ends_with(b"one\r\n") && seen.messages[1].wire.ends_with(b"two\r\n"));
    filter.stop().await;
}

#[tokio::test]
async fn the_dialogue_survives_noise() {
    let (filter, hop) = pair("").await;
    let mut client = SmtpClient::greeted(&filter.address).await;
    client.send(&[&[b'x'; 100_000][..], b"\r\n"].concat()).await;
    assert_eq!(client.answer().await.code(), 500);
    for (command, code) in
        [("VRFY root", 252), ("NOOP", 250), ("EXPN x", 502), ("BDAT 3 LAST", 502), ("HELO again", 250), ("RSET", 250)]
    {
        assert_eq!(client.command(command).await.code(), code, "{command}");
    }
    client.send(b"\x00\xff\xfe\r\n").await;
    assert_eq!(client.answer().await.code(), 502);
    assert_eq!(client.command("MAIL FROM:<a\u{1}@b>").await.code(), 501);
    assert_eq!(client.command("QUIT").await.code(), 221);
    assert_eq!(hop.seen().opened, 0, "the next hop is not asked for nothing");
    filter.stop().await;
}

#[tokio::test]
async fn limits_are_kept_with_one_reply_each() {
    let (filter, hop) = pair("max_size = \"100KB\"\nmax_recipients = 2\nspool_total = \"150KB\"").await;
    let mut client = SmtpClient::greeted(&filter.address).await;
    assert_eq!(client.command("MAIL FROM:<a@b> SIZE=100001").await.code(), 552);
    assert_eq!(client.command("MAIL FROM:<a@b> SIZE=100000").await.code(), 250);
    for code in [250, 250, 452] {
        assert_eq!(client.command("RCPT TO:<a@b>").await.code(), code);
    }
    assert_eq!(client.command("DATA").await.code(), 354);
    client.send(&b"0123456789abcde\r\n".repeat(100_000)).await;
    client.send(b".\r\n").await;
    let answer = client.answer().await;
    assert_eq!((answer.code(), answer.text().contains("5.3.4")), (552, true), "{}", answer.text());
    assert_eq!(client.command("NOOP").await.code(), 250, "the rest was read and not taken for commands");

    // Two messages of 90 kB are more than all may take together: the second is told to come back.
    let mut first = SmtpClient::in_data(&filter.address).await;
    first.send(&[b'a'; 90_000]).await;
    // 64 KiB and more of it are in the spool when the server has asked for the rest.
    let mut second = SmtpClient::in_data(&filter.address).await;
    let full = loop {
        second.send(&[b'b'; 85_000]).await;
        second.send(b"\r\n.\r\n").await;
        let answer = second.answer().await;
        if answer.code() != 250 {
            break answer;
        }
        // The first message's bytes had not arrived yet.
        second = SmtpClient::in_data(&filter.address).await;
    };
    assert!(full.text().starts_with("452 4.3.1"), "{}", full.text());
    first.send(b"\r\n.\r\n").await;
    assert_eq!(first.answer().await.code(), 250);
    drop((first, second, client));
    hop.idle().await;
    filter.stop().await;
}

#[tokio::test]
async fn strangers_are_turned_away() {
    let hop = NextHop::start(Vec::new()).await;
    let filter = Filter::start(hop.address(), "allow = [\"192.0.2.0/24\"]").await;
    let mut stream = common::net::Stream::connect(&filter.address).await.expect("connected");
    let mut said = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut said).await.expect("read");
    assert_eq!(said, "554 5.7.1 Access denied\r\n");
    filter.stop().await;
}
