//! What is said on the command line.

use std::{net::SocketAddr, path::PathBuf};

use adit_proto::{OrganisationKey, Timestamp};
use clap::{Parser, Subcommand};

use crate::{policy_command::PolicyCommand, rate_limits::Limits};

/// The control plane of Adit: identities, resources and policies, by a REST API.
#[derive(Debug, Parser)]
#[command(name = "adit-control", version, propagate_version = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs the control plane; the first run makes the organisation.
    Serve(ServeConfig),
    /// Prints the OpenAPI description of the REST API.
    Openapi,
    /// Keeps policies in a file: exports, tests, plans and applies them through the REST API.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Checks the audit log or hands it out; also while the control plane runs.
    #[command(subcommand)]
    Audit(AuditCommand),
}

/// What to do with the audit log.
#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Checks that no event was changed, removed, reordered or cut off, and names the first.
    Verify(VerifyAudit),
    /// Writes the events as JSON lines to standard output.
    Export {
        /// The folder of `serve --data-dir`.
        #[arg(long, env = "ADIT_CONTROL_DATA_DIR", value_name = "DIR")]
        data_dir: PathBuf,
        /// Only events from this time on, such as 2026-01-31T00:00:00Z.
        #[arg(long, value_name = "TIME")]
        since: Option<Timestamp>,
    },
}

/// Which log to check, and against what.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct VerifyAudit {
    /// The folder of `serve --data-dir`.
    #[arg(
        long,
        env = "ADIT_CONTROL_DATA_DIR",
        value_name = "DIR",
        required_unless_present = "file"
    )]
    pub(crate) data_dir: Option<PathBuf>,
    /// What `audit export` wrote, in place of the database.
    #[arg(long, value_name = "EXPORT")]
    pub(crate) file: Option<PathBuf>,
    /// A head that was kept: the answer of GET /v1/audit-events/head. May be repeated.
    #[arg(long = "head", value_name = "FILE")]
    pub(crate) heads: Vec<PathBuf>,
    /// The organisation key that signs heads, as GET /v1/organisation lists it; the database's
    /// unless said. May be repeated.
    #[arg(long = "key", value_name = "KEY", allow_hyphen_values = true)]
    pub(crate) keys: Vec<OrganisationKey>,
}

/// How to run.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ServeConfig {
    /// Where database, keys and certificate are kept; made when missing.
    #[arg(long, env = "ADIT_CONTROL_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
    /// Address and port to listen on; port 0 takes a free one.
    #[arg(
        long,
        env = "ADIT_CONTROL_LISTEN",
        value_name = "ADDR:PORT",
        default_value = "[::]:8443"
    )]
    pub(crate) listen: SocketAddr,
    /// Where clients and connectors find the control plane; stands in the tokens they join with.
    #[arg(long, env = "ADIT_CONTROL_PUBLIC_URL", value_name = "https://HOST[:PORT]",
        value_parser = public_url)]
    pub(crate) public_url: Option<String>,
    /// Name of the organisation that the first run makes.
    #[arg(long, env = "ADIT_CONTROL_ORGANISATION", value_name = "NAME", default_value = "Adit",
        value_parser = organisation_name)]
    pub(crate) organisation: String,
    #[command(flatten)]
    pub(crate) limits: Limits,
}

fn public_url(text: &str) -> Result<String, String> {
    let url: axum::http::Uri = text.parse().map_err(|error| format!("{error}"))?;
    let (Some("https"), Some(_)) = (url.scheme_str(), url.host().filter(|host| !host.is_empty()))
    else {
        return Err("expected https://HOST or https://HOST:PORT".to_owned());
    };
    if url.path_and_query().is_some_and(|path| path.as_str() != "/") {
        return Err("expected no path after the host and port".to_owned());
    }
    Ok(text.trim_end_matches('/').to_owned())
}

fn organisation_name(text: &str) -> Result<String, String> {
    match crate::app::validate::name(text) {
        Ok(()) => Ok(text.to_owned()),
        Err(error) => Err(error.detail),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_pins_may_begin_with_a_hyphen() {
        let text = format!("-{}", "A".repeat(42));
        for arguments in [
            &["adit-control", "policy", "export", "--pin", &text][..],
            &["adit-control", "audit", "verify", "--file", "log", "--key", &text],
        ] {
            if let Err(error) = Arguments::try_parse_from(arguments) {
                panic!("{error}");
            }
        }
    }

    #[test]
    fn a_public_url_is_https_without_a_path() {
        assert_eq!(public_url("https://c.example/"), Ok("https://c.example".to_owned()));
        assert_eq!(public_url("https://[::1]:8443"), Ok("https://[::1]:8443".to_owned()));
        for text in ["http://c.example", "c.example:8443", "https://c.example/path", "https://"] {
            assert!(public_url(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_listen_address_has_a_default() {
        let arguments = Arguments::parse_from(["adit-control", "serve", "--data-dir", "x"]);
        assert!(
            matches!(arguments.command, Command::Serve(config) if config.listen.port() == 8443)
        );
    }
}
