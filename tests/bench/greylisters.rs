// SPDX-License-Identifier: GPL-3.0-or-later
//! The greylisters that are Debian packages, as their packages set them up but for delay, port and place: postgrey (Berkeley DB, one
//! process), sqlgrey (one process) on PostgreSQL and on SQLite. In the same run and under the same loads as policyd.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ::tests::greylister::Greylister;
use ::tests::postgres::Cluster;
use ::tests::process::{Account, Trouble};

use crate::measure::{Kind, Subject};
use crate::policy::DELAY;

/// One of them.
#[derive(Debug)]
struct Other {
    name: &'static str,
    greylister: Greylister,
    /// The database server it uses.
    beside: Option<u32>,
}

/// All of them, running; they end with this value.
#[derive(Debug)]
pub(crate) struct Greylisters {
    others: Vec<Other>,
    // Behind those that use it.
    _cluster: Cluster,
}

impl Greylisters {
    /// Starts them below `root`.
    pub(crate) async fn start(root: &Path) -> Result<Greylisters, Trouble> {
        // They run as accounts of their own and must be able to pass.
        std::fs::set_permissions(root, std::fs::Permissions::from_mode(0o711))
            .map_err(|error| Trouble::new(root.display(), error))?;
        let cluster = Cluster::try_start()?;
        let url = cluster.new_database().await;
        let database = url.split(['/', '?']).nth(3).unwrap_or_default().to_owned();
        let socket = cluster.socket_directory().display();
        let postgres =
            format!("db_type = Pg\ndb_name = {database}\ndb_host = {socket}\ndb_user = postgres\ndb_pass = none\n");
        let folder = folder(root, "sqlgrey-sqlite")?;
        let file = format!("db_type = SQLite\ndb_name = {}\n", folder.join("sqlgrey.db").display());
        // Only the account of the server can enter the directory of its socket.
        let owner = if Account::ours().is_root() { "postgres" } else { "sqlgrey" };
        let others = vec![
            Other { name: "postgrey", greylister: postgrey(&self::folder(root, "postgrey")?)?, beside: None },
            Other {
                name: "sqlgrey, PostgreSQL",
                greylister: sqlgrey(&self::folder(root, "sqlgrey-postgres")?, owner, &postgres)?,
                beside: cluster.id(),
            },
            Other { name: "sqlgrey, SQLite", greylister: sqlgrey(&folder, "sqlgrey", &file)?, beside: None },
        ];
        Ok(Greylisters { others, _cluster: cluster })
    }

    /// What is measured.
    pub(crate) fn subjects(&self) -> impl Iterator<Item = Subject> {
        self.others.iter().map(|Other { name, greylister, beside }| Subject {
            name,
            port: greylister.port(),
            process: greylister.id(),
            beside: *beside,
            kind: Kind::Greylister,
        })
    }
}

fn folder(root: &Path, name: &str) -> Result<PathBuf, Trouble> {
    let folder = root.join(name);
    std::fs::create_dir_all(&folder).map_err(|error| Trouble::new(folder.display(), error))?;
    Ok(folder)
}

fn postgrey(folder: &Path) -> Result<Greylister, Trouble> {
    Greylister::try_start("postgrey", "postgrey", folder, |port, [user, group]| {
        Ok(vec![
            format!("--inet=127.0.0.1:{port}"),
            format!("--dbdir={}", folder.display()),
            format!("--user={user}"),
            format!("--group={group}"),
            format!("--delay={}", DELAY.as_secs()),
        ])
    })
}

/// Its delay is in minutes.
fn sqlgrey(folder: &Path, account: &str, database: &str) -> Result<Greylister, Trouble> {
    Greylister::try_start("sqlgrey", account, folder, |port, [user, group]| {
        let delay = DELAY.as_secs_f64() / 60.0;
        let text = format!(
            "inet = 127.0.0.1:{port}\nuser = {user}\ngroup = {group}\npidfile = {}\nreconnect_delay = {delay:.3}\nloglevel = 2\n\
             admin_mail =\n{database}",
            folder.join("pid").display()
        );
        let file = folder.join("sqlgrey.conf");
        std::fs::write(&file, text).map_err(|error| Trouble::new(file.display(), error))?;
        Ok(vec!["-f".to_owned(), file.display().to_string()])
    })
}
