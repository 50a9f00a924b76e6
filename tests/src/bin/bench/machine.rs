use std::{fs, thread};

use serde_json::{Value, json};

/// The machine that measures, without which figures say little.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    cpu: String,
    cores: usize,
    kernel: String,
    memory_gib: u64,
    /// How many threads wanted a processor during the last minute.
    load: f64,
    /// What TCP uses unless told otherwise.
    pub(crate) congestion_control: String,
    pub(crate) available_congestion_controls: Vec<String>,
}

impl Machine {
    pub(crate) fn read() -> Self {
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let memory_kib: u64 =
            field(&memory, "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0);
        let available = read("/proc/sys/net/ipv4/tcp_available_congestion_control");

        Self {
            cpu: field(&cpu, "model name").to_owned(),
            cores: thread::available_parallelism().map_or(1, usize::from),
            kernel: read("/proc/sys/kernel/osrelease"),
            load: read("/proc/loadavg")
                .split(' ')
                .next()
                .and_then(|load| load.parse().ok())
                .unwrap_or(0.0),
            memory_gib: (memory_kib + (1 << 19)) >> 20,
            congestion_control: read("/proc/sys/net/ipv4/tcp_congestion_control"),
            available_congestion_controls: available.split(' ').map(str::to_owned).collect(),
        }
    }

    pub(crate) fn offers_congestion_control(&self, name: &str) -> bool {
        self.available_congestion_controls.iter().any(|available| available == name)
    }

    /// Returns the load if it is so high that figures will say little.
    pub(crate) fn busy(&self) -> Option<f64> {
        (self.load > self.cores as f64 / 4.0).then_some(self.load)
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({
            "cpu": self.cpu,
            "cores": self.cores,
            "kernel": self.kernel,
            "memory_gib": self.memory_gib,
            "load_before": self.load,
            "congestion_control": self.congestion_control,
        })
    }

    /// Returns the machine in one line.
    pub(crate) fn describe(&self) -> String {
        format!(
            "{}, {} cores, {} GiB, Linux {}",
            self.cpu, self.cores, self.memory_gib, self.kernel
        )
    }
}

/// Returns the first field of this name in lines of `name: value`.
fn field<'a>(text: &'a str, name: &str) -> &'a str {
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    let value = fields.filter(|(key, _)| key.trim() == name).map(|(_, value)| value.trim()).next();

    value.unwrap_or("unknown")
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}
