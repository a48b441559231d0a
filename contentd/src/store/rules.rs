// SPDX-License-Identifier: GPL-3.0-or-later
//! The statements of the account of spam rules: figures are added to those of the day, read for statistics, and deleted when they are old.
//! What is counted, and when, is not known here (`crate::spam::account`).
//!
//! Every host adds to the same rows. The row of the day comes first and is locked until the end, and rules follow in the order of their
//! bytes, so that two hosts wait for each other but never in a circle.

use common::store::{Store, StoreError};
use sqlx::{FromRow, Postgres, Sqlite};

use super::on_either;

/// What one rule did on one day, or in several together.
#[derive(Debug, Clone, Default, PartialEq, Eq, FromRow)]
pub struct RuleRow {
    /// Days since 1970, UTC; the last one, where several are summed up.
    pub day: i64,
    /// The name of the rule.
    pub rule: String,
    /// Messages that it hit.
    pub hits: i64,
    /// Of these, messages that were tagged or spam.
    pub decided: i64,
    /// Of these, messages that would have been treated in another way without its score.
    pub marginal: i64,
    /// What it added to scores, in thousandths.
    pub points: i64,
    /// Hits in messages of which people said that they are spam.
    pub told_spam: i64,
    /// Hits in messages of which people said that they are none.
    pub told_ham: i64,
    /// Of `told_ham`, those that it gave points.
    pub false_positives: i64,
    /// Of `told_spam`, those from which it took points.
    pub false_negatives: i64,
    /// Processor time, in nanoseconds.
    pub cost: i64,
}

/// All messages of one day.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromRow)]
pub struct DayRow {
    /// Days since 1970, UTC.
    pub day: i64,
    /// Messages that the rules were run on.
    pub messages: i64,
    /// Of these, those that were tagged and no more.
    pub tagged: i64,
    /// Of these, those that were spam.
    pub spam: i64,
    /// Messages for which the cost of rules was measured.
    pub measured: i64,
    /// Messages of which people said that they are spam.
    pub told_spam: i64,
    /// Messages of which people said that they are none.
    pub told_ham: i64,
    /// Of `told_ham`, those that were tagged or spam.
    pub false_positives: i64,
    /// Of `told_spam`, those that were neither.
    pub false_negatives: i64,
}

/// Figures that are added together, once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// By which the store knows that it has them already.
    pub id: String,
    /// Days, each once, in their order.
    pub days: Vec<DayRow>,
    /// Rules by day, each once, in the order of day and name.
    pub rules: Vec<RuleRow>,
}

/// How long the store knows a batch again, in milliseconds.
const REMEMBER: i64 = 86_400_000;

macro_rules! clock {
    (postgres) => {
        "(extract(epoch from clock_timestamp()) * 1000)::bigint"
    };
    (sqlite) => {
        "cast(unixepoch('subsec') * 1000 as integer)"
    };
}

macro_rules! add_day {
    ($values:literal) => {
        concat!(
            "insert into spam_day as d (day, messages, tagged, spam, measured, told_spam, told_ham, false_positives, false_negatives) ",
            $values,
            " on conflict (day) do update set messages = d.messages + excluded.messages, tagged = d.tagged + excluded.tagged, \
            spam = d.spam + excluded.spam, measured = d.measured + excluded.measured, \
            told_spam = d.told_spam + excluded.told_spam, told_ham = d.told_ham + excluded.told_ham, \
            false_positives = d.false_positives + excluded.false_positives, \
            false_negatives = d.false_negatives + excluded.false_negatives"
        )
    };
}

macro_rules! add_rule {
    ($values:literal) => {
        concat!(
            "insert into spam_rule_day as r (day, rule, hits, decided, marginal, points, told_spam, told_ham, \
            false_positives, false_negatives, cost) ",
            $values,
            " on conflict (day, rule) do update set hits = r.hits + excluded.hits, decided = r.decided + excluded.decided, \
            marginal = r.marginal + excluded.marginal, points = r.points + excluded.points, \
            told_spam = r.told_spam + excluded.told_spam, told_ham = r.told_ham + excluded.told_ham, \
            false_positives = r.false_positives + excluded.false_positives, \
            false_negatives = r.false_negatives + excluded.false_negatives, cost = r.cost + excluded.cost"
        )
    };
}

macro_rules! claim {
    ($database:ident) => {
        concat!("insert into spam_batch (id, at) values ($1, ", clock!($database), ") on conflict do nothing")
    };
}

const ADD_DAY: &str = add_day!("values ($1, $2, $3, $4, $5, $6, $7, $8, $9)");
const ADD_RULE_SQLITE: &str = add_rule!("values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)");
const ADD_RULES_POSTGRES: &str = add_rule!(
    "select * from unnest($1::bigint[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], \
    $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[]) as k (day, rule) order by k.day, k.rule collate \"C\""
);

/// The columns of a rule, summed up.
const SUMS: &str = "cast(sum(hits) as bigint) as hits, cast(sum(decided) as bigint) as decided, \
    cast(sum(marginal) as bigint) as marginal, cast(sum(points) as bigint) as points, \
    cast(sum(told_spam) as bigint) as told_spam, cast(sum(told_ham) as bigint) as told_ham, \
    cast(sum(false_positives) as bigint) as false_positives, cast(sum(false_negatives) as bigint) as false_negatives, \
    cast(sum(cost) as bigint) as cost";

/// Adds a batch, all of it or nothing. Adding one twice within a day does no harm; says whether it was new.
pub async fn add(store: &Store, batch: &Batch) -> Result<bool, StoreError> {
    match store {
        Store::Postgres(pool) => {
            let mut transaction = pool.begin().await?;
            let claim = sqlx::query::<Postgres>(claim!(postgres)).bind(&batch.id);
            if claim.execute(&mut *transaction).await?.rows_affected() == 0 {
                return Ok(false);
            }
            for day in &batch.days {
                add_day(day).execute(&mut *transaction).await?;
            }
            add_rules_postgres(&batch.rules).execute(&mut *transaction).await?;
            transaction.commit().await?;
        }
        Store::Sqlite(pool) => {
            let mut transaction = pool.begin_with("begin immediate").await?;
            let claim = sqlx::query::<Sqlite>(claim!(sqlite)).bind(&batch.id);
            if claim.execute(&mut *transaction).await?.rows_affected() == 0 {
                return Ok(false);
            }
            for day in &batch.days {
                add_day(day).execute(&mut *transaction).await?;
            }
            for rule in &batch.rules {
                add_rule_sqlite(rule).execute(&mut *transaction).await?;
            }
            transaction.commit().await?;
        }
    }
    Ok(true)
}

fn add_day<'q, D: sqlx::Database>(day: &DayRow) -> sqlx::query::Query<'q, D, <D as sqlx::Database>::Arguments>
where
    i64: sqlx::Encode<'q, D> + sqlx::Type<D>,
    <D as sqlx::Database>::Arguments: sqlx::IntoArguments<D>,
{
    let add = sqlx::query::<D>(ADD_DAY).bind(day.day).bind(day.messages).bind(day.tagged).bind(day.spam);
    let add = add.bind(day.measured).bind(day.told_spam).bind(day.told_ham);
    add.bind(day.false_positives).bind(day.false_negatives)
}

fn add_rule_sqlite(rule: &RuleRow) -> sqlx::query::Query<'_, Sqlite, <Sqlite as sqlx::Database>::Arguments> {
    let add = sqlx::query::<Sqlite>(ADD_RULE_SQLITE).bind(rule.day).bind(&rule.rule).bind(rule.hits).bind(rule.decided);
    let add = add.bind(rule.marginal).bind(rule.points).bind(rule.told_spam).bind(rule.told_ham);
    add.bind(rule.false_positives).bind(rule.false_negatives).bind(rule.cost)
}

fn add_rules_postgres(rules: &[RuleRow]) -> sqlx::query::Query<'_, Postgres, <Postgres as sqlx::Database>::Arguments> {
    let column = |of: fn(&RuleRow) -> i64| rules.iter().map(of).collect::<Vec<i64>>();
    let names: Vec<&str> = rules.iter().map(|rule| rule.rule.as_str()).collect();
    let add = sqlx::query::<Postgres>(ADD_RULES_POSTGRES).bind(column(|rule| rule.day)).bind(names);
    let add = add.bind(column(|rule| rule.hits)).bind(column(|rule| rule.decided)).bind(column(|rule| rule.marginal));
    let add = add.bind(column(|rule| rule.points)).bind(column(|rule| rule.told_spam));
    let add = add.bind(column(|rule| rule.told_ham)).bind(column(|rule| rule.false_positives));
    add.bind(column(|rule| rule.false_negatives)).bind(column(|rule| rule.cost))
}

/// The days from `first` to `last`, those on which there was anything.
pub async fn days(store: &Store, first: i64, last: i64) -> Result<Vec<DayRow>, StoreError> {
    const READ: &str = "select day, messages, tagged, spam, measured, told_spam, told_ham, false_positives, false_negatives \
        from spam_day where day >= $1 and day <= $2 order by day";
    Ok(on_either!(store, |pool| sqlx::query_as(READ).bind(first).bind(last).fetch_all(pool).await?))
}

/// The rules in the days from `first` to `last`, each once with the sums of its figures, by name.
pub async fn totals(store: &Store, first: i64, last: i64) -> Result<Vec<RuleRow>, StoreError> {
    let text = format!(
        "select max(day) as day, rule, {SUMS} from spam_rule_day where day >= $1 and day <= $2 group by rule order by rule"
    );
    let text = sqlx::AssertSqlSafe(text);
    Ok(on_either!(store, |pool| sqlx::query_as(text).bind(first).bind(last).fetch_all(pool).await?))
}

/// One rule, day by day from `first` to `last`: one look into the index for each day, however many rules there are.
pub async fn by_day(store: &Store, rule: &str, first: i64, last: i64) -> Result<Vec<RuleRow>, StoreError> {
    const READ: &str = "select day, rule, hits, decided, marginal, points, told_spam, told_ham, false_positives, false_negatives, cost \
        from spam_rule_day where rule = $1 and day ";
    let days: Vec<i64> = (first..=last).collect();
    Ok(match store {
        Store::Postgres(pool) => {
            let text = sqlx::AssertSqlSafe(format!("{READ} = any ($2::bigint[]) order by day"));
            sqlx::query_as(text).bind(rule).bind(days).fetch_all(pool).await?
        }
        Store::Sqlite(pool) => {
            let text = sqlx::AssertSqlSafe(format!("{READ} in (select value from json_each($2)) order by day"));
            let days: Vec<String> = days.iter().map(i64::to_string).collect();
            sqlx::query_as(text).bind(rule).bind(format!("[{}]", days.join(","))).fetch_all(pool).await?
        }
    })
}

/// Deletes up to `most` rows of days before `first`, and what need no longer be known of batches. Of several hosts each deletes what
/// the others have not begun with.
pub async fn clean(store: &Store, first: i64, most: i64) -> Result<u64, StoreError> {
    const BATCHES: [&str; 2] = [
        concat!("delete from spam_batch where at < ", clock!(postgres), " - $1"),
        concat!("delete from spam_batch where at < ", clock!(sqlite), " - $1"),
    ];
    const DAYS: &str = "delete from spam_day where day < $1";
    const RULES: [&str; 2] = [
        "delete from spam_rule_day where ctid = any (array( \
            select ctid from spam_rule_day where day < $1 order by day, rule limit $2 for update skip locked))",
        "delete from spam_rule_day where (day, rule) in ( \
            select day, rule from spam_rule_day where day < $1 order by day, rule limit $2)",
    ];
    let at = usize::from(matches!(store, Store::Sqlite(_)));
    let removed = on_either!(store, |pool| {
        sqlx::query(BATCHES[at]).bind(REMEMBER).execute(pool).await?;
        sqlx::query(DAYS).bind(first).execute(pool).await?;
        sqlx::query(RULES[at]).bind(first).bind(most).execute(pool).await?.rows_affected()
    });
    Ok(removed)
}
