//! The committed install script makes what pgrx's generator says, object by object.

use super::objects::{difference, objects};
use crate::common::cluster;
use std::process::Command;
use testbed::installation::{output, shared};
use testbed::root;

#[tokio::test]
async fn makes_the_objects_that_the_generator_makes() {
    let cluster = cluster().await;
    let installation = shared().unwrap();
    let library = root().join(format!("target/testbed/{}/debug/pg_mask.so", installation.major));
    let generator = root().join("target/debug/install_script");
    let generated = output(Command::new(generator).arg("raw").arg(library)).unwrap();
    std::fs::write(installation.extensions.join("pg_mask--generated.sql"), generated).unwrap();

    let postgres = cluster.connect("postgres").await.unwrap();
    let mut found = Vec::new();
    for (database, version) in [("script_committed", ""), ("script_generated", "VERSION 'generated'")] {
        postgres.batch_execute(&format!("CREATE DATABASE {database}")).await.unwrap();
        let client = cluster.connect(database).await.unwrap();
        client.batch_execute(&format!("CREATE EXTENSION pg_mask {version}")).await.unwrap();
        found.push(objects(&client).await);
    }
    assert_eq!(difference(&found[0], &found[1]), [""; 0]);
}
