use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use crate::process::Transcript;

/// What the first process of a world does before it waits for the end of its standard input.
///
/// `/run` and `/etc` become the world's own, so that namespaces, sockets, state and changed
/// configuration live in memory and vanish with it.
const INIT: &str = "set -e
mount -t tmpfs -o mode=755 world /run
mkdir -p /run/netns /run/world
cp -dR --preserve=mode,timestamps,links /etc /run/etc 2>/dev/null || true
mount --bind /run/etc /etc
rm -f /etc/resolv.conf
: > /etc/resolv.conf
rm -rf /etc/netns
mkdir -p /etc/netns
echo ready
exec cat";

/// Time for the kernel to remove a world whose standard input was closed.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// The namespaces of a world and the process that holds them.
pub(crate) struct Sandbox {
    name: String,
    /// Process id of the world's first process, in the namespace of the test.
    init: u32,
    /// Whether the world has a user namespace, because the test has no root.
    user_namespace: bool,
    holder: Mutex<Option<Child>>,
    transcripts: Mutex<Vec<Arc<Transcript>>>,
}

impl Sandbox {
    #[track_caller]
    pub(crate) fn start(name: &str) -> Self {
        let user_namespace = !nix::unistd::geteuid().is_root();
        let mut command = Command::new("unshare");
        if user_namespace {
            command.args(["--user", "--map-root-user"]);
        }
        command
            .args(["--mount", "--net", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"])
            .args(["--propagation", "private", "--", "sh", "-c", INIT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut holder =
            command.spawn().unwrap_or_else(|e| panic!("cannot run unshare (util-linux): {e}"));

        let mut line = String::new();
        if let Some(stdout) = holder.stdout.take() {
            // A failed read leaves the line empty, which is reported with what unshare said.
            let _ = BufReader::new(stdout).read_line(&mut line);
        }
        if line.trim() != "ready" {
            let mut said = String::new();
            if let Some(mut stderr) = holder.stderr.take() {
                let _ = stderr.read_to_string(&mut said);
            }
            panic!(
                "cannot make the namespaces of world {name}: {}\nrun as root, or allow user \
                 namespaces: `sysctl kernel.unprivileged_userns_clone=1` on Debian, `sysctl \
                 kernel.apparmor_restrict_unprivileged_userns=0` on Ubuntu",
                said.trim()
            );
        }
        let init = child_of(holder.id()).expect("unshare has a child once it said ready");

        Self {
            name: name.to_owned(),
            init,
            user_namespace,
            holder: Mutex::new(Some(holder)),
            transcripts: Mutex::default(),
        }
    }

    pub(crate) fn init(&self) -> u32 {
        self.init
    }

    /// The command that enters the world; what it should run comes after.
    pub(crate) fn enter_argv(&self) -> Vec<String> {
        let mut argv = vec!["nsenter".to_owned(), format!("--target={}", self.init)];
        if self.user_namespace {
            argv.extend(["--user".to_owned(), "--preserve-credentials".to_owned()]);
        }
        argv.extend(["--mount", "--net", "--pid", "--"].map(str::to_owned));

        argv
    }

    pub(crate) fn enter(&self) -> Command {
        let argv = self.enter_argv();
        let mut command = Command::new(&argv[0]);
        command.args(&argv[1..]);

        command
    }

    /// Translates a path inside the world to one that the test process can open.
    pub(crate) fn outside(&self, inside: &Path) -> PathBuf {
        let relative = inside.strip_prefix("/").unwrap_or(inside);
        Path::new(&format!("/proc/{}/root", self.init)).join(relative)
    }

    /// Runs a shell script in the world, outside of any host.
    #[track_caller]
    pub(crate) fn sh(&self, script: &str) {
        let output = self
            .enter()
            .args(["sh", "-ec", script])
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|e| panic!("cannot run nsenter (util-linux): {e}"));
        assert!(
            output.status.success(),
            "set-up of world {} failed: {script}\n{}",
            self.name,
            String::from_utf8_lossy(&output.stderr)
        );
    }

    pub(crate) fn add_transcript(&self, transcript: Arc<Transcript>) {
        self.transcripts.lock().unwrap_or_else(PoisonError::into_inner).push(transcript);
    }

    pub(crate) fn print_transcripts(&self) {
        let transcripts = self.transcripts.lock().unwrap_or_else(PoisonError::into_inner);
        eprintln!("\n===== world {}: what its processes said last =====", self.name);
        for transcript in transcripts.iter().filter(|t| t.is_worth_printing()) {
            eprintln!("{}", transcript.tail());
        }
    }

    /// Ends the world and waits until the kernel has removed its processes.
    pub(crate) fn stop(&self) {
        let holder = self.holder.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut holder) = holder else { return };

        // The end of its input ends the first process, and that ends all others.
        drop(holder.stdin.take());
        let deadline = Instant::now() + STOP_TIMEOUT;
        while Instant::now() < deadline {
            match holder.try_wait() {
                Ok(None) => thread::sleep(Duration::from_millis(2)),
                Ok(Some(_)) | Err(_) => return,
            }
        }
        eprintln!("world {} did not end by itself", self.name);
        // It may have ended since; there is nothing to do about another failure.
        let _ = holder.kill();
        let _ = holder.wait();
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Returns the first child of a process.
pub(crate) fn child_of(pid: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}
