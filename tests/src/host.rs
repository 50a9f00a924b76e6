use std::{
    env,
    ffi::{OsStr, OsString},
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    Command, Output, Process,
    world::{Sandbox, WORLD_DIR},
};

/// One machine of a [`World`](crate::World). Cheap to clone.
#[derive(Clone)]
pub struct Host {
    sandbox: Arc<Sandbox>,
    name: Arc<str>,
}

impl Host {
    pub(crate) fn new(sandbox: Arc<Sandbox>, name: &str) -> Self {
        Self { sandbox, name: name.into() }
    }

    /// Returns the name, which is also that of its network namespace.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Prepares a command; see [`Command`] for what can be set.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        Command::new(self.clone(), program.as_ref())
    }

    /// Runs a command to its end and returns what it said, whether it succeeded or not.
    #[track_caller]
    pub fn run<I: IntoIterator<Item: AsRef<OsStr>>>(&self, argv: I) -> Output {
        self.prepare(argv).run()
    }

    /// Runs a command that must succeed and returns its standard output.
    #[track_caller]
    pub fn check<I: IntoIterator<Item: AsRef<OsStr>>>(&self, argv: I) -> String {
        self.prepare(argv).check()
    }

    /// Runs a shell script that must succeed and returns its standard output.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        self.check(["sh", "-ec", script])
    }

    /// Starts a command that runs until it ends, is stopped, or its [`Process`] is dropped.
    #[track_caller]
    pub fn spawn<I: IntoIterator<Item: AsRef<OsStr>>>(&self, argv: I) -> Process {
        self.prepare(argv).spawn()
    }

    fn prepare<I: IntoIterator<Item: AsRef<OsStr>>>(&self, argv: I) -> Command {
        let mut argv = argv.into_iter();
        let program = argv.next().map(|p| p.as_ref().to_owned()).unwrap_or_default();

        self.command(program).args(argv)
    }

    /// Returns the host's own directory, as its processes see it.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        Path::new(WORLD_DIR).join(&*self.name)
    }

    /// Translates a path on this host to one that the test process can open.
    #[must_use]
    pub fn outside(&self, path: impl AsRef<Path>) -> PathBuf {
        self.sandbox.outside(&self.dir().join(path))
    }

    /// Writes a file, relative to the host's directory or absolute, and returns its path inside.
    #[track_caller]
    pub fn write(&self, path: impl AsRef<Path>, contents: impl AsRef<[u8]>) -> PathBuf {
        let inside = self.dir().join(path);
        let outside = self.sandbox.outside(&inside);
        fs::write(&outside, contents)
            .unwrap_or_else(|e| panic!("cannot write {} on {self}: {e}", inside.display()));

        inside
    }

    /// Reads a file, relative to the host's directory or absolute.
    #[must_use]
    #[track_caller]
    pub fn read(&self, path: impl AsRef<Path>) -> String {
        fs::read_to_string(self.outside(path.as_ref()))
            .unwrap_or_else(|e| panic!("cannot read {} on {self}: {e}", path.as_ref().display()))
    }

    /// Tells whether a file exists, relative to the host's directory or absolute.
    #[must_use]
    pub fn exists(&self, path: impl AsRef<Path>) -> bool {
        self.outside(path).exists()
    }

    /// Replaces the host's `/etc/resolv.conf`; processes started from here on see it.
    #[track_caller]
    pub fn set_resolv_conf(&self, contents: &str) {
        self.write(format!("/etc/netns/{self}/resolv.conf"), contents);
    }

    /// Sets a kernel parameter of this host's network.
    #[track_caller]
    pub fn sysctl(&self, name: &str, value: &str) {
        self.sh(&format!("echo {value} > /proc/sys/{}", name.replace('.', "/")));
    }

    /// Sends everything without a better route to `gateway`, an IPv4 or IPv6 address.
    #[track_caller]
    pub fn default_route(&self, gateway: &str) {
        self.check(["ip", "route", "replace", "default", "via", gateway]);
    }

    /// Returns the line that opens a shell on this host, while the world lives.
    #[must_use]
    pub fn shell_line(&self) -> String {
        format!("{} ip netns exec {self} bash", self.sandbox.enter_argv().join(" "))
    }

    pub(crate) fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// The command line that runs `argv` here, from the test's point of view.
    pub(crate) fn std_command(&self, argv: &[OsString]) -> std::process::Command {
        let mut command = self.sandbox.enter();
        command.args(["ip", "netns", "exec", self.name()]).args(argv);
        command.env("HOME", self.dir()).env("TMPDIR", self.dir());
        // Users' paths lack the folders of nft and sshd on Debian.
        let path = env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{path}:/usr/local/sbin:/usr/sbin:/sbin"));

        command
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}
