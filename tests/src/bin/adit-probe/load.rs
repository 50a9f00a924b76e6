//! Datagrams at a rate, and how long they take.

mod counter;
mod datagram;
mod pace;
mod round_trip;
mod sender;

pub(crate) use self::{
    counter::{Args as CountArgs, run as count},
    round_trip::{Args as RoundTripArgs, run as round_trip},
    sender::{Args as SendArgs, run as send},
};
