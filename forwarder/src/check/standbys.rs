//! Whether a failover could lose logins. The forwarder deletes a message once the primary has committed it; an
//! asynchronous standby may not have it yet, and is the only one to have anything once the primary is gone.

use super::findings::Findings;
use crate::database::At;
use crate::error::{End, Error};
use pg_settings::Connection;
use tokio_postgres::Row;

/// The standbys that receive WAL now. A role without `pg_read_all_stats` sees that they are there, and their
/// names, but not in which state they are. What receives WAL for one database is a subscriber of logical
/// replication, which is no standby; nor is a base backup, as far as that shows.
const STANDBYS: &str = include_str!("standbys.sql");

/// What the server says of its standbys.
pub(super) struct Standbys {
    /// `synchronous_standby_names`: without it no commit waits for a standby.
    waits_for: String,
    attached: i64,
    /// The role may not see which of them are synchronous.
    hidden: bool,
    synchronous: Option<String>,
    others: Option<String>,
    cure: String,
}

/// Warns where no commit waits for a standby that is there, and where it waits for one that is not.
pub(super) fn check(findings: &mut Findings, standbys: Result<Standbys, Error>) {
    const CHECK: &str = "standbys";
    let standbys = match standbys {
        Ok(standbys) => standbys,
        Err(error) => return findings.failed(CHECK, &error),
    };
    let Standbys { waits_for, attached, hidden, synchronous, others, cure } = standbys;
    let are_attached = match attached {
        1 => "a standby is attached".to_owned(),
        _ => format!("{attached} standbys are attached"),
    };
    match (waits_for.as_str(), attached, synchronous, others) {
        ("", 0, ..) => findings.passed(CHECK, "none is attached, as far as the server shows"),
        ("", ..) => findings.warning(CHECK, format!(
            "{are_attached}, and no commit waits for one: a failover can lose logins whose messages are deleted already. If you would promote one, run as a superuser: {cure}"
        )),
        (_, 0, ..) => findings.warning(CHECK, format!(
            "none is attached, and synchronous_standby_names is {waits_for}: no commit returns until one of these is there. Start it."
        )),
        _ if hidden => findings.passed(CHECK, format!("{are_attached}; commits wait for {waits_for}")),
        (.., None, _) => findings.warning(CHECK, format!(
            "{are_attached}, and none of those in synchronous_standby_names, {waits_for}: no commit returns until one of these is there. Start it, or run as a superuser: {cure}"
        )),
        (.., Some(synchronous), None) => {
            findings.passed(CHECK, format!("commits wait for {waits_for}; synchronous are {synchronous}"));
        }
        (.., Some(synchronous), Some(others)) => findings.passed(CHECK, format!(
            "commits wait for {waits_for}; synchronous are {synchronous}. Don't promote the others, {others}: they may lack logins."
        )),
    }
}

/// Asks the server.
pub(super) async fn ask(connection: &Connection) -> Result<Standbys, Error> {
    let read = |row: &Row| -> Result<Standbys, tokio_postgres::Error> {
        Ok(Standbys {
            waits_for: row.try_get(0)?,
            attached: row.try_get(1)?,
            hidden: row.try_get::<_, Option<bool>>(2)?.unwrap_or_default(),
            synchronous: row.try_get(3)?,
            others: row.try_get(4)?,
            cure: row.try_get(5)?,
        })
    };
    let server = &connection.server;
    let rows = connection.client.query_typed(STANDBYS, &[]).await.at(server)?;
    let standbys = rows.first().map(read).transpose().at(server)?;
    standbys.ok_or_else(|| {
        Error::transient(End::Database, format!("the database at {server} says nothing of its standbys"))
    })
}
