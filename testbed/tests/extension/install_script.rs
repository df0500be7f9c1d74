//! The committed install script makes what pgrx's generator says, object by object.

use crate::common::cluster;
use std::process::Command;
use testbed::installation::{output, shared};
use testbed::root;

/// Everything that belongs to the extension: what it is, its definition, rights, owner and comment.
const OBJECTS: &str = "
    SELECT pg_describe_object(d.classid, d.objid, 0) AS object,
        CASE d.classid
            WHEN 'pg_proc'::regclass THEN pg_get_functiondef(d.objid)
            WHEN 'pg_class'::regclass THEN (
                SELECT concat_ws(' ', c.relkind, c.relpersistence, c.reloptions, pg_get_viewdef(c.oid),
                    pg_get_partkeydef(c.oid), pg_get_expr(c.relpartbound, c.oid),
                    (SELECT string_agg(concat_ws(' ', a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
                        a.attidentity, pg_get_expr(e.adbin, e.adrelid), col_description(c.oid, a.attnum)), ', ' ORDER BY a.attnum)
                     FROM pg_attribute a LEFT JOIN pg_attrdef e ON e.adrelid = a.attrelid AND e.adnum = a.attnum
                     WHERE a.attrelid = c.oid AND a.attnum > 0),
                    (SELECT string_agg(pg_get_constraintdef(o.oid), ', ' ORDER BY o.conname)
                     FROM pg_constraint o WHERE o.conrelid = c.oid),
                    (SELECT string_agg(pg_get_indexdef(i.indexrelid), ', ' ORDER BY i.indexrelid::regclass::text)
                     FROM pg_index i WHERE i.indrelid = c.oid),
                    (SELECT string_agg(pg_get_triggerdef(t.oid) || t.tgenabled::text, ', ' ORDER BY t.tgname)
                     FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal))
                FROM pg_class c WHERE c.oid = d.objid)
        END AS definition,
        (SELECT p.proacl::text FROM pg_proc p WHERE d.classid = 'pg_proc'::regclass AND p.oid = d.objid
         UNION ALL SELECT c.relacl::text FROM pg_class c WHERE d.classid = 'pg_class'::regclass AND c.oid = d.objid
         UNION ALL SELECT n.nspacl::text FROM pg_namespace n WHERE d.classid = 'pg_namespace'::regclass AND n.oid = d.objid) AS rights,
        obj_description(d.objid, d.classid::regclass::name) AS comment
    FROM pg_depend d
    WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
      AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_mask')
    UNION ALL
    SELECT 'dumped: ' || pg_describe_object('pg_class'::regclass, config.oid, 0), config.condition, NULL, NULL
    FROM pg_extension e, unnest(e.extconfig, e.extcondition) AS config (oid, condition)
    WHERE e.extname = 'pg_mask'
    ORDER BY 1";

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
        let rows = client.query(OBJECTS, &[]).await.unwrap();
        let object =
            |row: &tokio_postgres::Row| -> [Option<String>; 4] { std::array::from_fn(|at| row.get(at)) };
        found.push(rows.iter().map(object).collect::<Vec<_>>());
    }
    assert!(found[0].len() > 20, "{} objects", found[0].len());
    for (committed, generated) in found[0].iter().zip(&found[1]) {
        assert_eq!(committed, generated);
    }
    assert_eq!(found[0].len(), found[1].len());
}
