//! PgBouncer in transaction mode before a cluster: the next statement of a session may run in another
//! server process.

use crate::Result;
use crate::cluster::Cluster;
use crate::guardian::{Guardian, free_port, wait_until};
use crate::installation;
use std::path::Path;
use tokio_postgres::NoTls;

/// A pooler, gone with its value. It trusts whom the cluster knows.
#[derive(Debug)]
pub struct PgBouncer {
    guardian: Guardian,
    port: u16,
}

impl PgBouncer {
    /// Starts it with so many connections to the cluster, for these users, and as it comes otherwise.
    pub async fn start(cluster: &Cluster, connections: u32, users: &[&str]) -> Result<Self> {
        let programs = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"];
        let program = programs.into_iter().find(|program| Path::new(program).exists());
        let program = program.ok_or("pgbouncer is missing; run: testbed/setup.sh")?;
        let folder = Guardian::folder("pgbouncer")?;
        let port = free_port()?;
        let (ini, list) = (folder.join("pgbouncer.ini"), folder.join("users.txt"));
        let command = installation::shared()?.as_its_user(&[program, &ini.display().to_string()]);
        let guardian = Guardian::new(&folder, "INT", &command)?;
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = trust\nauth_file = {}\npool_mode = transaction\ndefault_pool_size = {connections}\n",
            cluster.port(),
            list.display(),
        );
        std::fs::write(&ini, settings)?;
        std::fs::write(&list, users.iter().map(|user| format!("\"{user}\" \"\"\n")).collect::<String>())?;
        let mut pooler = Self { guardian, port };
        pooler.guardian.start()?;
        let url = pooler.url(users.first().ok_or("a user is needed")?, "postgres");
        let ready =
            wait_until("PgBouncer answers", || async { tokio_postgres::connect(&url, NoTls).await.is_ok() });
        ready.await.map_err(|error| format!("{error}\n{}", pooler.guardian.log()))?;
        Ok(pooler)
    }

    /// A URL for `user`, without a password.
    pub fn url(&self, user: &str, database: &str) -> String {
        format!("postgresql://{user}@127.0.0.1:{}/{database}", self.port)
    }
}
