// SPDX-License-Identifier: GPL-3.0-or-later
//! The account of the spam rules, the same on PostgreSQL and SQLite. Its store: hosts that add at the same moment are all counted, a batch that is
//! sent again is not counted again, and what is old goes. The whole of it: from messages on two hosts to the figures that the real command shows.

use std::path::Path;

use common::store::{Store, StoreSettings};
use contentd::findings::Spam;
use contentd::spam::account::{Account, Class, Levels};
use contentd::spam::set::Rules;
use contentd::spam::settings::SpamSettings;
use contentd::store::Access;
use contentd::store::rules::{Batch, DayRow, RuleRow, add, by_day, clean, days, totals};
use serde_json::{Value, json};
use spamrules::{Budget, Environment, Message, NoAnswers};
use tests::daemon::binary;
use tests::filter::Filter;
use tests::nexthop::NextHop;
use tests::smtp_client::SmtpClient;
use tokio_util::sync::CancellationToken;

/// Some day.
const DAY: i64 = 20_000;

async fn store(url: &str) -> Store {
    let settings = StoreSettings { url: url.to_owned(), ..StoreSettings::default() };
    let store = Store::open(&settings).await.expect("the store opens");
    store.migrate().await.expect("its schema is made");
    store
}

/// Makes one test per promise and database, of functions that take the URL of an empty store.
macro_rules! contract {
    ($($promise:ident),+ $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                let folder = tempfile::tempdir().expect("a folder");
                super::$promise(&format!("sqlite:{}", folder.path().join("octroi.db").display())).await;
            })+
        }
        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                let cluster = tests::postgres::Cluster::shared();
                super::$promise(&cluster.new_database().await).await;
            })+
        }
    };
}

contract!(
    figures_are_added_up,
    a_batch_counts_once,
    hosts_at_once_lose_nothing_and_do_not_block_each_other,
    what_is_old_is_deleted_in_portions,
    what_hosts_have_counted_is_shown_as_one,
    what_is_counted_while_the_store_is_away_is_written_later,
    what_is_released_as_no_spam_counts_against_its_rules,
);

/// A rule with a different figure in each column.
fn rule(day: i64, name: &str, by: i64) -> RuleRow {
    RuleRow {
        day,
        rule: name.to_owned(),
        hits: by,
        decided: 2 * by,
        marginal: 3 * by,
        points: -4 * by,
        told_spam: 5 * by,
        told_ham: 6 * by,
        false_positives: 7 * by,
        false_negatives: 8 * by,
        cost: 9_000_000_000 * by,
    }
}

fn day(day: i64, by: i64) -> DayRow {
    DayRow {
        day,
        messages: by,
        tagged: 2 * by,
        spam: 3 * by,
        measured: 4 * by,
        told_spam: 5 * by,
        told_ham: 6 * by,
        false_positives: 7 * by,
        false_negatives: 8 * by,
    }
}

fn batch(id: &str, days: Vec<DayRow>, rules: Vec<RuleRow>) -> Batch {
    Batch { id: id.to_owned(), days, rules }
}

async fn figures_are_added_up(url: &str) {
    let store = store(url).await;
    let first = batch("1", vec![day(DAY, 1)], vec![rule(DAY, "A", 1), rule(DAY, "B", 10)]);
    let second = batch(
        "2",
        vec![day(DAY, 2), day(DAY + 1, 5)],
        vec![rule(DAY, "A", 2), rule(DAY + 1, "A", 4), rule(DAY + 1, "__C", 0)],
    );
    assert!(add(&store, &first).await.unwrap());
    assert!(add(&store, &second).await.unwrap());
    assert_eq!(days(&store, DAY, DAY + 9).await.unwrap(), [day(DAY, 3), day(DAY + 1, 5)]);
    assert_eq!(days(&store, DAY + 1, DAY + 1).await.unwrap(), [day(DAY + 1, 5)]);
    let all = totals(&store, DAY, DAY + 1).await.unwrap();
    assert_eq!(all, [rule(DAY + 1, "A", 7), rule(DAY, "B", 10), rule(DAY + 1, "__C", 0)]);
    assert_eq!(totals(&store, DAY, DAY).await.unwrap(), [rule(DAY, "A", 3), rule(DAY, "B", 10)]);
    assert_eq!(by_day(&store, "A", DAY, DAY + 9).await.unwrap(), [rule(DAY, "A", 3), rule(DAY + 1, "A", 4)]);
    assert_eq!(by_day(&store, "Z", DAY, DAY + 9).await.unwrap(), []);
    assert!(add(&store, &batch("3", Vec::new(), Vec::new())).await.unwrap(), "an empty one does no harm");
}

async fn a_batch_counts_once(url: &str) {
    let store = store(url).await;
    let sent = batch("host 1", vec![day(DAY, 1)], vec![rule(DAY, "A", 1)]);
    assert!(add(&store, &sent).await.unwrap());
    assert!(!add(&store, &sent).await.unwrap());
    assert!(add(&store, &batch("host 2", vec![day(DAY, 1)], vec![rule(DAY, "A", 1)])).await.unwrap());
    assert_eq!(days(&store, DAY, DAY).await.unwrap(), [day(DAY, 2)]);
    assert_eq!(totals(&store, DAY, DAY).await.unwrap(), [rule(DAY, "A", 2)]);
}

async fn hosts_at_once_lose_nothing_and_do_not_block_each_other(url: &str) {
    const HOSTS: i64 = 6;
    const ROUNDS: i64 = 8;
    let store = store(url).await;
    let names: Vec<String> = (0..300).map(|number| format!("RULE_{number:03}")).collect();
    let host = |host: i64| {
        let (store, names) = (store.clone(), names.clone());
        async move {
            for round in 0..ROUNDS {
                let rules = [DAY, DAY + 1].into_iter().flat_map(|day| names.iter().map(move |name| rule(day, name, 1)));
                let sent = batch(&format!("{host} {round}"), vec![day(DAY, 1), day(DAY + 1, 1)], rules.collect());
                assert!(add(&store, &sent).await.unwrap());
            }
        }
    };
    let hosts: Vec<_> = (0..HOSTS).map(|number| tokio::spawn(host(number))).collect();
    for host in hosts {
        host.await.expect("no host fails");
    }
    let all = HOSTS * ROUNDS;
    assert_eq!(days(&store, DAY, DAY + 1).await.unwrap(), [day(DAY, all), day(DAY + 1, all)]);
    let expected: Vec<RuleRow> = names.iter().map(|name| rule(DAY + 1, name, 2 * all)).collect();
    assert_eq!(totals(&store, DAY, DAY + 1).await.unwrap(), expected);
}

async fn what_is_old_is_deleted_in_portions(url: &str) {
    let store = store(url).await;
    let rules = (0..5).map(|number| rule(DAY, &format!("A{number}"), 1)).chain([rule(DAY + 1, "A0", 1)]);
    add(&store, &batch("1", vec![day(DAY, 1), day(DAY + 1, 1)], rules.collect())).await.unwrap();
    assert_eq!(clean(&store, DAY + 1, 3).await.unwrap(), 3);
    assert_eq!(clean(&store, DAY + 1, 3).await.unwrap(), 2);
    assert_eq!(clean(&store, DAY + 1, 3).await.unwrap(), 0);
    assert_eq!(days(&store, 0, DAY + 9).await.unwrap(), [day(DAY + 1, 1)]);
    assert_eq!(totals(&store, 0, DAY + 9).await.unwrap(), [rule(DAY + 1, "A0", 1)]);
    assert!(!add(&store, &batch("1", vec![day(DAY, 1)], Vec::new())).await.unwrap(), "a batch is known for a day");
}

/// Messages with `free` and `money` have 6 points, one below each that is left out.
const RULES: &str = "required_score 5
body FREE /free/
describe FREE Something for nothing
score FREE 3
body MONEY /money/
score MONEY 3
header __FROM_A From:addr =~ /^a@/
body NICE /friend/
score NICE -2
tflags NICE nice
meta FRIENDLY_A __FROM_A && NICE
score FRIENDLY_A 0.1
";

fn rules_in(folder: &Path) -> String {
    let rules = folder.join("rules");
    std::fs::create_dir_all(&rules).expect("a folder");
    std::fs::write(rules.join("local.cf"), RULES).expect("written");
    rules.display().to_string()
}

fn letter(text: &str) -> Vec<u8> {
    format!("From: a@example.org\r\nDate: Mon, 2 Nov 2026 10:00:00 +0100\r\nSubject: x\r\n\r\n{text}\r\n").into_bytes()
}

/// The real command: status and what it wrote.
async fn octroi(configuration: &Path, arguments: &[&str]) -> (i32, String) {
    let mut command = tokio::process::Command::new(binary("octroi").expect("built"));
    let output = command.arg("--config").arg(configuration).args(arguments).output().await.expect("run");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
}

fn of<'v>(stats: &'v Value, name: &str) -> &'v Value {
    stats["rules"].as_array().and_then(|rules| rules.iter().find(|rule| rule["rule"] == name)).unwrap_or(&Value::Null)
}

async fn what_hosts_have_counted_is_shown_as_one(url: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let lines = format!("[store]\nurl = \"{url}\"\n[spam]\nall = true\nrules = [\"{}\"]\n", rules_in(folder.path()));
    let hop = NextHop::start(Vec::new()).await;
    let hosts = [Filter::start(hop.address(), &lines).await, Filter::start(hop.address(), &lines).await];
    for host in &hosts {
        host.store_opened().await;
    }
    let messages = [(0, "free money"), (1, "free money"), (1, "free money friend"), (0, "free"), (1, "nothing")];
    for (host, text) in messages {
        assert_eq!(SmtpClient::deliver(&hosts[host].address, &letter(text)).await.code(), 250, "{text}");
    }
    let [one, other] = hosts;
    tokio::join!(one.stop(), other.stop());

    let configuration = folder.path().join("octroi.toml");
    std::fs::write(&configuration, &lines).expect("written");
    let (status, told) = octroi(&configuration, &["rules", "stats", "--json", "--subrules", "--days", "2"]).await;
    assert_eq!(status, 0, "{told}");
    let stats: Value = serde_json::from_str(&told).expect("JSON");
    let figures = |name: &str| {
        let rule = of(&stats, name);
        json!([rule["hits"], rule["decided"], rule["marginal"], rule["score"]])
    };
    assert_eq!(figures("FREE"), json!([4, 2, 2, 3.0]), "{told}");
    assert_eq!(figures("MONEY"), json!([3, 2, 2, 3.0]), "{told}");
    assert_eq!(figures("NICE"), json!([1, 0, 1, -2.0]), "{told}");
    assert_eq!(figures("FRIENDLY_A"), json!([1, 0, 0, 0.1]), "{told}");
    assert_eq!(figures("__FROM_A"), json!([5, 2, 0, 0.0]), "{told}");
    let total = &stats["total"];
    let seen = json!([total["messages"], total["told_spam"], total["told_ham"]]);
    assert_eq!(seen, json!([5, 0, 0]), "{told}");
    // The first message of each host is among those that are.
    assert!((2..=5).contains(&total["measured"].as_i64().unwrap_or(0)), "{told}");
    assert_eq!(total["spam"].as_i64().unwrap_or(0) + total["tagged"].as_i64().unwrap_or(0), 2, "{told}");
    assert_eq!(of(&stats, "FREE")["decided_share"], 1.0, "{told}");
    assert!(of(&stats, "FREE")["cost_ns"].as_i64() > Some(0), "{told}");

    // Midnight may have come meanwhile.
    let by_day =
        |name: &str| of(&stats, name)["hits_by_day"].as_array().map(|days| days.iter().filter_map(Value::as_i64).sum());
    assert_eq!((by_day("FREE"), stats["days"].as_array().map(Vec::len)), (Some(4), Some(2)), "{told}");
    let picture = folder.path().join("rules.svg");
    let picture_name = picture.display().to_string();
    let (status, table) =
        octroi(&configuration, &["rules", "stats", "--svg", &picture_name, "--sort", "marginal", "*E*"]).await;
    assert_eq!(status, 0, "{table}");
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].contains(": 5 messages, "), "{table}");
    let names: Vec<&str> = lines[4..].iter().filter_map(|line| line.split_whitespace().last()).collect();
    assert_eq!(names, ["FREE", "MONEY", "NICE", "FRIENDLY_A"], "{table}");
    let svg = std::fs::read_to_string(&picture).expect("a picture");
    assert!(svg.contains("<title>FREE</title>") && svg.contains("<title>messages</title>"), "{svg}");
    assert!(!svg.contains("__FROM_A</title>") || names.contains(&"__FROM_A"), "{svg}");
    let (status, told) = octroi(&configuration, &["rules", "stats", "--days", "0"]).await;
    assert_eq!(status, 64, "{told}");
}

/// What the rules say of a message.
fn spam(rules: &Rules, text: &str) -> Spam {
    let set = rules.current().expect("rules");
    let letter = letter(text);
    let environment = Environment { now: 1_795_305_600 };
    let report = set.rules.check(&Message::parse(&letter), &environment, &NoAnswers, Budget::default());
    Spam { score: report.score, required: 5.0, report, rules: set }
}

async fn what_is_counted_while_the_store_is_away_is_written_later(url: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = SpamSettings { rules: vec![rules_in(folder.path()).into()], ..SpamSettings::default() };
    let rules = Rules::load(&settings).expect("good rules");
    let access = Access::new(&StoreSettings { url: url.to_owned(), ..StoreSettings::default() });
    let account = Account::new(access.clone());
    let levels = Levels { tagged: 5.0, spam: 5.5, others: vec![1.0] };
    let (bad, good) = (spam(&rules, "free money"), spam(&rules, "free friend"));
    account.note(&bad, &levels);
    assert!(!account.write(true).await, "nobody has opened the store");
    account.note(&good, &levels);
    assert!(!account.write(true).await);
    account.feedback(&bad, Class::Ham);
    account.feedback(&good, Class::Spam);

    let stop = CancellationToken::new();
    let keeper = tokio::spawn({
        let (access, stop) = (access.clone(), stop.clone());
        async move { access.keep(stop).await }
    });
    access.tried().await;
    assert!(account.write(true).await);
    assert!(account.write(true).await, "nothing is left");
    let store = access.store().expect("opened");
    let (first, last) = (DAY, 100_000);
    let found = days(&store, first, last).await.unwrap();
    let sum = |of: fn(&DayRow) -> i64| found.iter().map(of).sum::<i64>();
    assert_eq!((sum(|day| day.messages), sum(|day| day.spam), sum(|day| day.tagged)), (2, 1, 0));
    assert_eq!((sum(|day| day.told_ham), sum(|day| day.told_spam)), (1, 1));
    assert_eq!((sum(|day| day.false_positives), sum(|day| day.false_negatives)), (1, 1));
    let rules = totals(&store, first, last).await.unwrap();
    let figures = |name: &str| {
        let rule = rules.iter().find(|rule| rule.rule == name).cloned().unwrap_or_default();
        (rule.hits, rule.decided, rule.marginal, rule.false_positives, rule.false_negatives)
    };
    assert_eq!(figures("FREE"), (2, 1, 2, 1, 0));
    assert_eq!(figures("MONEY"), (1, 1, 1, 1, 0));
    assert_eq!(figures("NICE"), (1, 0, 0, 0, 1));
    stop.cancel();
    keeper.await.expect("it ends");
}

async fn what_is_released_as_no_spam_counts_against_its_rules(url: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let hop = NextHop::start(Vec::new()).await;
    let lines = format!(
        "[store]\nurl = \"{url}\"\n[spam]\nrules = [\"{}\"]\nkill_level = 6\nall = true\n[destiny]\nspam = \"quarantine\"\n\
         [quarantine]\ndirectory = \"{}\"\n",
        rules_in(folder.path()),
        folder.path().join("quarantine").display()
    );
    let host = Filter::start(hop.address(), &lines).await;
    host.store_opened().await;
    let answer = SmtpClient::deliver(&host.address, &letter("free money")).await.text();
    let id = answer.split("id=").nth(1).and_then(|rest| rest.split(' ').next()).expect("an id");
    assert!(answer.starts_with("250 2.7.0 Ok, quarantined"), "{answer}");
    host.stop().await;

    let configuration = folder.path().join("octroi.toml");
    let text = format!("[contentd]\nreinject = \"{}\"\nhostname = \"filter.test\"\n{lines}", hop.address());
    std::fs::write(&configuration, text).expect("written");
    for expected in ["told 2 spam rules", "told before"] {
        let (status, told) = octroi(&configuration, &["quarantine", "release", "--not-spam", id]).await;
        assert!(status == 0 && told.contains(expected), "{told}");
    }
    let (_, told) = octroi(&configuration, &["rules", "stats", "--json", "--days", "2"]).await;
    let stats: Value = serde_json::from_str(&told).expect("JSON");
    let total = &stats["total"];
    let figures = json!([total["messages"], total["spam"], total["told_ham"], total["false_positives"]]);
    assert_eq!(figures, json!([1, 1, 1, 1]), "{told}");
    for name in ["FREE", "MONEY"] {
        let rule = of(&stats, name);
        assert_eq!(json!([rule["hits"], rule["told_ham"], rule["false_positives"]]), json!([1, 1, 1]), "{told}");
    }
}
