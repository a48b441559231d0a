// SPDX-License-Identifier: GPL-3.0-or-later
//! How many triplets of a client never came again: counted from the triplets themselves, for the whole farm, when somebody wants to know.
//! Pure reading; what follows from the numbers is decided elsewhere.
//!
//! A triplet has never come again when it still waits so long after its first try; one that waits less long is not counted yet. The
//! primary key leads to the rows of one client, and no more than 10 000 of them are looked at.

use common::store::StoreError;

use super::Connection;

/// Rows looked at for one answer.
const MOST: i64 = 10_000;

/// What makes a client one that never comes again. Times in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Never {
    /// Who has not come again for so long never will.
    pub after: i64,
    /// How far back first tries are counted.
    pub period: i64,
}

/// The triplets of one client that are decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Share {
    /// Those that never came again.
    pub never: i64,
    /// Those, and those that have passed.
    pub all: i64,
}

impl Share {
    /// True when at least `percent` of the triplets never came again; never without triplets.
    pub fn reaches(self, percent: u8) -> bool {
        self.all > 0 && self.never.saturating_mul(100) >= self.all.saturating_mul(i64::from(percent))
    }

    /// True when more than `percent` of the triplets never came again.
    pub fn is_over(self, percent: u8) -> bool {
        self.never.saturating_mul(100) > self.all.saturating_mul(i64::from(percent))
    }
}

/// $1 client, $2 period, $3 after, $4 now or null, $5 how many rows.
macro_rules! share {
    ($clock:literal) => {
        concat!(
            "select cast(coalesce(sum(case when d.passes = 0 then 1 else 0 end), 0) as bigint), cast(count(*) as bigint) from ( \
                select g.passes from greylist as g cross join (select coalesce($4, ",
            $clock,
            ") as now) as clock \
                where g.client = $1 and g.expires > clock.now and g.first_seen > clock.now - $2 \
                    and (g.passes > 0 or g.first_seen <= clock.now - $3) limit $5) as d"
        )
    };
}

const SHARE_POSTGRES: &str = share!("(extract(epoch from clock_timestamp()) * 1000)::bigint");
const SHARE_SQLITE: &str = share!("cast(unixepoch('subsec') * 1000 as integer)");

/// The triplets of a client, by the name it has in their keys. `now` replaces the clock of the database.
pub async fn share(
    connection: &mut Connection,
    client: &str,
    never: Never,
    now: Option<i64>,
) -> Result<Share, StoreError> {
    let (count, all): (i64, i64) = match connection {
        Connection::Postgres(connection) => {
            let query = sqlx::query_as(SHARE_POSTGRES).bind(client).bind(never.period).bind(never.after).bind(now);
            query.bind(MOST).fetch_one(&mut **connection).await?
        }
        Connection::Sqlite(connection) => {
            let query = sqlx::query_as(SHARE_SQLITE).bind(client).bind(never.period).bind(never.after).bind(now);
            query.bind(MOST).fetch_one(&mut **connection).await?
        }
    };
    Ok(Share { never: count, all })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_over_its_percentage_or_not() {
        for (never, all, percent, reaches, over) in [
            (0, 0, 1, false, false),
            (1, 1, 100, true, false),
            (9, 10, 89, true, true),
            (9, 10, 90, true, false),
            (9, 10, 91, false, false),
        ] {
            let share = Share { never, all };
            assert_eq!(
                (share.reaches(percent), share.is_over(percent)),
                (reaches, over),
                "{never} of {all}, {percent} %"
            );
        }
    }
}
