// SPDX-License-Identifier: GPL-3.0-or-later
//! contentd inside the test process, on a free port, in front of a fake next hop; and the one check that many
//! tests need: one message in, one message out.

use common::address::Address;
use common::config::Source;
use common::net;
use contentd::config::Settings;
use contentd::daemon::Daemon;
use std::sync::Arc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::nexthop::NextHop;
use crate::smtp_client::SmtpClient;

/// A running contentd.
#[derive(Debug)]
pub struct Filter {
    /// Where it listens.
    pub address: Address,
    /// Where it listens for clients of spamd, if `[spamd] listen` is set.
    pub spamd: Option<Address>,
    /// Where its health page is.
    pub http: Address,
    /// Its shared state, for reloads.
    pub daemon: Arc<Daemon>,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Filter {
    /// Starts it with the built-in defaults and these `[contentd]` lines (and further sections).
    pub async fn start(hop: &Address, lines: &str) -> Filter {
        let daemon = Daemon::new(settings(hop, lines)).expect("good settings");
        let listeners =
            net::bind(&[Address::tcp("127.0.0.1", 0)], &net::SocketOptions::default()).await.expect("a free port");
        let address = listeners[0].local_address();
        let configured = daemon.running().settings.spamd.clone();
        let spamd = net::bind(&configured.listen, &configured.socket_options()).await.expect("a free address");
        let spamd_address = spamd.first().map(net::Listener::local_address);
        let page = net::bind_http("127.0.0.1:0").await.expect("a free port").expect("an address was given");
        let http = Address::tcp("127.0.0.1", page.local_addr().expect("bound").port());
        let stop = CancellationToken::new();
        let running = tokio::spawn(contentd::run(listeners, spamd, Some(page), daemon.clone(), stop.clone()));
        Filter { address, spamd: spamd_address, http, daemon, stop, running }
    }

    /// Waits until it has opened its store.
    pub async fn store_opened(&self) {
        let opened = async {
            while self.daemon.store.store().is_err() {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(60), opened).await.expect("the store is opened in time");
    }

    /// Begins to stop: no new connections, messages in progress go on.
    pub fn begin_stop(&self) {
        self.stop.cancel();
    }

    /// Stops it and waits for the end.
    pub async fn stop(self) {
        self.stop.cancel();
        self.running.await.expect("contentd does not panic");
    }
}

/// Settings for a filter in front of `hop`.
pub fn settings(hop: &Address, lines: &str) -> Settings {
    // A store that is not there, unless the test names one: the mail of most tests needs none.
    let store = if lines.contains("[store]") { "" } else { "[store]\nurl = \"sqlite:/dev/null/none.db\"\n" };
    // A session with the next hop for each message, unless the test is about that: orders are given by session.
    let idle = if lines.contains("reinject_idle") { "" } else { "reinject_idle = \"0s\"\n" };
    let text = format!("[contentd]\nreinject = \"{hop}\"\nhostname = \"filter.test\"\n{idle}{lines}\n{store}");
    let source = Source::from_text("test.toml", &text).expect("good TOML");
    Settings::read(&source).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

/// Sends one message that holds `sequence` between its text and what an attacker wants to be a second message;
/// panics unless exactly one message comes out, without a bare CR or LF.
pub async fn one_in_one_out(filter: &Address, hop: &NextHop, sequence: &[u8]) {
    let before = hop.seen().messages.len();
    let smuggled =
        b"MAIL FROM:<evil@example.org>\r\nRCPT TO:<victim@example.net>\r\nDATA\r\nSubject: smuggled\r\n\r\nx";
    let message = [b"Subject: outer\r\n\r\ntext", sequence, smuggled, b"\r\n"].concat();
    let mut client = SmtpClient::in_data(filter).await;
    client.send(&message).await;
    client.send(b".\r\nQUIT\r\n").await;
    let answer = client.answer().await;
    assert_eq!(answer.code(), 250, "{sequence:?}: {}", answer.text());
    let bye = client.answer().await;
    assert_eq!(bye.code(), 221, "{sequence:?}: more than one reply, {}", bye.text());
    let seen = hop.idle().await;
    assert_eq!(seen.messages.len(), before + 1, "{sequence:?}");
    let received = &seen.messages[before];
    assert_eq!(received.lines("MAIL"), ["MAIL FROM:<sender@example.org>"], "{sequence:?}");
    let wire = &received.wire;
    let bare = |(at, byte): (usize, &u8)| match byte {
        b'\r' => wire.get(at + 1) != Some(&b'\n'),
        b'\n' => at == 0 || wire[at - 1] != b'\r',
        _ => false,
    };
    assert!(!wire.iter().enumerate().any(bare), "{sequence:?}: bare CR or LF sent on");
    let text = String::from_utf8_lossy(wire);
    assert!(text.contains("Subject: smuggled"), "{sequence:?}: the rest of the message is missing: {text}");
}
