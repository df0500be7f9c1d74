//! What of a page can be run: its SQL blocks and its shell commands, each with the output that the page shows.
//!
//! - An `sql` block is for psql. A `text` block right after it is what psql prints.
//! - A `console` block is for a shell: `$ ` begins a command, `# ` one of root, and a backslash at the end of a line
//!   goes on in the next. The other lines are what the command prints.
//! - A `json` block, and any other `text` block, shows something and is not run.
//!
//! An HTML comment in a line of its own right before a block is a mark: see [`Mark`].

/// What a comment before a block says about it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Mark {
    /// `<!-- not run: REASON -->`: it can't run here. These are counted, and few.
    NotRun(String),
    /// `<!-- run by: extension::NAME -->`: that test runs it, in a set-up that it makes for it.
    RunBy(String),
    /// `<!-- run as: ROLE -->`: this SQL block and those after it run as the role.
    RunAs(String),
}

/// A block that is for a program.
#[derive(Debug)]
pub(crate) struct Block {
    /// The number of its first line, from 1.
    pub(crate) line: usize,
    pub(crate) mark: Option<Mark>,
    pub(crate) content: Content,
}

#[derive(Debug)]
pub(crate) enum Content {
    Sql(String, Option<Shown>),
    Commands(Vec<Command>),
}

/// A command of a shell.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) line: usize,
    pub(crate) is_of_root: bool,
    pub(crate) text: String,
    pub(crate) shown: Option<Shown>,
}

/// An output as the page shows it.
#[derive(Debug)]
pub(crate) struct Shown {
    /// The number of its first line, from 1, and how many there are.
    pub(crate) line: usize,
    pub(crate) lines: usize,
    /// How far it is indented in the page.
    pub(crate) indent: usize,
    pub(crate) text: String,
}

/// The blocks of a page, from top to bottom.
pub(crate) fn blocks(path: &str, page: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let mut mark = None;
    // Whether nothing but empty lines came since the last SQL block.
    let mut follows = false;
    let mut lines = (1..).zip(page.lines());
    while let Some((number, line)) = lines.next() {
        let text = line.trim_start();
        let Some(language) = text.strip_prefix("```") else {
            follows &= text.is_empty();
            if let Some(comment) = text.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->")) {
                mark = Some(
                    read_mark(comment).unwrap_or_else(|| panic!("{path}:{number}: what is {comment:?}?")),
                );
            } else if mark.take().is_some() {
                panic!("{path}:{number}: a mark stands right before a block");
            }
            continue;
        };
        let indent = line.len() - text.len();
        let inside: Vec<&str> = lines
            .by_ref()
            .map(|(_, line)| line.get(indent..).unwrap_or_default())
            .take_while(|line| *line != "```")
            .collect();
        let (line, whole) = (number + 1, inside.join("\n"));
        let shown = || Shown { line, lines: inside.len(), indent, text: whole.clone() };
        match language {
            "sql" => {
                let content = Content::Sql(whole.clone(), None);
                found.push(Block { line, mark: mark.take(), content });
            }
            "console" => {
                let content = Content::Commands(commands(path, line, indent, &inside));
                found.push(Block { line, mark: mark.take(), content });
            }
            "text" if follows => {
                if let Some(Block { content: Content::Sql(_, output), .. }) = found.last_mut() {
                    *output = Some(shown());
                }
            }
            "text" | "json" => assert!(mark.is_none(), "{path}:{number}: only what runs has a mark"),
            other => panic!("{path}:{number}: a block is sql, console, text or json, not {other:?}"),
        }
        follows = language == "sql";
    }
    found
}

fn read_mark(comment: &str) -> Option<Mark> {
    let (kind, text) = comment.split_once(": ")?;
    match kind {
        "not run" => Some(Mark::NotRun(text.to_owned())),
        "run by" => Some(Mark::RunBy(text.to_owned())),
        "run as" => Some(Mark::RunAs(text.to_owned())),
        _ => None,
    }
}

fn commands(path: &str, first: usize, indent: usize, inside: &[&str]) -> Vec<Command> {
    let mut found: Vec<Command> = Vec::new();
    let mut goes_on = false;
    for (line, text) in (first..).zip(inside) {
        if goes_on {
            let command = &mut found.last_mut().unwrap().text;
            command.push('\n');
            command.push_str(text);
        } else if let Some((prompt, command)) =
            text.split_once(' ').filter(|(prompt, _)| ["$", "#"].contains(prompt))
        {
            let is_of_root = prompt == "#";
            found.push(Command { line, is_of_root, text: command.to_owned(), shown: None });
        } else {
            let command = found.last_mut();
            let command = command.unwrap_or_else(|| panic!("{path}:{line}: a command begins with $ or #"));
            let shown = command.shown.get_or_insert(Shown { line, lines: 0, indent, text: String::new() });
            shown.lines += 1;
            shown.text.push_str(text);
            shown.text.push('\n');
            continue;
        }
        goes_on = text.ends_with('\\');
    }
    found
}
