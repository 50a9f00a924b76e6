mod crowd;
mod iperf3;
mod processor_time;
mod round_trip;
mod tcp;
mod udp;

pub(crate) use self::{
    crowd::Crowd,
    processor_time::ProcessorTime,
    round_trip::RoundTrip,
    tcp::{Direction, Tcp},
    udp::{Sender, Udp},
};
