//! `adit set`.

use std::{path::Path, time::Duration};

use clap::{Args, Subcommand};

use super::{CliError, Verdict, connection, print};
use crate::{
    carrier::CarrierChoice,
    ipc::{Request, Response},
};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    setting: Setting,
}

#[derive(Debug, Subcommand)]
enum Setting {
    /// What carries packets to connectors.
    Carrier {
        /// Which may be used; `auto` is the best that works.
        carrier: CarrierChoice,
    },
}

pub(super) async fn run(arguments: Arguments, socket: &Path) -> Result<Verdict, CliError> {
    let request = match arguments.setting {
        Setting::Carrier { carrier } => Request::SetCarrier { carrier },
    };
    let answer = connection::ask(&request, socket, Duration::ZERO).await?;
    let Response::Done { message } = &answer.response else {
        return Err(connection::unexpected());
    };
    print(&format!("{message}\n"));
    Ok(Verdict::Yes)
}
