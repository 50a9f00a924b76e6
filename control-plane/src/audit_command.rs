//! `adit-control audit`: checks the audit log and hands it out; also while the control plane runs.

use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader, BufWriter, Write as _},
    path::Path,
};

use adit_proto::{
    AuditChain, AuditHead, AuditSpan, OrganisationKey, Timestamp,
    api::{AuditEvent, Organisation},
};
use anyhow::{Context as _, bail};
use sqlx::SqliteConnection;

use crate::{
    config::{AuditCommand, VerifyAudit},
    data_dir, head_file,
    store::{Store, Versioned, audit, organisation},
};

pub(crate) async fn run(command: AuditCommand) -> anyhow::Result<()> {
    match command {
        AuditCommand::Verify(arguments) => {
            let has_head = !arguments.heads.is_empty();
            let (span, has_head) = match &arguments.file {
                Some(file) => (verify_export(file, &arguments)?, has_head),
                None => verify_database(&arguments).await?,
            };
            say(span, has_head)
        }
        AuditCommand::Export { data_dir, since } => export(&data_dir, since).await,
    }
}

/// Checks the log of a data directory. Says as well whether a head stood for its end.
async fn verify_database(arguments: &VerifyAudit) -> anyhow::Result<(AuditSpan, bool)> {
    let folder = arguments.data_dir.as_deref().context("say --data-dir or --file")?;
    let store = Store::open_read_only(&data_dir::database(folder)).await?;
    let mut snapshot = store.snapshot().await.context("failed to read the database")?;
    let keys = match arguments.keys.as_slice() {
        [] => organisation_keys(&mut snapshot).await?,
        keys => keys.to_vec(),
    };
    let mut heads = read_heads(arguments, &keys)?;
    let own_head = data_dir::audit_head(folder);
    if own_head.exists() {
        heads.push(read_head(&own_head, &keys)?);
    }
    let has_head = !heads.is_empty();
    let found = audit::verify(&mut snapshot, AuditChain::from_first(heads)).await;
    let span = found.context("failed to read the database")?.map_err(tampered)?;
    Ok((span, has_head))
}

/// Checks what `export` wrote, with no database.
fn verify_export(file: &Path, arguments: &VerifyAudit) -> anyhow::Result<AuditSpan> {
    if arguments.keys.is_empty() && !arguments.heads.is_empty() {
        bail!("say with --key which organisation key signs heads; GET /v1/organisation lists it");
    }
    let mut chain = AuditChain::from_any(read_heads(arguments, &arguments.keys)?);
    let shown = file.display();
    let reader = File::open(file).with_context(|| format!("failed to open {shown}"))?;
    for (index, line) in BufReader::new(reader).lines().enumerate() {
        let line = line.with_context(|| format!("failed to read {shown}"))?;
        let event: AuditEvent = serde_json::from_str(&line)
            .with_context(|| format!("line {} of {shown} is no audit event", index + 1))?;
        chain.handle_event(&event).map_err(tampered)?;
    }
    chain.finish().map_err(tampered)
}

fn tampered(fault: adit_proto::AuditFault) -> anyhow::Error {
    anyhow::anyhow!("the audit log was tampered with: {fault}; compare it with a backup")
}

async fn organisation_keys(
    connection: &mut SqliteConnection,
) -> anyhow::Result<Vec<OrganisationKey>> {
    let found: Option<Versioned<Organisation>> =
        organisation::find(connection).await.context("failed to read the database")?;
    Ok(found.map(|organisation| organisation.object.keys).unwrap_or_default())
}

fn read_heads(arguments: &VerifyAudit, keys: &[OrganisationKey]) -> anyhow::Result<Vec<AuditHead>> {
    arguments.heads.iter().map(|file| read_head(file, keys)).collect()
}

fn read_head(file: &Path, keys: &[OrganisationKey]) -> anyhow::Result<AuditHead> {
    let read = || head_file::parse(&fs::read_to_string(file)?, keys);
    read().with_context(|| format!("failed to read {}", file.display()))
}

fn say(span: AuditSpan, has_head: bool) -> anyhow::Result<()> {
    let AuditSpan { first, last, anchored } = span;
    let mut text = format!("The audit log is whole: events {first} to {last}\n");
    if !anchored {
        let before = first.saturating_sub(1);
        text +=
            &format!("Whether event {first} follows from {before} needs the head of {before}\n");
    }
    if !has_head {
        text += "Events cut off at the end show only with --head: a head kept elsewhere\n";
    }
    io::stdout().write_all(text.as_bytes()).context("failed to print the result")
}

/// Writes events as JSON lines, oldest first.
async fn export(data_dir: &Path, since: Option<Timestamp>) -> anyhow::Result<()> {
    let store = Store::open_read_only(&data_dir::database(data_dir)).await?;
    let mut snapshot = store.snapshot().await.context("failed to read the database")?;
    let mut after = match since {
        Some(since) => audit::last_before(&mut snapshot, since).await?,
        None => 0,
    };
    let mut output = BufWriter::new(io::stdout().lock());
    loop {
        let events = audit::read_after(&mut snapshot, after, audit::STEP).await?;
        let Some(last) = events.last() else { break };
        after = last.sequence;
        for event in &events {
            serde_json::to_writer(&mut output, event).context("failed to write an event")?;
            output.write_all(b"\n").context("failed to write an event")?;
        }
    }
    output.flush().context("failed to write an event")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use adit_proto::api::SignedToken;

    use super::*;
    use crate::fixture::Fixture;

    struct Kept {
        folder: tempfile::TempDir,
        fixture: Fixture,
    }

    impl Kept {
        async fn new() -> Self {
            let fixture = Fixture::new().await;
            for name in ["ada", "bob", "eve"] {
                fixture.user(name).await;
            }
            Self { folder: tempfile::tempdir().unwrap(), fixture }
        }

        fn write(&self, name: &str, text: &str) -> PathBuf {
            let file = self.folder.path().join(name);
            fs::write(&file, text).unwrap();
            file
        }

        /// Keeps the head as whoever asks the API does.
        async fn head(&self) -> PathBuf {
            let answer = self.fixture.get("/v1/audit-events/head").await.expect(200);
            self.write("head.json", std::str::from_utf8(&answer.body).unwrap())
        }

        /// The log as lines.
        async fn lines(&self) -> Vec<String> {
            let mut snapshot = self.fixture.app.store.snapshot().await.unwrap();
            let events = audit::read_after(&mut snapshot, 0, 100).await.unwrap();
            events.iter().map(|event| serde_json::to_string(event).unwrap()).collect()
        }

        fn verify(&self, lines: &[String], heads: &[&PathBuf]) -> Result<AuditSpan, String> {
            let file = self.write("export.jsonl", &lines.join("\n"));
            let arguments = VerifyAudit {
                data_dir: None,
                file: Some(file.clone()),
                heads: heads.iter().map(|head| (*head).clone()).collect(),
                keys: vec![self.fixture.app.signer.organisation_key()],
            };
            verify_export(&file, &arguments).map_err(|error| format!("{error:#}"))
        }
    }

    #[tokio::test]
    async fn an_export_is_checked_without_the_database() {
        let kept = Kept::new().await;
        let (head, lines) = (kept.head().await, kept.lines().await);
        assert_eq!(kept.verify(&lines, &[&head]).unwrap().last, 4);
        let part = kept.verify(&lines[2..], &[&head]).unwrap();
        assert_eq!(part, AuditSpan { first: 3, last: 4, anchored: false });
    }

    #[tokio::test]
    async fn whatever_is_done_to_an_export_is_named() {
        let kept = Kept::new().await;
        let (head, lines) = (kept.head().await, kept.lines().await);
        let mut changed = lines.clone();
        changed[1] = changed[1].replace("ada", "mallory");
        let mut removed = lines.clone();
        removed.remove(2);
        let mut reordered = lines.clone();
        reordered.swap(1, 2);
        for (tampered, fault) in [
            (changed, "event 2 was changed"),
            (removed, "event 3 was removed"),
            (reordered, "event 2 is not in its place"),
            (lines[..2].to_vec(), "event 3 and whatever came after it were cut off"),
            (Vec::new(), "event 1 and whatever came after it were cut off"),
        ] {
            let error = kept.verify(&tampered, &[&head]).unwrap_err();
            assert!(error.contains(fault), "{error}");
        }
    }

    #[tokio::test]
    async fn a_head_of_another_organisation_is_not_trusted() {
        let (kept, other) = (Kept::new().await, Kept::new().await);
        let (head, lines) = (other.head().await, kept.lines().await);
        let error = kept.verify(&lines, &[&head]).unwrap_err();
        assert!(error.contains("signed by a key that is not the organisation's"), "{error}");
        let forged = SignedToken { token: "a.b.c".to_owned() };
        let forged = kept.write("forged.json", &serde_json::to_string(&forged).unwrap());
        assert!(kept.verify(&lines, &[&forged]).is_err());
    }
}
