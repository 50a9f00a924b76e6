use std::{
    ffi::{OsStr, OsString},
    process::Stdio,
    time::Duration,
};

use crate::{Host, Process};

/// Long enough for a gigabyte through a tunnel on a busy machine, short enough to notice a hang.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// A command to run on a [`Host`].
#[must_use]
pub struct Command {
    host: Host,
    argv: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    stdin: Option<Vec<u8>>,
    timeout: Duration,
}

impl Command {
    pub(crate) fn new(host: Host, program: &OsStr) -> Self {
        Self {
            host,
            argv: vec![program.to_owned()],
            env: Vec::new(),
            stdin: None,
            timeout: DEFAULT_TIMEOUT,
        }
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.argv.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub fn args<I: IntoIterator<Item: AsRef<OsStr>>>(mut self, args: I) -> Self {
        self.argv.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Returns program and arguments, to be run by another program.
    #[must_use]
    pub fn argv(&self) -> &[OsString] {
        &self.argv
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Gives the command this as its whole standard input; without it, it gets none.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// Sets how long [`Self::run`] waits for the end; 60 seconds if not set.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Runs the command to its end and returns what it said, whether it succeeded or not.
    ///
    /// # Panics
    ///
    /// When it does not end in time.
    #[track_caller]
    pub fn run(self) -> Output {
        let timeout = self.timeout;
        self.spawn().wait(timeout)
    }

    /// Runs a command that must succeed and returns its standard output.
    #[track_caller]
    pub fn check(self) -> String {
        let output = self.run();
        assert!(output.success(), "{output:#?}");

        output.stdout
    }

    /// Starts the command.
    #[track_caller]
    pub fn spawn(self) -> Process {
        let words: Vec<_> = self.argv.iter().map(|arg| arg.to_string_lossy()).collect();
        let label = format!("{}: {}", self.host, words.join(" "));
        let mut command = self.host.std_command(&self.argv);
        command.envs(self.env).stdin(if self.stdin.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        });

        Process::start(self.host.sandbox(), label, command, self.stdin)
    }
}

/// What a command that has ended said.
#[derive(Debug, Clone)]
pub struct Output {
    /// Host and command line.
    pub command: String,
    /// Exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// Monotonic clock when the first byte of standard output arrived.
    pub first_output_ns: Option<u64>,
}

impl Output {
    /// Tells whether the exit code is 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }

    /// Parses the standard output as JSON.
    ///
    /// # Panics
    ///
    /// When it is not.
    #[must_use]
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("no JSON ({e}): {self:#?}"))
    }
}
