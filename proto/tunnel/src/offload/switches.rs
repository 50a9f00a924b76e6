//! Which offloads may be used.

use std::{fmt, str::FromStr};

/// A switch for each offload; what the kernel does not have is off whatever the switch says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offloads {
    /// TCP super-packets to and from the TUN device.
    pub tso: bool,
    /// UDP super-packets to and from the TUN device.
    pub uso: bool,
    /// Trains of datagrams to the network by one system call.
    pub gso: bool,
    /// Trains of datagrams from the network by one system call.
    pub gro: bool,
}

/// A name that no offload has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no offload; name some of tso, uso, gso, gro, or say all or none")]
pub struct UnknownOffload(String);

impl Offloads {
    /// All of them.
    pub const ALL: Self = Self { tso: true, uso: true, gso: true, gro: true };
    /// None of them: every packet is a system call of its own.
    pub const NONE: Self = Self { tso: false, uso: false, gso: false, gro: false };
}

impl FromStr for Offloads {
    type Err = UnknownOffload;

    /// Reads `all`, `none`, or names with commas between them.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut offloads = Self::NONE;
        match text {
            "all" => return Ok(Self::ALL),
            "none" => return Ok(Self::NONE),
            names => {
                for name in names.split(',') {
                    match name.trim() {
                        "tso" => offloads.tso = true,
                        "uso" => offloads.uso = true,
                        "gso" => offloads.gso = true,
                        "gro" => offloads.gro = true,
                        unknown => return Err(UnknownOffload(unknown.to_owned())),
                    }
                }
            }
        }
        Ok(offloads)
    }
}

impl fmt::Display for Offloads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [("tso", self.tso), ("uso", self.uso), ("gso", self.gso), ("gro", self.gro)];
        let mut separator = "";
        for (name, _is_on) in names.into_iter().filter(|(_name, is_on)| *is_on) {
            write!(f, "{separator}{name}")?;
            separator = ",";
        }
        if separator.is_empty() {
            f.write_str("none")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_read_again() {
        for bits in 0..16_u8 {
            let [tso, uso, gso, gro] = [1, 2, 4, 8].map(|bit| bits & bit != 0);
            let offloads = Offloads { tso, uso, gso, gro };
            assert_eq!(offloads.to_string().parse(), Ok(offloads));
        }
        assert_eq!("all".parse(), Ok(Offloads::ALL));
    }

    #[test]
    fn an_unknown_name_is_refused() {
        for text in ["", "tso,", "TSO", "tso gro", "lro"] {
            assert!(text.parse::<Offloads>().is_err(), "{text:?}");
        }
    }
}
