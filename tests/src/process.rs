use std::{
    fmt::Write as _,
    io::{Read, Write as _},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::{
        signal::{self, Signal},
        wait::{Id, WaitPidFlag, waitid},
    },
    unistd::Pid,
};
use serde_json::Value;

use crate::{
    Output, monotonic_ns, wait_until,
    world::{Sandbox, child_of},
};

/// How many lines of each output a failing test shows of each process.
const TAIL_LINES: usize = 40;

/// How long output may still arrive after a process has ended: children may hold its pipes.
const OUTPUT_GRACE: Duration = Duration::from_secs(1);

/// A process on a [`Host`](crate::Host), killed when dropped.
pub struct Process {
    /// Process id of `nsenter`, whose only child is the process itself.
    nsenter: u32,
    transcript: Arc<Transcript>,
}

impl Process {
    #[track_caller]
    pub(crate) fn start(
        sandbox: &Sandbox,
        label: String,
        mut command: Command,
        stdin: Option<Vec<u8>>,
    ) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("cannot start {label}: {e}"));

        let transcript = Arc::new(Transcript::new(label));
        sandbox.add_transcript(transcript.clone());
        if let (Some(mut pipe), Some(bytes)) = (child.stdin.take(), stdin) {
            // A process that does not read its input is judged by what it does instead.
            thread::spawn(move || pipe.write_all(&bytes));
        }
        if let Some(pipe) = child.stdout.take() {
            let transcript = transcript.clone();
            thread::spawn(move || transcript.record(pipe, Stream::Out));
        }
        if let Some(pipe) = child.stderr.take() {
            let transcript = transcript.clone();
            thread::spawn(move || transcript.record(pipe, Stream::Err));
        }
        let nsenter = child.id();
        let waiting = transcript.clone();
        thread::spawn(move || waiting.record_exit(child));

        Self { nsenter, transcript }
    }

    /// Waits for a line of standard output or error that contains `words`, and returns it.
    ///
    /// # Panics
    ///
    /// When the process ends, or `timeout` passes, without such a line.
    #[track_caller]
    pub fn wait_for_line(&self, words: &str, timeout: Duration) -> String {
        self.wait_for(words, timeout, |state| {
            let find =
                |bytes: &[u8]| lines(bytes).find(|line| line.contains(words)).map(str::to_owned);
            find(&state.stdout).or_else(|| find(&state.stderr))
        })
    }

    /// Waits for the first event of this name that a probe prints, and returns it.
    ///
    /// # Panics
    ///
    /// As [`Self::wait_for_line`].
    #[track_caller]
    pub fn wait_for_event(&self, name: &str, timeout: Duration) -> Value {
        self.wait_for(&format!("event {name}"), timeout, |state| {
            events(&state.stdout).find(|event| event["event"] == name)
        })
    }

    /// Waits until `find` gives a value for the events printed so far, and returns it.
    ///
    /// # Panics
    ///
    /// As [`Self::wait_for_line`].
    #[track_caller]
    pub fn wait_for_events<T>(
        &self,
        what: &str,
        timeout: Duration,
        find: impl Fn(&[Value]) -> Option<T>,
    ) -> T {
        self.wait_for(what, timeout, |state| find(&events(&state.stdout).collect::<Vec<_>>()))
    }

    /// Returns all events printed so far.
    #[must_use]
    pub fn events(&self) -> Vec<Value> {
        events(&self.transcript.lock().stdout).collect()
    }

    /// Returns what the process said so far, standard output before standard error.
    #[must_use]
    pub fn output(&self) -> String {
        let state = self.transcript.lock();
        format!(
            "{}{}",
            String::from_utf8_lossy(&state.stdout),
            String::from_utf8_lossy(&state.stderr)
        )
    }

    /// Tells whether the process has not ended yet.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.transcript.lock().exit.is_none()
    }

    /// Waits for the end of the process.
    ///
    /// # Panics
    ///
    /// When it does not end within `timeout`.
    #[track_caller]
    pub fn wait(&self, timeout: Duration) -> Output {
        let ended = self.transcript.wait_while(timeout, |state| state.exit.is_none());
        assert!(ended, "not ended within {timeout:?}: {}", self.transcript.tail());
        self.transcript.wait_while(OUTPUT_GRACE, |state| state.open_pipes > 0);

        self.transcript.output()
    }

    /// Returns the process id as the test sees it, while the process runs.
    #[must_use]
    #[track_caller]
    pub fn id(&self) -> Option<u32> {
        wait_until("nsenter forks", Duration::from_secs(5), || {
            // The lock keeps an ended process from being reaped, and its id from being reused.
            let state = self.transcript.lock();
            if state.exit.is_some() {
                return Some(None);
            }
            child_of(self.nsenter).map(Some)
        })
    }

    /// Sends a signal, if the process still runs.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        let Some(pid) = self.id() else { return };
        let state = self.transcript.lock();
        if state.exit.is_some() {
            return;
        }

        // It may have ended in this moment, which is what most signals are for.
        let _ = signal::kill(pid_of(pid), signal);
        if signal == Signal::SIGCONT {
            // nsenter stops together with its child.
            let _ = signal::kill(pid_of(self.nsenter), signal);
        }
    }

    /// Asks the process to stop (`SIGTERM`) and waits for its end.
    #[track_caller]
    pub fn stop(&self, timeout: Duration) -> Output {
        self.signal(Signal::SIGTERM);
        self.wait(timeout)
    }

    /// Kills the process (`SIGKILL`) and waits for its end.
    #[track_caller]
    pub fn kill(&self) -> Output {
        self.signal(Signal::SIGKILL);
        self.wait(Duration::from_secs(10))
    }

    #[track_caller]
    fn wait_for<T>(&self, what: &str, timeout: Duration, find: impl Fn(&State) -> Option<T>) -> T {
        let mut found = None;
        self.transcript.wait_while(timeout, |state| {
            found = find(state);
            let more_to_come = state.exit.is_none() || state.open_pipes > 0;
            found.is_none() && more_to_come
        });

        found.unwrap_or_else(|| {
            panic!("no {what:?} within {timeout:?} from {}", self.transcript.tail())
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.signal(Signal::SIGKILL);
        }
        // When the test panics, the world ends the process, after it showed what it said.
    }
}

/// Everything a process said, and how it ended.
pub(crate) struct Transcript {
    label: String,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    first_output_ns: Option<u64>,
    open_pipes: u8,
    exit: Option<ExitStatus>,
}

#[derive(Clone, Copy)]
enum Stream {
    Out,
    Err,
}

impl Transcript {
    fn new(label: String) -> Self {
        let state = State {
            stdout: Vec::new(),
            stderr: Vec::new(),
            first_output_ns: None,
            open_pipes: 2,
            exit: None,
        };
        Self { label, state: Mutex::new(state), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, mut pipe: impl Read, stream: Stream) {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length) = pipe.read(&mut buffer)
            && length > 0
        {
            let now = monotonic_ns();
            let mut state = self.lock();
            match stream {
                Stream::Out => {
                    state.first_output_ns.get_or_insert(now);
                    state.stdout.extend_from_slice(&buffer[..length]);
                }
                Stream::Err => state.stderr.extend_from_slice(&buffer[..length]),
            }
            self.changed.notify_all();
        }
        self.lock().open_pipes -= 1;
        self.changed.notify_all();
    }

    fn record_exit(&self, mut child: Child) {
        // Leaves the process unreaped, so that nobody can signal a reused id.
        let ended = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        while waitid(Id::Pid(pid_of(child.id())), ended) == Err(nix::errno::Errno::EINTR) {}

        let mut state = self.lock();
        state.exit = Some(child.wait().expect("a child is waited for once"));
        self.changed.notify_all();
    }

    /// Waits while `condition` holds; returns whether it ceased to hold within `timeout`.
    fn wait_while(&self, timeout: Duration, mut condition: impl FnMut(&State) -> bool) -> bool {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        while condition(&state) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }

        true
    }

    fn output(&self) -> Output {
        let state = self.lock();
        Output {
            command: self.label.clone(),
            code: state.exit.and_then(|status| status.code()),
            stdout: String::from_utf8_lossy(&state.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&state.stderr).into_owned(),
            first_output_ns: state.first_output_ns,
        }
    }

    /// Short commands that did their work are noise beside the one that failed.
    pub(crate) fn is_worth_printing(&self) -> bool {
        !self.lock().exit.is_some_and(|status| status.success())
    }

    pub(crate) fn tail(&self) -> String {
        let state = self.lock();
        let mut text = match state.exit {
            Some(status) => format!("--- {} ({status})", self.label),
            None => format!("--- {} (running)", self.label),
        };
        for (name, bytes) in [("stdout", &state.stdout), ("stderr", &state.stderr)] {
            let said = String::from_utf8_lossy(bytes);
            let lines: Vec<_> = said.lines().collect();
            for line in lines.iter().skip(lines.len().saturating_sub(TAIL_LINES)) {
                let _ = write!(text, "\n    {name}: {line}");
            }
        }

        text
    }
}

/// Whole lines only: the last one may still be growing.
fn lines(bytes: &[u8]) -> impl Iterator<Item = &str> {
    bytes
        .split_inclusive(|byte| *byte == b'\n')
        .filter(|line| line.ends_with(b"\n"))
        .filter_map(|line| str::from_utf8(line).ok())
        .map(str::trim_end)
}

fn events(bytes: &[u8]) -> impl Iterator<Item = Value> {
    lines(bytes).filter_map(|line| serde_json::from_str(line).ok())
}

/// Parses the JSON lines of a probe that has ended.
pub(crate) fn parse_events(stdout: &str) -> Vec<Value> {
    events(stdout.as_bytes()).collect()
}

fn pid_of(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).expect("process ids are positive 32-bit integers"))
}
