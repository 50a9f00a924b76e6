//! Datagrams at a rate, and how long they take.

mod counter;
mod datagram;
mod pace;
mod report;
mod round_trip;
mod sender;

pub(crate) use self::{
    counter::{Args as CountArgs, run as count},
    datagram::{HEADER_LEN, Header, Kind},
    pace::Pace,
    report::{Args as ReportArgs, run as report},
    round_trip::{Args as RoundTripArgs, run as round_trip},
    sender::{Args as SendArgs, bind, run as send},
};
