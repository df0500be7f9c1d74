//! The order of the script: what is needed comes first, and otherwise as the sources have it: tables
//! before functions, a file's functions together and in the file's order.

use crate::Result;
use petgraph::Direction;
use petgraph::graph::NodeIndex;
use pgrx_sql_entity_graph::{PgrxSql, SqlGraphEntity};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// Of all objects that could come next, the one with the least place comes.
type Place<'a> = (Group, &'a str, u32);

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    First,
    Schema,
    WrittenByHand,
    Function,
    Last,
}

/// All objects in order.
pub(crate) fn ordered<'a, 'b>(sql: &'b PgrxSql<'a>) -> Result<Vec<&'b SqlGraphEntity<'a>>> {
    let graph = &sql.graph;
    let mut missing: HashMap<NodeIndex, usize> = HashMap::new();
    let mut ready = BinaryHeap::new();
    for node in graph.node_indices() {
        let needed = graph.neighbors_directed(node, Direction::Incoming).count();
        missing.insert(node, needed);
        if needed == 0 {
            ready.push(Reverse((place(&graph[node]), node)));
        }
    }
    let mut ordered = Vec::new();
    while let Some(Reverse((_, node))) = ready.pop() {
        ordered.push(&graph[node]);
        for dependent in graph.neighbors(node) {
            let left = missing.entry(dependent).or_default();
            *left -= 1;
            if *left == 0 {
                ready.push(Reverse((place(&graph[dependent]), dependent)));
            }
        }
    }
    if ordered.len() < graph.node_count() {
        return Err("SQL objects need each other in a circle".into());
    }
    Ok(ordered)
}

fn place<'a>(object: &'a SqlGraphEntity<'_>) -> Place<'a> {
    let group = match object {
        SqlGraphEntity::CustomSql(sql) if sql.finalize => Group::Last,
        SqlGraphEntity::CustomSql(sql) if !sql.bootstrap => Group::WrittenByHand,
        SqlGraphEntity::Schema(_) => Group::Schema,
        SqlGraphEntity::Function(_) => Group::Function,
        // What has no SQL of its own, such as the names of built-in types, holds nothing up.
        _ => Group::First,
    };
    (group, file(object), line(object))
}

/// The source file, from the repository's root.
pub(crate) fn file<'a>(object: &'a SqlGraphEntity<'_>) -> &'a str {
    match object {
        SqlGraphEntity::CustomSql(sql) => sql.file,
        SqlGraphEntity::Function(function) => function.file,
        SqlGraphEntity::Schema(schema) => schema.file,
        _ => "",
    }
}

fn line(object: &SqlGraphEntity<'_>) -> u32 {
    match object {
        SqlGraphEntity::CustomSql(sql) => sql.line,
        SqlGraphEntity::Function(function) => function.line,
        SqlGraphEntity::Schema(schema) => schema.line,
        _ => 0,
    }
}
