use std::path::PathBuf;

use adit_tests::{Command, Process};
use anyhow::{Context as _, ensure};

use crate::{
    pair::{LAPTOP, SERVER, Side},
    program,
};

/// How to start an end of a tunnel, with words that stand for what differs between the two ends:
/// `{interface}`, `{local}` and `{peer}`, the last two for addresses on the cable.
#[derive(Debug, Clone)]
pub(crate) struct CommandLine {
    words: Vec<String>,
}

impl CommandLine {
    /// Splits at spaces; no word can hold one.
    pub(crate) fn new(text: &str) -> Self {
        Self { words: text.split_whitespace().map(str::to_owned).collect() }
    }

    /// Parses `NAME=COMMAND`.
    pub(crate) fn parse_named(text: &str) -> anyhow::Result<(String, Self)> {
        let (name, command) = text.split_once('=').context("this is not NAME=COMMAND")?;
        let command = Self::new(command);
        ensure!(!name.is_empty() && !command.words.is_empty(), "this is not NAME=COMMAND");

        Ok((name.to_owned(), command))
    }

    pub(crate) fn missing_program(&self) -> Option<&str> {
        let name = self.words.first()?;
        find(name).is_none().then_some(name)
    }

    pub(crate) fn version(&self) -> Option<String> {
        program::version_of(&find(self.words.first()?)?)
    }

    /// Starts one end.
    #[track_caller]
    pub(crate) fn spawn(&self, side: &Side<'_>) -> Process {
        self.command(side).spawn()
    }

    #[track_caller]
    pub(crate) fn command(&self, side: &Side<'_>) -> Command {
        let peer = if side.outer == LAPTOP { SERVER } else { LAPTOP };
        let (name, arguments) = self.words.split_first().expect("a command line has a program");
        let program = find(name).unwrap_or_else(|| panic!("there is no program {name}"));
        let arguments = arguments.iter().map(|word| {
            word.replace("{interface}", &side.interface)
                .replace("{local}", &side.outer.to_string())
                .replace("{peer}", &peer.to_string())
        });

        side.host.command(program).args(arguments)
    }
}

fn find(name: &str) -> Option<PathBuf> {
    if name.contains('/') {
        // Commands run in folders of the world.
        return PathBuf::from(name).canonicalize().ok().filter(|path| path.is_file());
    }

    program::find(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_ends_at_the_first_equals_sign() {
        let (name, command) =
            CommandLine::parse_named("limit=nulltun --crypto=none").expect("parse");

        assert_eq!(name, "limit");
        assert_eq!(command.words, ["nulltun", "--crypto=none"]);
    }

    #[test]
    fn a_command_has_a_name_and_a_program() {
        for text in ["nulltun", "=nulltun", "limit=", "limit= "] {
            assert!(CommandLine::parse_named(text).is_err(), "{text}");
        }
    }
}
