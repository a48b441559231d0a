// SPDX-License-Identifier: GPL-3.0-or-later
//! `octroi import` as an administrator calls it, on a SQLite store: what each program had recorded is there for the next request, asked
//! for with policyd's own statement. Tests with the real programs and with PostgreSQL are in tests/import/.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use common::store::{Store, StoreSettings};
use policyd::store::greylist::{self, Sighting, Times};
use policyd::triplet::Triplet;

/// An hour and a day in seconds.
const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// Client, sender, recipient, first_seen, last_seen, tries, passes, expires.
type Stored = (String, String, String, i64, i64, i64, i64, i64);

/// A store of its own, and the folder around it.
struct Bench {
    folder: tempfile::TempDir,
    now: i64,
}

impl Bench {
    fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        Self { folder: tempfile::tempdir().unwrap(), now: i64::try_from(now).unwrap() }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn file(&self, name: &str, text: &str) -> String {
        std::fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    fn url(&self) -> String {
        format!("sqlite:{}", self.path("octroi.db"))
    }

    /// Runs `octroi import` with this input.
    fn import(&self, arguments: &[&str], input: &str) -> (i32, String) {
        self.run(&format!("[store]\nurl = '{}'\n", self.url()), arguments, input)
    }

    fn run(&self, config: &str, arguments: &[&str], input: &str) -> (i32, String) {
        let config = self.file("octroi.toml", config);
        let mut command = Command::new(env!("CARGO_BIN_EXE_octroi"));
        command.args(["--config", &config, "import"]).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // It may end before it has read anything.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
        let told = [stdout, stderr].concat();
        (status.code().unwrap(), String::from_utf8(told).unwrap())
    }

    /// Imports twice; the second time must change nothing. Gives what was told the first time.
    fn twice(&self, arguments: &[&str], input: &str) -> String {
        let (status, told) = self.import(arguments, input);
        assert_eq!(status, 0, "{told}");
        let rows = self.rows();
        let (status, again) = self.import(arguments, input);
        assert_eq!((status, count(&again, "imported"), count(&again, "trusted")), (0, 0, 0), "{again}");
        assert_eq!(self.rows(), rows);
        told
    }

    /// The whole table.
    #[tokio::main(flavor = "current_thread")]
    async fn rows(&self) -> Vec<Stored> {
        let Store::Sqlite(pool) = self.store().await else { panic!("not SQLite") };
        sqlx::query_as("select * from greylist order by 1, 2, 3").fetch_all(&pool).await.unwrap()
    }

    /// The keys of trust and their passes.
    #[tokio::main(flavor = "current_thread")]
    async fn trusted(&self) -> Vec<(String, i64)> {
        let Store::Sqlite(pool) = self.store().await else { panic!("not SQLite") };
        sqlx::query_as("select key, passes from trust order by key").fetch_all(&pool).await.unwrap()
    }

    async fn store(&self) -> Store {
        let store = Store::open(&StoreSettings { url: self.url(), ..StoreSettings::default() }).await.unwrap();
        store.migrate().await.unwrap();
        store
    }

    /// What policyd, with a delay of 5 minutes, learns about a request.
    #[tokio::main(flavor = "current_thread")]
    async fn asked(&self, client: &str, sender: &str, recipient: &str) -> Sighting {
        let triplet = Triplet::new(client.parse().unwrap(), sender, recipient, 24, 64);
        let times = Times { delay: 300_000, retry_window: 3 * DAY * 1000, keep_passed: 36 * DAY * 1000 };
        greylist::ask(&self.store().await, &triplet, times, None).await.unwrap()
    }
}

/// A number of the report.
fn count(told: &str, word: &str) -> u64 {
    let line = told.lines().find(|line| line.split_whitespace().next() == Some(word));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or_else(|| panic!("no {word} in: {told}"))
}

fn db_dump(data: &[(&str, String)]) -> String {
    let data: String = data.iter().map(|(key, value)| format!(" {key}\n {value}\n")).collect();
    format!("VERSION=3\nformat=print\ntype=btree\ndb_pagesize=4096\nHEADER=END\n{data}DATA=END\n")
}

#[test]
fn postgrey_triplets_match_the_next_request() {
    let bench = Bench::new();
    let now = bench.now;
    let dump = db_dump(&[
        ("203.0.113.0/news-#@x.test/r@our.test", format!("{},{}", now - DAY, now - HOUR)),
        ("203.0.113.0//r@our.test", format!("{0},{0}", now - 60)),
        ("2001:470:abcd:2:0:0:0:0/a@x.test/r@our.test", format!("{0},{0}", now - HOUR)),
        ("203.0.113.0/old@x.test/r@our.test", format!("{},{}", now - 99 * DAY, now - 36 * DAY)),
        ("203.0.113.0/never@x.test/r@our.test", format!("{0},{0}", now - 4 * DAY)),
        ("0123456789abcdef0123456789abcdef01234567", format!("{0},{0}", now - 60)),
    ]);
    let clients = bench.file("clients", &db_dump(&[("203.0.113.9", format!("7,{now}"))]));
    let dump = bench.file("dump", &dump);
    let told = bench.twice(&["postgrey", &dump, &clients], "");
    let counts = ["read", "imported", "clients", "trusted", "expired", "skipped", "bad"].map(|word| count(&told, word));
    assert_eq!(counts, [7, 3, 1, 1, 2, 1, 0], "{told}");
    assert!(told.contains("skipped 1: its key is a SHA-1 sum"), "{told}");
    assert_eq!(bench.asked("203.0.113.77", "News-18@X.test", "R@our.test"), Sighting::Passed);
    assert!(matches!(bench.asked("2001:470:abcd:2::9", "a@x.test", "r@our.test"), Sighting::PassedNow { .. }));
    assert!(matches!(bench.asked("203.0.113.9", "", "r@our.test"), Sighting::Early { .. }));
    assert!(matches!(bench.asked("203.0.113.9", "old@x.test", "r@our.test"), Sighting::New { .. }));
}

#[test]
fn the_delay_of_postgrey_is_as_told() {
    let bench = Bench::new();
    let dump = db_dump(&[("203.0.113.0/a@x.test/r@our.test", format!("{},{}", bench.now - 60, bench.now - 20))]);
    bench.twice(&["postgrey", "--delay", "1m"], &dump);
    assert!(matches!(bench.asked("203.0.113.9", "a@x.test", "r@our.test"), Sighting::Early { .. }));
    bench.twice(&["postgrey", "--delay", "30s"], &dump);
    assert_eq!(bench.asked("203.0.113.9", "a@x.test", "r@our.test"), Sighting::Passed);
}

#[test]
fn sqlgrey_waits_on_and_its_clients_are_trusted() {
    let bench = Bench::new();
    let now = bench.now;
    let rows: String = (0..5)
        .map(|n| format!("INSERT INTO from_awl VALUES('u{n}','x.test','203.0.113',{},{});\n", now - DAY, now - HOUR))
        .collect();
    let dump = format!(
        "CREATE TABLE connect (sender_name varchar(64) NOT NULL, sender_domain varchar(255) NOT NULL, src varchar(39), rcpt varchar(255), first_seen timestamp NOT NULL);\n\
         INSERT INTO connect VALUES('joe+7','x.test','192.0.2','r@our.test',{});\n\
         INSERT INTO connect VALUES('joe+8','x.test','192.0.2','r@our.test',{});\n\
         INSERT INTO connect VALUES('-undef-','-undef-','2001:0db8:0000:0000:0000:0000:0000:0005','r@our.test',{});\n{rows}\
         INSERT INTO from_awl VALUES('v','y.test','198.51.100.9',{},{});\n\
         INSERT INTO domain_awl VALUES('old.test','192.0.2',1000000000,1000000000);\n\
         INSERT INTO optout_email VALUES('r@our.test');\n",
        now - 60,
        now - HOUR,
        now - HOUR,
        now - DAY,
        now - HOUR,
    );
    let told = bench.twice(&["sqlgrey"], &dump);
    let counts =
        ["read", "imported", "unchanged", "clients", "trusted", "expired", "skipped"].map(|word| count(&told, word));
    assert_eq!(counts, [11, 2, 1, 6, 2, 1, 1], "{told}");
    assert!(
        matches!(bench.asked("192.0.2.9", "joe@x.test", "r@our.test"), Sighting::PassedNow { waited } if waited > 3_500_000)
    );
    assert!(matches!(bench.asked("2001:db8::7", "", "r@our.test"), Sighting::PassedNow { .. }));
    assert_eq!(bench.trusted(), [("198.51.100.0/24".to_owned(), 1), ("203.0.113.0/24".to_owned(), 5)]);
}

#[test]
fn clients_listed_by_hand_become_a_list() {
    let bench = Bench::new();
    let list = bench.path("listed");
    let dump = "INSERT INTO `whitelist` VALUES ('192.0.2','friends'),('198.51.100.9',''),('@x.test','');\n";
    let told = bench.twice(&["gld", "--clients-list", &list], dump);
    assert_eq!(["clients", "listed", "skipped"].map(|word| count(&told, word)), [0, 2, 1], "{told}");
    let text = std::fs::read_to_string(&list).unwrap();
    assert!(text.ends_with("\n192.0.2.0/24\n198.51.100.9/32\n"), "{text}");
    let told = bench.twice(&["gld"], dump);
    assert_eq!((count(&told, "listed"), count(&told, "skipped")), (0, 3), "{told}");
}

#[test]
fn gld_and_the_tables_of_others_are_read() {
    let now = Bench::new().now;
    let date = |time: i64| sqlite_date(time);
    let gld = format!(
        "CREATE TABLE `greylist` (\n  `ip` char(45),\n  `sender` char(242),\n  `recipient` char(242),\n  `first` int(11),\n  `last` int(11),\n  `n` int(11),\n  PRIMARY KEY (`ip`,`sender`,`recipient`)\n);\n\
         INSERT INTO `greylist` VALUES ('192.0.2.7','a@x.test','r@our.test',{},{},4),('192.0.2.7','w@x.test','r@our.test',{2},{2},1);\n",
        now - DAY,
        now - HOUR,
        now - HOUR,
    );
    let relaydelay = format!(
        "INSERT INTO `relaytofrom` VALUES (1,'192.0.2.7','<a@x.test>','<r@our.test>','{0}','{1}',2,3,0,'AUTO','{0}','{2}'),\n\
         (2,'192.0.2.7','<w@x.test>','<r@our.test>','{0}','{1}',1,0,0,'AUTO','{2}','{2}'),\n\
         (3,NULL,NULL,'our.test','0000-00-00 00:00:00','9999-12-31 23:59:59',0,0,0,'MANUAL','{0}','{0}');\n",
        date(now - DAY),
        date(now + DAY),
        date(now - HOUR),
    );
    let iredapd = format!(
        "INSERT INTO `greylisting_tracking` (`id`,`sender`,`recipient`,`client_address`,`init_time`,`block_expired`,`record_expired`,`blocked_count`,`passed`) VALUES \
         (1,'a@x.test','r@our.test','192.0.2.7',{0},{0},{1},1,1),(2,'w@x.test','r@our.test','192.0.2.7',{2},{2},{1},1,0);\n",
        now - DAY,
        now + 29 * DAY,
        now - HOUR,
    );
    let cluebringer = format!(
        "INSERT INTO `greylisting_tracking` (`ID`,`TrackKey`,`Sender`,`Recipient`,`FirstSeen`,`LastUpdate`,`Tries`,`Count`) VALUES \
         (1,'SenderIP:192.0.2.0/24','a@x.test','r@our.test',{0},{1},1,2),(2,'SenderIP:192.0.2.0/24','w@x.test','r@our.test',{1},{1},1,0);\n",
        now - DAY,
        now - HOUR,
    );
    let milter = format!(
        "192.0.2.7\t<a@x.test>\t<r@our.test>\t{} AUTO\n192.0.2.7\t<w@x.test>\t<r@our.test>\t{} # date\n",
        now + HOUR,
        now - HOUR + 1800,
    );
    for (program, input) in [
        ("gld", gld),
        ("relaydelay", relaydelay),
        ("iredapd", iredapd),
        ("cluebringer", cluebringer),
        ("milter-greylist", milter),
    ] {
        let bench = Bench::new();
        let told = bench.twice(&[program], &input);
        assert_eq!((count(&told, "imported"), count(&told, "bad")), (2, 0), "{program}: {told}");
        assert_eq!(bench.asked("192.0.2.99", "A@x.test", "r@our.test"), Sighting::Passed, "{program}");
        let waited = bench.asked("192.0.2.99", "w@x.test", "r@our.test");
        assert!(matches!(waited, Sighting::PassedNow { waited: 3_500_000..3_700_000 }), "{program}: {waited:?}");
    }
}

/// Seconds since 1970 as date and time in UTC, worked out by SQLite.
#[tokio::main(flavor = "current_thread")]
async fn sqlite_date(time: i64) -> String {
    use sqlx::Connection;
    let mut memory = sqlx::SqliteConnection::connect("sqlite::memory:").await.unwrap();
    sqlx::query_scalar("select datetime($1, 'unixepoch')").bind(time).fetch_one(&mut memory).await.unwrap()
}

#[test]
fn a_dry_run_writes_nothing() {
    let bench = Bench::new();
    let list = bench.path("list");
    let dump = db_dump(&[
        ("203.0.113.0/a@x.test/r@our.test", format!("{0},{0}", bench.now)),
        ("203.0.113.1", format!("7,{0}", bench.now)),
    ]);
    let (status, told) = bench.import(&["postgrey", "--dry-run", "--clients-list", &list], &dump);
    assert_eq!((status, count(&told, "imported"), count(&told, "trusted")), (0, 1, 1), "{told}");
    assert!(told.contains("dry run: nothing was written"), "{told}");
    assert!(!Path::new(&bench.path("octroi.db")).exists() && !Path::new(&list).exists());
    // The store is not even asked.
    let config = "[store]\nurl = 'postgres://u@127.0.0.1:1/d'\n";
    assert_eq!(bench.run(config, &["postgrey", "--dry-run"], &dump).0, 0);
}

#[test]
fn bad_lines_are_named_and_the_others_imported() {
    let bench = Bench::new();
    let input = format!(
        "192.0.2.7\t<a@x.test>\t<r@our.test>\t{0}\nthis is not a record\n192.0.2.8\t<a@x>\t<r@y>\tsoon\n\
         192.0.3.7\t<b@x.test>\t<r@our.test>\t{0}\n",
        bench.now
    );
    let file = bench.file("greylist.db", &input);
    let (status, told) = bench.import(&["milter-greylist", &file], "");
    assert_eq!((status, count(&told, "imported"), count(&told, "bad")), (65, 2, 2), "{told}");
    assert!(told.contains("greylist.db:2: ") && told.contains("greylist.db:3: "), "{told}");
}

#[test]
fn more_rows_than_a_batch_are_all_there() {
    let bench = Bench::new();
    let row = |n: usize| format!("('192.0.{}.7','u{n}@x.test','r@our.test',{1},{1},1)", n % 200, bench.now);
    let rows: Vec<String> = (0..2500).map(row).collect();
    let dump = format!("INSERT INTO `greylist` VALUES {};\n", rows.join(","));
    let told = bench.twice(&["gld"], &dump);
    assert_eq!((count(&told, "read"), count(&told, "imported")), (2500, 2500), "{told}");
    assert_eq!(bench.rows().len(), 2500);
}

#[test]
fn the_exit_status_says_what_was_wrong() {
    let bench = Bench::new();
    let somebodys = bench.file("list", "192.0.2.1\n");
    let config = format!("[store]\nurl = '{}'\n", bench.url());
    for (config, arguments, expected) in [
        (&*config, &["nogrey"][..], 64),
        (&*config, &["postgrey", "--delay", "300"], 64),
        (&*config, &["gld", "mysql://host/gld"], 64),
        (&*config, &["postgrey", "postgres://host/postgrey"], 64),
        (&*config, &["postgrey", "--clients-list", &somebodys], 64),
        (&*config, &["postgrey", "/no/such/file"], 65),
        (&*config, &["sqlgrey", "sqlite:/no/such/file"], 65),
        (&*config, &["sqlgrey"], 65),
        (&*config, &["postgrey"], 65),
        (&*config, &["sqlgrey", "postgres://u:secret@127.0.0.1:1/d"], 69),
        ("[store]\nurl = 'postgres://u@127.0.0.1:1/d'\n", &["postgrey"], 69),
        ("[store]\nurl = 'sqlite:/no/such/folder/o.db'\n", &["postgrey"], 78),
        ("[greylist]\ndelay = 5\n", &["postgrey"], 78),
    ] {
        let (status, told) = bench.run(config, arguments, "some text\n");
        assert_eq!(status, expected, "{arguments:?}: {told}");
        assert!(told.contains("octroi: ") || status == 64, "{arguments:?}: {told}");
        assert!(!told.contains("secret"), "{told}");
    }
}
