//! `adit login` and `adit logout`.

use std::{
    env,
    io::{IsTerminal as _, Write as _, stderr},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use adit_proto::Timestamp;
use clap::Args;
use qrcode::{EcLevel, QrCode, render::unicode::Dense1x2};

use super::{CliError, Format, Verdict, connection, print, print_json, table::printable};
use crate::ipc::{Answer, LoginPrompt, Request, Response};

#[derive(Debug, Args)]
pub(crate) struct LoginArguments {
    /// Where the control plane is, for a device that has not enrolled: https://HOST:PORT, whose
    /// certificate this machine's authorities vouch for, or https://HOST:PORT#PIN.
    url: Option<String>,
    /// Opens no browser.
    #[arg(long)]
    no_browser: bool,
    /// What a new device is to be called; the host's name unless given.
    #[arg(long)]
    name: Option<String>,
    /// Forgets an earlier enrolment, once the new one is made.
    #[arg(long, requires = "url")]
    replace: bool,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct LogoutArguments {
    #[command(flatten)]
    format: Format,
}

/// How long the control plane may take to give codes.
const BEGIN_PATIENCE: Duration = Duration::from_secs(45);

pub(super) async fn run(arguments: LoginArguments, socket: &Path) -> Result<Verdict, CliError> {
    let LoginArguments { url, no_browser, name, replace, format } = arguments;
    let begun =
        connection::ask(&Request::Login { url, name, replace }, socket, BEGIN_PATIENCE).await?;
    let Response::LoginBegun(prompt) = &begun.response else {
        return Err(connection::unexpected());
    };
    if format.json {
        print_json(&begun);
    } else {
        print(&to_text(prompt));
    }
    if !no_browser && has_desktop() {
        open_browser(&prompt.verification_uri_complete);
    }
    let ended = wait(prompt, socket, !format.json).await?;
    say_done(&ended, format)
}

pub(super) async fn run_logout(
    arguments: LogoutArguments,
    socket: &Path,
) -> Result<Verdict, CliError> {
    let ended = connection::ask(&Request::Logout, socket, Duration::ZERO).await?;
    say_done(&ended, arguments.format)
}

fn say_done(answer: &Answer, format: Format) -> Result<Verdict, CliError> {
    let Response::Done { message } = &answer.response else {
        return Err(connection::unexpected());
    };
    if format.json {
        print_json(answer);
    } else {
        print(&format!("{message}\n"));
    }
    Ok(Verdict::Yes)
}

/// Waits for the end and, where someone looks, counts down.
async fn wait(prompt: &LoginPrompt, socket: &Path, counts: bool) -> Result<Answer, CliError> {
    let lifetime = left(prompt);
    let ended = connection::ask(&Request::AwaitLogin, socket, lifetime);
    tokio::pin!(ended);
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    let counts = counts && stderr().is_terminal();
    loop {
        tokio::select! {
            ended = &mut ended => {
                if counts {
                    // Back to the start of the line, and away with what it held.
                    let _ = write!(stderr(), "\r\x1b[K");
                }
                return ended;
            }
            _ = ticks.tick() => {
                if counts {
                    let seconds = left(prompt).as_secs();
                    let (minutes, seconds) = (seconds / 60, seconds % 60);
                    let _ = write!(stderr(), "\rWaiting; the code is valid for {minutes}:{seconds:02} ");
                }
            }
        }
    }
}

fn left(prompt: &LoginPrompt) -> Duration {
    prompt.expires_at.saturating_duration_since(Timestamp::from(SystemTime::now()))
}

fn to_text(prompt: &LoginPrompt) -> String {
    let complete = printable(&prompt.verification_uri_complete);
    // Without it the URL and the code still do.
    let qr = qr_code(&prompt.verification_uri_complete).unwrap_or_default();
    format!(
        "Sign in at\n\n  {complete}\n\n{qr}\nor type the code at {}\n\n  {}\n\n",
        printable(&prompt.verification_uri),
        printable(&prompt.user_code),
    )
}

/// Dark on light, whatever the terminal's colours: two modules a character.
fn qr_code(text: &str) -> Option<String> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L).ok()?;
    let drawn =
        code.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build();
    Some(drawn + "\n")
}

/// Whether there is a browser that the user would see. Not root's: it is not the user's.
fn has_desktop() -> bool {
    let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    !nix::unistd::geteuid().is_root() && (is_set("DISPLAY") || is_set("WAYLAND_DISPLAY"))
}

fn open_browser(url: &str) {
    // The control plane says it, so it must not be a file or another program's scheme.
    if !url.starts_with("https://") {
        return;
    }
    // The URL is printed as well, so nothing is lost if it fails.
    let _ = Command::new("xdg-open")
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_sees_url_code_and_a_qr_code() {
        let prompt = LoginPrompt {
            user_code: "WDJB-MJHT".to_owned(),
            verification_uri: "https://c.example:8443/sign-in".to_owned(),
            verification_uri_complete: "https://c.example:8443/sign-in?user_code=WDJB-MJHT"
                .to_owned(),
            expires_at: Timestamp::from_millis(0),
        };
        let text = to_text(&prompt);
        assert!(text.contains("  https://c.example:8443/sign-in?user_code=WDJB-MJHT\n"), "{text}");
        assert!(text.contains("  WDJB-MJHT\n"), "{text}");
        assert!(text.contains('█') && text.contains('▀'), "{text}");
    }
}
