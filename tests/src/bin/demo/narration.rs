//! What the demo prints.

use std::io::{self, Write as _};

/// Prints a paragraph.
pub(crate) fn say(text: &str) {
    let mut stdout = io::stdout().lock();
    // Whoever watched is gone if this fails; the demo still says by its exit code how it went.
    let _ = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
}

/// Begins a part of the story.
pub(crate) fn chapter(title: &str) {
    say(&format!("\n== {title}"));
}

/// Prints a command on a host, and what it said.
pub(crate) fn show(host: &str, command: &str, said: &str) {
    say(&format!("{host}$ {command}"));
    for line in said.lines() {
        say(&format!("  {line}"));
    }
}
