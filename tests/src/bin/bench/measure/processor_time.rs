use std::{fs, time::Duration};

use nix::unistd::{SysconfVar, sysconf};

/// How long processes have kept processors busy, in user space and in the kernel.
pub(crate) struct ProcessorTime;

impl ProcessorTime {
    /// Reads it for a process and everything it started. A process that has ended has none.
    pub(crate) fn of_tree(id: u32) -> Duration {
        let ticks = ticks_of_tree(id);
        let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);

        Duration::from_secs_f64(ticks as f64 / per_second as f64)
    }
}

fn ticks_of_tree(id: u32) -> u64 {
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
    let children = children.split_whitespace().filter_map(|child| child.parse().ok());

    ticks_of(id) + children.map(ticks_of_tree).sum::<u64>()
}

fn ticks_of(id: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    // The name, in parentheses, can hold anything. The 14th and 15th field are utime and stime.
    let fields = stat.rsplit_once(')').map(|(_, fields)| fields).unwrap_or_default();
    let times = fields.split_whitespace().skip(11).take(2);

    times.filter_map(|time| time.parse::<u64>().ok()).sum()
}
