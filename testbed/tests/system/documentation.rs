//! The pages about the whole system are run: see [`crate::documentation`]. And no page is left out.

use super::secured::certify_server;
use crate::common::localstack;
use crate::documentation::Place;
use crate::documentation::markdown::{self, Mark};
use testbed::forwarder;
use testbed::queue::Queue;

/// How many blocks may be marked as not run.
const MOST_NOT_RUN: usize = 10;

/// Without an argument, the forwarder runs until a signal: here until it has taken in the messages of the demo.
const FORWARDER: &str = r#"#!/bin/bash
forwarder=FORWARDER
[ $# = 0 ] || exec "$forwarder" "$@"
taken_in() { psql --no-psqlrc --tuples-only --no-align --command='SELECT count(*) FROM pgmask.ledger'; }
before=$(taken_in)
"$forwarder" &
while kill -0 $! && [ "$(taken_in)" -lt $((before + 300)) ]; do sleep 0.05; done
kill -TERM $!
wait $!
"#;

/// A server with a certificate, a queue, and a forwarder between them.
async fn whole_system(name: &'static str) -> Place {
    // In the folder of the installation, which is taken away with it.
    let folder = testbed::installation::shared().unwrap().path().join(name);
    std::fs::create_dir(&folder).unwrap();
    certify_server(&folder, &["localhost"]);
    let set = |name: &str, file: &str| format!("{name} = '{}'", folder.join(file).display());
    let settings =
        ["ssl = on".to_owned(), set("ssl_cert_file", "server.crt"), set("ssl_key_file", "server.key")];
    let mut place = Place::new("logins", &settings.each_ref().map(String::as_str)).await;
    let queue = Queue::create(localstack().await, name).await.unwrap();
    std::fs::copy(folder.join("root.crt"), place.folder.path().join("ca.crt")).unwrap();
    let environment = localstack().await.environment();
    place.variables.extend(environment.into_iter().map(|(name, value)| (name.to_owned(), value)));
    place.variables.push(("PGSSLROOTCERT".to_owned(), "ca.crt".to_owned()));
    place.variables.push(("FORWARDER_LOG_FORMAT".to_owned(), "text".to_owned()));
    place.instead.push(("db.example.com", format!("localhost:{}", place.cluster.port())));
    place.instead.push(("login-queue", name.to_owned()));
    let program = forwarder::program().unwrap().display().to_string();
    place.folder.add_program("forwarder", &FORWARDER.replace("FORWARDER", &program));
    place.queue = Some(queue);
    place
}

#[tokio::test]
async fn the_readme_is_so() {
    whole_system("readme-queue").await.run("README.md").await;
}

#[tokio::test]
async fn the_forwarders_page_is_so() {
    whole_system("forwarder-queue").await.run("docs/forwarder.md").await;
}

#[tokio::test]
async fn the_pages_about_containers_and_releases_are_so() {
    let mut place = Place::new("others", &[]).await;
    place.run("docs/docker.md").await;
    place.run("docs/release.md").await;
}

/// Each page that has something to run, and whether some test runs it; what is not run is marked, with the reason.
#[test]
fn no_page_is_left_out() {
    let tests = [include_str!("documentation.rs"), include_str!("../extension/documentation.rs")].concat();
    let mut pages = vec!["README.md".to_owned()];
    for file in std::fs::read_dir(testbed::root().join("docs")).unwrap().flatten() {
        pages.extend(
            file.file_name().to_str().filter(|name| name.ends_with(".md")).map(|name| format!("docs/{name}")),
        );
    }
    let (mut not_run, mut run) = (Vec::new(), 0);
    for page in pages {
        let text = std::fs::read_to_string(testbed::root().join(&page)).unwrap();
        let blocks = markdown::blocks(&page, &text);
        assert!(blocks.is_empty() || tests.contains(&format!("\"{page}\"")), "no test runs {page}");
        for block in blocks {
            if let Some(Mark::NotRun(reason)) = block.mark {
                not_run.push(format!("{page}:{}: {reason}", block.line));
            } else {
                run += 1;
            }
        }
    }
    println!("{run} blocks are run, {} are not:\n{}", not_run.len(), not_run.join("\n"));
    assert!(not_run.len() <= MOST_NOT_RUN, "{not_run:#?}");
    assert!(run > 60);
}
