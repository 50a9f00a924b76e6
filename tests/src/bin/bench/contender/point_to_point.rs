use super::{CommandLine, Ends, Tunnel};
use crate::pair::{INNER_SERVER, Pair};

/// A program that, started on both hosts, makes an interface and carries its packets to the other:
/// for anything that is not among the contenders.
#[derive(Debug, Clone)]
pub(crate) struct PointToPoint {
    pub(crate) name: String,
    pub(crate) command: CommandLine,
}

impl PointToPoint {
    #[track_caller]
    pub(crate) fn start(&self, pair: &Pair) -> Tunnel {
        let sides = pair.sides();
        let programs = sides.iter().map(|side| self.command.spawn(side)).collect();
        for side in &sides {
            side.wait_for_interface();
            side.configure_interface();
        }

        Tunnel { server: INNER_SERVER, ends: Ends::Programs(programs) }
    }
}
