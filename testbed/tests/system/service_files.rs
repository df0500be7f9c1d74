//! Services name a database in a file, as for every program that uses libpq. `PGSERVICE` was once passed
//! over, and localhost tried.

use super::secured::{NAME, check, secured};
use super::tls::{connects, refuses};

#[tokio::test]
async fn a_service_says_where_to_connect() {
    let server = secured().await;
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "[elsewhere]\nhost=no.such.host.invalid\n\n[logins]\nhost={NAME}\nhostaddr=127.0.0.1\nport={}\ndbname=secured\nuser=anyhow\n\
         sslmode=verify-full\nsslrootcert={}\n\n[directory]\nldap://ldap.example/cn=logins\n",
        server.port(),
        server.file("root.crt"),
    );
    let file = folder.path().join("services").display().to_string();
    std::fs::write(&file, &text).unwrap();
    let (named, logins) = (("PGSERVICEFILE", file.as_str()), ("PGSERVICE", "logins"));
    let good = "over TLS, its certificate and name are good";

    connects(&check("", &[named, logins]).await, good);
    connects(&check("postgresql://?service=logins", &[named]).await, good);
    // The service counts more than other variables, and the URL more than the service.
    connects(&check("", &[named, logins, ("PGHOST", "no.such.host.invalid")]).await, good);
    let other = server.file("wrong-root.crt");
    let url = format!("postgresql://?sslrootcert={other}");
    refuses(&check(&url, &[named, logins]).await, "UnknownIssuer");

    refuses(&check("", &[named, ("PGSERVICE", "absent")]).await, "the service \"absent\" is not in");
    refuses(&check("", &[named, ("PGSERVICE", "directory")]).await, "LDAP is not supported");
    refuses(&check("", &[("PGSERVICEFILE", "/no/such/file"), logins]).await, "/no/such/file is not there");

    // Where libpq looks by itself.
    let home = folder.path().display().to_string();
    std::fs::rename(&file, folder.path().join(".pg_service.conf")).unwrap();
    connects(&check("", &[("HOME", &home), logins]).await, good);
    std::fs::rename(folder.path().join(".pg_service.conf"), folder.path().join("pg_service.conf")).unwrap();
    connects(&check("", &[("PGSYSCONFDIR", &home), logins]).await, good);
}
