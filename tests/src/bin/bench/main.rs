//! Measures Adit beside other tunnels on this machine.
//!
//! Every contender gets the same two hosts joined by one cable, in a world of its own that lives
//! for one round. They take each test one after the other, so that what the machine does meanwhile
//! meets all of them alike; what is reported are medians over the rounds.

mod arguments;
mod contender;
mod machine;
mod measure;
mod pair;
mod picture;
mod program;
mod reading;
mod report;
mod run;
mod table;
mod test;

use std::process::ExitCode;

use clap::Parser as _;

use self::arguments::Arguments;

fn main() -> ExitCode {
    match run::run(&Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
