// SPDX-License-Identifier: GPL-3.0-or-later
//! A name server that says the same of every domain: whoever asks for TXT gets an SPF record that names the clients of the bench
//! (RFC 1035 section 4, RFC 7208). It answers without delay, so what is measured is the work and not the waiting.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::UdpSocket;

use crate::policy::CLIENTS;

const TXT: [u8; 2] = [0, 16];
/// Header of a message.
const HEADER: usize = 12;
/// How long an answer may be kept, in seconds.
const TTL: u32 = 300;

/// Starts it on a free port of loopback; it ends with the runtime.
pub(crate) async fn serve() -> io::Result<SocketAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = socket.local_addr()?;
    tokio::spawn(async move {
        let mut buffer = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            if let Some(reply) = answer(&buffer[..length]) {
                // Who asked may have gone.
                let _ = socket.send_to(&reply, from).await;
            }
        }
    });
    Ok(address)
}

/// The reply to a message with one question; none to anything else.
fn answer(message: &[u8]) -> Option<Vec<u8>> {
    let (header, rest) = message.split_at_checked(HEADER)?;
    if header[2] & 0x80 != 0 || header[4..6] != [0, 1] {
        return None;
    }
    // The name ends at the label of length 0; type and class follow.
    let mut end = 0;
    while *rest.get(end)? != 0 {
        end += usize::from(rest[end]) + 1;
    }
    let question = rest.get(..end + 5)?;
    let text = format!("v=spf1 ip4:{CLIENTS} -all");
    let answers = u8::from(question[end + 1..end + 3] == TXT);
    let mut reply = Vec::with_capacity(HEADER + question.len() + 16 + text.len());
    // Response, authoritative; the wish for recursion is given back.
    reply.extend_from_slice(&[header[0], header[1], 0x84 | header[2] & 1, 0x80, 0, 1, 0, answers, 0, 0, 0, 0]);
    reply.extend_from_slice(question);
    if answers > 0 {
        let length = u8::try_from(text.len()).ok()?;
        // The name is that of the question.
        reply.extend_from_slice(&[0xc0, HEADER as u8]);
        reply.extend_from_slice(&question[end + 1..]);
        reply.extend_from_slice(&TTL.to_be_bytes());
        reply.extend_from_slice(&[0, length + 1, length]);
        reply.extend_from_slice(text.as_bytes());
    }
    Some(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_resolver_understands_it() {
        let server = serve().await.unwrap();
        let timeout = std::time::Duration::from_secs(10);
        let dns = common::dns::Resolver::live(&[server], timeout, 10).unwrap();
        assert_eq!(dns.txt("org7.example").await.unwrap(), [b"v=spf1 ip4:10.0.0.0/8 -all".to_vec()]);
        assert!(dns.a("org7.example").await.unwrap().is_empty());
    }

    #[test]
    fn what_is_no_question_gets_no_answer() {
        for message in [&b""[..], &[0; 11], &[0; 40], b"\0\0\0\0\0\x01\0\0\0\0\0\0\x3fabc"] {
            assert_eq!(answer(message), None);
        }
    }
}
