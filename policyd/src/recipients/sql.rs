// SPDX-License-Identifier: GPL-3.0-or-later
//! Recipients in a database: the administrator's own query, with the address as `$1`; any row means that it is known.

use std::time::Duration;

use super::{Answering, Provider, Told, Trouble, members};
use crate::config::recipients::SqlSettings;
use crate::store::directory::Database;

/// A directory that is asked in SQL.
#[derive(Debug)]
pub struct Sql {
    database: Database,
    settings: SqlSettings,
}

impl Sql {
    /// Reads the URL; connects to nothing.
    pub fn open(settings: &SqlSettings, connections: usize, timeout: Duration) -> Result<Self, String> {
        Ok(Self { database: Database::open(&settings.url.0, connections, timeout)?, settings: settings.clone() })
    }

    async fn ask(&self, form: &str) -> Result<Told, Trouble> {
        let known = self.database.has(&self.settings.query, form).await?;
        Ok(if known { Told::Known } else { Told::Unknown })
    }

    async fn all(&self) -> Result<Vec<String>, Trouble> {
        let all = self.database.all(&self.settings.pull_query, members::MOST).await?;
        match all.len() > members::MOST {
            true => Err(Trouble::Refused(format!("more than {} recipients", members::MOST))),
            false => Ok(all),
        }
    }
}

impl Provider for Sql {
    fn ask<'a>(&'a self, form: &'a str) -> Answering<'a, Told> {
        Box::pin(self.ask(form))
    }

    fn all(&self) -> Answering<'_, Vec<String>> {
        Box::pin(self.all())
    }
}
