// SPDX-License-Identifier: GPL-3.0-or-later
//! A policyd in this process, and a client that speaks the policy protocol with it.

use std::sync::Arc;
use std::time::Duration;

use common::address::Address;
use common::dns::{Resolver, Zone};
use common::net::{Listener, Stream};
use common::store::{Store, StoreSettings};
use policyd::config::{GreylistMode, OnStoreError, Settings};
use policyd::policy::Live;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Longest wait for anything that should happen at once.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// With time enough: an answer of the store that comes late counts as none, and a busy machine shall not decide a test about something else.
pub fn patient(mut settings: Settings) -> Settings {
    settings.policyd.budget = "30s".parse().expect("a duration");
    settings
}

/// Settings of a strict greylist on the store at `url`. What does not come from the store shows: it is DUNNO.
pub fn strict(url: &str) -> Settings {
    let mut settings = Settings::default();
    settings.store.url = url.to_owned();
    settings.greylist.mode = GreylistMode::Strict;
    settings.policyd.on_store_error = OnStoreError::Dunno;
    settings.policyd.journal_size = "0B".parse().unwrap();
    settings
}

/// A SQLite file of its own, and the folder that goes with the test.
pub fn sqlite() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("octroi.db").display());
    (folder, url)
}

/// Opens the store at `url` with its schema.
pub async fn store(url: &str) -> Store {
    let settings = StoreSettings { url: url.to_owned(), ..StoreSettings::default() };
    let store = Store::open(&settings).await.unwrap();
    store.migrate().await.unwrap();
    store
}

/// Runs SQL without parameters, the same text on either database.
pub async fn sql(store: &Store, text: &str) -> u64 {
    let text = sqlx::AssertSqlSafe(text.to_owned());
    match store {
        Store::Postgres(pool) => sqlx::query(text).execute(pool).await.unwrap().rows_affected(),
        Store::Sqlite(pool) => sqlx::query(text).execute(pool).await.unwrap().rows_affected(),
    }
}

/// One number from SQL.
pub async fn number(store: &Store, text: &str) -> i64 {
    let text = sqlx::AssertSqlSafe(text.to_owned());
    match store {
        Store::Postgres(pool) => sqlx::query_scalar(text).fetch_one(pool).await.unwrap(),
        Store::Sqlite(pool) => sqlx::query_scalar(text).fetch_one(pool).await.unwrap(),
    }
}

/// A running policyd.
pub struct Gate {
    pub address: Address,
    page: Address,
    stop: CancellationToken,
    served: JoinHandle<()>,
}

impl Gate {
    /// Starts it on free ports; the store may be down.
    pub async fn start(settings: Settings) -> Gate {
        Self::start_live(Live::fixed(settings).unwrap()).await
    }

    /// The same with the DNS of `zone`; waits until its store answers.
    pub async fn ready_with(settings: Settings, zone: &str) -> Gate {
        let resolver = Resolver::Canned(Zone::parse(zone).unwrap());
        let gate = Self::start_live(Live::fixed(settings).unwrap().with_resolver(resolver)).await;
        gate.until_ready_says("ready: the store answers").await;
        gate
    }

    /// The same, and it asks the name servers of its settings.
    pub async fn with_dns(settings: Settings) -> Gate {
        let resolver = settings.dns.resolver().unwrap();
        let gate = Self::start_live(Live::fixed(settings).unwrap().with_resolver(resolver)).await;
        gate.until_ready_says("ready: the store answers").await;
        gate
    }

    async fn start_live(live: Live) -> Gate {
        let live = Arc::new(live);
        let store = Store::open(&live.current().settings.store).await.unwrap();
        let listener = Listener::from(TcpListener::bind("127.0.0.1:0").await.unwrap());
        let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_address();
        let page = Address::tcp("127.0.0.1", http.local_addr().unwrap().port());
        let stop = CancellationToken::new();
        let served = tokio::spawn(policyd::run(vec![listener], Some(http), live, store, stop.clone()));
        Gate { address, page, stop, served }
    }

    /// The same, and waits until its store answers.
    pub async fn ready(settings: Settings) -> Gate {
        let gate = Self::start(settings).await;
        gate.until_ready_says("ready: the store answers").await;
        gate
    }

    /// Waits until `/ready` begins with these words.
    pub async fn until_ready_says(&self, words: &str) {
        let seen = async {
            while !self.get("/ready").await.contains(words) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, seen).await.unwrap_or_else(|_| panic!("/ready never said {words:?}"));
    }

    /// Head and body of a page.
    pub async fn get(&self, path: &str) -> String {
        let mut stream = Stream::connect(&self.page).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    pub async fn client(&self) -> Client {
        Client::connect(&self.address).await
    }

    /// Tells it to end, as SIGTERM does.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Ends it and waits.
    pub async fn end(self) {
        self.stop();
        tokio::time::timeout(PATIENCE, self.served).await.expect("it ends in time").unwrap();
    }
}

/// A client of the policy protocol.
pub struct Client {
    pub stream: Stream,
    received: Vec<u8>,
}

impl Client {
    pub async fn connect(address: &Address) -> Client {
        Client { stream: Stream::connect(address).await.unwrap(), received: Vec::new() }
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next line without its LF; none when the server has closed the connection, however it did.
    pub async fn line(&mut self) -> Option<String> {
        tokio::time::timeout(PATIENCE, async {
            loop {
                if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = self.received.drain(..=end).collect();
                    return Some(String::from_utf8(line[..end].to_vec()).unwrap());
                }
                match self.stream.read_buf(&mut self.received).await {
                    Ok(0) | Err(_) => {
                        assert!(self.received.is_empty(), "closed inside a line");
                        return None;
                    }
                    Ok(_) => {}
                }
            }
        })
        .await
        .expect("a line or the end comes in time")
    }

    /// Sends one request and gives the action of its reply; none when the connection was closed instead.
    pub async fn ask(&mut self, request: &str) -> Option<String> {
        self.send(request.as_bytes()).await;
        self.reply().await
    }

    pub async fn reply(&mut self) -> Option<String> {
        let action = self.line().await?;
        assert_eq!(self.line().await.as_deref(), Some(""), "an empty line ends the reply");
        Some(action.strip_prefix("action=").expect("a reply is an action").to_owned())
    }
}

/// A request at RCPT; the client shows no sign against it.
pub fn rcpt(client: &str, sender: &str, recipient: &str) -> String {
    format!(
        "request=smtpd_access_policy\nprotocol_state=RCPT\nprotocol_name=ESMTP\nhelo_name=mx.example.net\nqueue_id=\n\
         sender={sender}\nrecipient={recipient}\nrecipient_count=0\nclient_address={client}\nclient_name=mx.example.net\n\
         reverse_client_name=mx.example.net\ninstance=1.2.3.4\nsize=1234\n\n"
    )
}
