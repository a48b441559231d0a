// SPDX-License-Identifier: GPL-3.0-or-later
//! Nothing but CR LF . CR LF ends a message (reference: SMTP smuggling, CVE-2023-51764 and its kin): one
//! message in, one message out.

use tests::filter::{Filter, one_in_one_out};
use tests::nexthop::NextHop;
use tests::smtp_client::SmtpClient;

/// Line ends, right and wrong, that may stand on either side of a dot.
const ENDS: [&[u8]; 9] = [b"\n", b"\r", b"\r\n", b"\n\r", b"\r\r\n", b"\r\0\n", b"\0\r\n", b"\x0b", b"\xc2\x85"];

#[tokio::test]
async fn every_pair_of_line_ends_around_a_dot() {
    let hop = NextHop::start(Vec::new()).await;
    let filter = Filter::start(hop.address(), "").await;
    let mut tried = 0;
    for before in ENDS {
        for after in ENDS {
            let sequence = [before, b".", after].concat();
            if sequence.windows(5).any(|bytes| bytes == b"\r\n.\r\n") {
                continue;
            }
            one_in_one_out(&filter.address, &hop, &sequence).await;
            one_in_one_out(&filter.address, &hop, &[before, b"..", after].concat()).await;
            tried += 1;
        }
    }
    assert!(tried > 70, "{tried}");
    filter.stop().await;
}

#[tokio::test]
async fn bare_line_ends_can_be_refused() {
    let hop = NextHop::start(Vec::new()).await;
    let filter = Filter::start(hop.address(), "bare_newline = \"reject\"").await;
    for bad in [&b"a\nb\r\n"[..], b"a\rb\r\n", b"a\r\n.\nb\r\n"] {
        let answer = SmtpClient::deliver(&filter.address, bad).await;
        assert!(answer.text().starts_with("550 5.5.2"), "{}", answer.text());
    }
    assert_eq!(SmtpClient::deliver(&filter.address, b"a\r\n").await.code(), 250);
    assert_eq!(hop.idle().await.messages.len(), 1);
    filter.stop().await;
}

#[tokio::test]
async fn the_end_is_found_whatever_the_packets_are() {
    let hop = NextHop::start(Vec::new()).await;
    let filter = Filter::start(hop.address(), "").await;
    let body = b"a\r\n..b\r\n\r\n.\r\n";
    for cut in 1..body.len() {
        let mut client = SmtpClient::in_data(&filter.address).await;
        client.send(&body[..cut]).await;
        // A command on another connection has been answered, so the first piece has had time to arrive alone.
        SmtpClient::greeted(&filter.address).await;
        client.send(&body[cut..]).await;
        assert_eq!(client.answer().await.code(), 250, "cut at {cut}");
    }
    let seen = hop.idle().await;
    assert_eq!(seen.completed(), body.len() - 1);
    assert!(seen.messages.iter().all(|message| message.wire.ends_with(b"a\r\n..b\r\n\r\n")));
    filter.stop().await;
}
