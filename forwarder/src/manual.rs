//! What a package installs beside the program: completions for shells and the manual page, made from the flags.

use crate::config::Config;
use clap_complete::Shell;
use std::io::Write;

/// Prints completions. Returns the exit code.
pub(crate) fn completions(shell: Shell) -> u8 {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Config::described(), "forwarder", &mut text);
    print(&text)
}

/// Prints the manual page. Returns the exit code.
pub(crate) fn page() -> u8 {
    let mut text = Vec::new();
    // Writing into a vector does not fail.
    let _ = clap_mangen::Man::new(Config::described()).render(&mut text);
    print(&text)
}

/// A reader that has seen enough is no error.
fn print(text: &[u8]) -> u8 {
    let _ = std::io::stdout().write_all(text);
    0
}
