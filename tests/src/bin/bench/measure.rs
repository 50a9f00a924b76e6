mod processor_time;
mod tcp;

pub(crate) use self::{
    processor_time::ProcessorTime,
    tcp::{Direction, Tcp},
};
