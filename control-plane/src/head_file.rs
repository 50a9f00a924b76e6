//! The file that holds the last signed head of the audit log, beside the database.
//!
//! Whoever cuts the log and not this file is found out by `audit verify`. Against one who has the
//! whole folder only a head that is kept elsewhere helps.

use std::{fs, io, sync::Arc, time::Duration};

use adit_proto::{AuditHead, OrganisationKey, api::SignedToken};
use anyhow::Context as _;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, warn};

use crate::{
    app::{self, App},
    data_dir::DataDir,
    store::audit,
};

/// How old the head in the file may be.
const INTERVAL: Duration = Duration::from_secs(10);

/// Writes the head whenever the log has grown. A head that the log contradicts is evidence, and is
/// never written over.
pub(crate) async fn keep(app: App, data_dir: Arc<DataDir>) {
    let held = match held(&app, &data_dir).await {
        Ok(held) => held,
        Err(error) => {
            error!(error = format!("{error:#}"), "Cannot vouch for the audit log");
            return;
        }
    };
    let mut written = held.map(|head| head.sequence);
    let mut interval = interval(INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        match write(&app, &data_dir, written).await {
            Ok(sequence) => written = sequence,
            Err(error) => {
                warn!(error = format!("{error:#}"), "Failed to write the head of the audit log");
            }
        }
    }
}

/// Reads a signed head as the API and this program write it.
pub(crate) fn parse(text: &str, trusted_keys: &[OrganisationKey]) -> anyhow::Result<AuditHead> {
    let signed: SignedToken = serde_json::from_str(text)
        .context("expected the answer of GET /v1/audit-events/head, unchanged")?;
    AuditHead::verify(&signed.token, trusted_keys).context("the head is not to be trusted")
}

/// The head in the file, if there is one, once the log was found to agree with it.
async fn held(app: &App, data_dir: &DataDir) -> anyhow::Result<Option<AuditHead>> {
    let file = data_dir.audit_head();
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context(format!("failed to read {}", file.display())),
    };
    let head = parse(&text, &[app.signer.organisation_key()])
        .with_context(|| format!("failed to read {}", file.display()))?;
    let mut snapshot = app.store.snapshot().await?;
    anyhow::ensure!(
        audit::agrees_with(&mut snapshot, &head).await?,
        "the log does not hold event {} as it was written; run `adit-control audit verify`, and \
         delete {} if an older database was restored on purpose",
        head.sequence,
        file.display()
    );
    Ok(Some(head))
}

async fn write(app: &App, data_dir: &DataDir, written: Option<u64>) -> anyhow::Result<Option<u64>> {
    let Some((sequence, signed)) = app::audit::sign_head(app).await? else { return Ok(written) };
    if written != Some(sequence) {
        let text = format!("{}\n", serde_json::to_string(&signed)?);
        data_dir.write_secret(&data_dir.audit_head(), &text)?;
    }
    Ok(Some(sequence))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fixture::Fixture, store::ActorId};

    #[tokio::test]
    async fn the_file_follows_the_log() {
        let fixture = Fixture::new().await;
        let folder = tempfile::tempdir().unwrap();
        let data_dir = DataDir::open(folder.path()).unwrap();
        assert_eq!(held(&fixture.app, &data_dir).await.unwrap(), None);
        let first = write(&fixture.app, &data_dir, None).await.unwrap();
        assert_eq!(first, Some(1));
        fixture.user("ada").await;
        assert_eq!(write(&fixture.app, &data_dir, first).await.unwrap(), Some(2));
        assert_eq!(held(&fixture.app, &data_dir).await.unwrap().unwrap().sequence, 2);
    }

    #[tokio::test]
    async fn a_head_that_the_log_contradicts_is_kept() {
        let fixture = Fixture::new().await;
        let folder = tempfile::tempdir().unwrap();
        let data_dir = Arc::new(DataDir::open(folder.path()).unwrap());
        fixture.user("ada").await;
        write(&fixture.app, &data_dir, None).await.unwrap();
        let before = fs::read(data_dir.audit_head()).unwrap();

        let mut change = fixture.app.store.begin_change(ActorId::ControlPlane).await.unwrap();
        for statement in [
            "DROP TRIGGER audit_events_are_not_deleted",
            "DELETE FROM audit_events WHERE sequence = 2",
        ] {
            sqlx::query(statement).execute(change.connection()).await.unwrap();
        }
        change.commit_unaudited().await.unwrap();
        let error = held(&fixture.app, &data_dir).await.unwrap_err();
        assert!(error.to_string().contains("the log does not hold event 2"), "{error:#}");
        // Ends at once, and so cannot write.
        keep(fixture.app.clone(), data_dir.clone()).await;
        assert_eq!(fs::read(data_dir.audit_head()).unwrap(), before);
    }
}
