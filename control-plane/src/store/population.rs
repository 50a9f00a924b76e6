//! Who could reach something: the users that are not disabled, with groups and devices.

use std::collections::BTreeMap;

use adit_policy::Reacher;
use adit_proto::UserId;
use sqlx::SqliteConnection;

use super::{StoreError, row::RowExt as _};

pub(crate) async fn read(
    connection: &mut SqliteConnection,
) -> Result<BTreeMap<UserId, Reacher>, StoreError> {
    let mut users = BTreeMap::new();
    let rows = sqlx::query("SELECT id, name FROM users WHERE disabled = 0")
        .fetch_all(&mut *connection)
        .await?;
    for row in rows {
        let reacher = Reacher { name: row.text("name")?, ..Reacher::default() };
        users.insert(row.parsed("id")?, reacher);
    }
    let rows = sqlx::query("SELECT user_id, group_id FROM group_members ORDER BY group_id")
        .fetch_all(&mut *connection)
        .await?;
    for row in rows {
        if let Some(user) = users.get_mut(&row.parsed("user_id")?) {
            user.groups.push(row.parsed("group_id")?);
        }
    }
    let rows = sqlx::query("SELECT user_id, id FROM devices ORDER BY id")
        .fetch_all(&mut *connection)
        .await?;
    for row in rows {
        if let Some(user) = users.get_mut(&row.parsed("user_id")?) {
            user.devices.push(row.parsed("id")?);
        }
    }
    Ok(users)
}
