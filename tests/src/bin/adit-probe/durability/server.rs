use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use adit_tests::{ApiConnection, monotonic_ns};
use anyhow::{Context as _, bail};

/// A control plane that can be started.
pub(super) struct Server {
    program: PathBuf,
    data_dir: PathBuf,
}

impl Server {
    pub(super) fn new(program: &Path, data_dir: &Path) -> Self {
        Self { program: program.into(), data_dir: data_dir.into() }
    }

    /// Starts it and waits until it listens.
    pub(super) fn start(&self) -> anyhow::Result<Running> {
        let began = monotonic_ns();
        let (mut child, stderr) = self.spawn()?;
        let mut said = String::new();
        let mut lines = BufReader::new(stderr);
        let address = loop {
            let before = said.len();
            if lines.read_line(&mut said).context("failed to read what it says")? == 0 {
                // Its end is known already; how it ended is in what it said.
                let _ = child.wait();
                bail!("the control plane did not start:\n{said}");
            }
            if let Some(address) = listening(&said[before..]) {
                break address;
            }
        };
        // A pipe that nobody reads would fill, and closed it would fail.
        thread::spawn(move || lines.lines().map_while(Result::ok).for_each(drop));

        Ok(Running {
            child: Mutex::new(child),
            address,
            data_dir: self.data_dir.clone(),
            started_in_ns: monotonic_ns() - began,
        })
    }

    /// Starts it and kills it after a while, whatever it does then.
    pub(super) fn start_and_kill(&self, after: Duration) -> anyhow::Result<()> {
        let (mut child, _stderr) = self.spawn()?;
        thread::sleep(after);
        child.kill().context("failed to kill")?;
        child.wait().context("failed to wait")?;

        Ok(())
    }

    fn spawn(&self) -> anyhow::Result<(Child, ChildStderr)> {
        let mut child = Command::new(&self.program)
            .args(["serve", "--listen", "127.0.0.1:0", "--public-url", "https://127.0.0.1:8443"])
            .args(["--requests-per-address=1000000000", "--requests-per-token=1000000000"])
            .arg("--data-dir")
            .arg(&self.data_dir)
            .stdin(Stdio::null())
            .stdout(File::options().write(true).open("/dev/null").context("no /dev/null")?)
            .stderr(Stdio::piped())
            .spawn()
            .context("failed to start the control plane")?;
        let stderr = child.stderr.take().context("it has no standard error")?;

        Ok((child, stderr))
    }
}

fn listening(line: &str) -> Option<SocketAddr> {
    let (_, fields) = line.split_once("Listening")?;
    let (_, address) = fields.split_once("address=")?;
    address.split_whitespace().next()?.parse().ok()
}

/// A control plane that listens; killed when dropped.
pub(super) struct Running {
    child: Mutex<Child>,
    address: SocketAddr,
    data_dir: PathBuf,
    started_in_ns: u64,
}

impl Running {
    pub(super) fn started_in_ns(&self) -> u64 {
        self.started_in_ns
    }

    pub(super) fn connect(&self) -> anyhow::Result<ApiConnection> {
        ApiConnection::open(self.address, &self.data_dir).context("failed to connect")
    }

    pub(super) fn signal_kill(&self) -> anyhow::Result<()> {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        child.kill().context("failed to kill")
    }

    /// Kills it and waits for its end.
    pub(super) fn kill(&self) -> anyhow::Result<()> {
        self.signal_kill()?;
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        child.wait().context("failed to wait")?;

        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It ends with the world at the latest.
        let _ = self.kill();
    }
}
