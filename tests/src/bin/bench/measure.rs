mod crowd;
mod iperf3;
mod lossy;
mod processor_time;
mod round_trip;
mod tcp;
mod udp;

pub(crate) use self::{
    crowd::Crowd,
    lossy::Lossy,
    processor_time::ProcessorTime,
    round_trip::RoundTrip,
    tcp::{Direction, Tcp},
    udp::{Sender, Udp},
};
