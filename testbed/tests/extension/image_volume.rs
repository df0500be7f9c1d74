//! PostgreSQL 18 takes the extension from a folder of its own, laid out as the image `extension` of
//! deploy/docker/Dockerfile is.

use crate::common::{count, texts};
use std::path::Path;
use testbed::cluster::Cluster;
use testbed::installation::{output, shared};
use testbed::root;

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    std::fs::copy(from, to).unwrap();
}

#[tokio::test]
async fn the_extension_works_from_a_folder_of_its_own() {
    let installation = shared().unwrap();
    if installation.major < 18 {
        return; // older servers look in their own folders only
    }
    let image = tempfile::tempdir().unwrap();
    output(std::process::Command::new("chmod").arg("755").arg(image.path())).unwrap();
    let library = root().join(format!("target/testbed/{}/debug/pg_mask.so", installation.major));
    copy(&library, &image.path().join("lib/pg_mask.so"));
    let extension = image.path().join("share/extension");
    copy(&root().join("pg_mask/pg_mask.control"), &extension.join("pg_mask.control"));
    for script in std::fs::read_dir(root().join("pg_mask/sql")).unwrap().flatten() {
        copy(&script.path(), &extension.join(script.file_name()));
    }
    // The server has the extension in its own folders, too; this one comes first.
    let cluster = Cluster::start(&[
        &format!("extension_control_path = '{}'", image.path().join("share").display()),
        &format!("dynamic_library_path = '{}:$libdir'", image.path().join("lib").display()),
    ])
    .await
    .unwrap();
    let client = cluster.database("image_volume").await.unwrap();
    let token = texts(&client, "SELECT mask_pii('203.0.113.7')").await;
    assert!(token[0].starts_with("m1_"), "{token:?}");
    let pid = count(&client, "SELECT pg_backend_pid()::bigint").await;
    let mapped = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let library = image.path().join("lib/pg_mask.so");
    assert!(mapped.contains(library.to_str().unwrap()), "the library is not the folder's");
}
