//! The signed head of the audit log.

use std::time::SystemTime;

use adit_proto::api::SignedToken;

use crate::{
    app::App,
    store::{StoreError, audit},
};

/// Signs the head that the log has now, if it has begun. Gives its sequence as well.
pub(crate) async fn sign_head(app: &App) -> Result<Option<(u64, SignedToken)>, StoreError> {
    let mut snapshot = app.store.snapshot().await?;
    let head = audit::head(&mut snapshot, SystemTime::now().into()).await?;
    Ok(head.map(|head| {
        let sequence = head.sequence;
        let token = app.signer.sign_audit_head(head).token().to_owned();
        (sequence, SignedToken { token })
    }))
}
