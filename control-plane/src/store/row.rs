//! Columns of a row as the contract's own values.

use std::str::FromStr;

use adit_proto::Timestamp;
use serde::{Serialize, de::DeserializeOwned};
use sqlx::{Row as _, sqlite::SqliteRow};

use super::StoreError;

/// Reads columns; a value that does not parse is [`StoreError::Corrupt`].
pub(crate) trait RowExt {
    /// Text that parses: ids, keys, addresses.
    fn parsed<T: FromStr>(&self, column: &'static str) -> Result<T, StoreError>;
    /// Text that parses, or null.
    fn parsed_option<T: FromStr>(&self, column: &'static str) -> Result<Option<T>, StoreError>;
    /// JSON in a text column.
    fn json<T: DeserializeOwned>(&self, column: &'static str) -> Result<T, StoreError>;
    /// JSON in a text column, or null.
    fn json_option<T: DeserializeOwned>(
        &self,
        column: &'static str,
    ) -> Result<Option<T>, StoreError>;
    /// A word that an enum of the contract serialises to.
    fn word<T: DeserializeOwned>(&self, column: &'static str) -> Result<T, StoreError>;
    /// Plain text.
    fn text(&self, column: &'static str) -> Result<String, StoreError>;
    /// Plain text, or null.
    fn text_option(&self, column: &'static str) -> Result<Option<String>, StoreError>;
    /// 0 or 1.
    fn flag(&self, column: &'static str) -> Result<bool, StoreError>;
    /// A number that is never negative.
    fn unsigned(&self, column: &'static str) -> Result<u64, StoreError>;
    /// A number that is never negative, or null.
    fn unsigned_option(&self, column: &'static str) -> Result<Option<u64>, StoreError>;
    /// Milliseconds since the epoch.
    fn time(&self, column: &'static str) -> Result<Timestamp, StoreError>;
    /// Milliseconds since the epoch, or null.
    fn time_option(&self, column: &'static str) -> Result<Option<Timestamp>, StoreError>;
}

impl RowExt for SqliteRow {
    fn parsed<T: FromStr>(&self, column: &'static str) -> Result<T, StoreError> {
        self.try_get::<&str, _>(column)?.parse().map_err(|_error| StoreError::Corrupt { column })
    }

    fn parsed_option<T: FromStr>(&self, column: &'static str) -> Result<Option<T>, StoreError> {
        self.try_get::<Option<&str>, _>(column)?
            .map(|text| text.parse().map_err(|_error| StoreError::Corrupt { column }))
            .transpose()
    }

    fn json<T: DeserializeOwned>(&self, column: &'static str) -> Result<T, StoreError> {
        serde_json::from_str(self.try_get::<&str, _>(column)?)
            .map_err(|_error| StoreError::Corrupt { column })
    }

    fn json_option<T: DeserializeOwned>(
        &self,
        column: &'static str,
    ) -> Result<Option<T>, StoreError> {
        self.try_get::<Option<&str>, _>(column)?
            .map(|text| serde_json::from_str(text).map_err(|_error| StoreError::Corrupt { column }))
            .transpose()
    }

    fn word<T: DeserializeOwned>(&self, column: &'static str) -> Result<T, StoreError> {
        serde_json::from_value(self.try_get::<String, _>(column)?.into())
            .map_err(|_error| StoreError::Corrupt { column })
    }

    fn text(&self, column: &'static str) -> Result<String, StoreError> {
        Ok(self.try_get(column)?)
    }

    fn text_option(&self, column: &'static str) -> Result<Option<String>, StoreError> {
        Ok(self.try_get(column)?)
    }

    fn flag(&self, column: &'static str) -> Result<bool, StoreError> {
        Ok(self.try_get(column)?)
    }

    fn unsigned(&self, column: &'static str) -> Result<u64, StoreError> {
        self.try_get::<i64, _>(column)?.try_into().map_err(|_error| StoreError::Corrupt { column })
    }

    fn unsigned_option(&self, column: &'static str) -> Result<Option<u64>, StoreError> {
        let number: Option<i64> = self.try_get(column)?;
        number
            .map(|number| number.try_into().map_err(|_error| StoreError::Corrupt { column }))
            .transpose()
    }

    fn time(&self, column: &'static str) -> Result<Timestamp, StoreError> {
        Ok(Timestamp::from_millis(self.try_get(column)?))
    }

    fn time_option(&self, column: &'static str) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.try_get::<Option<i64>, _>(column)?.map(Timestamp::from_millis))
    }
}

/// JSON for a text column.
pub(crate) fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("types of the contract are representable in JSON")
}

/// The word that an enum of the contract serialises to.
pub(crate) fn to_word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        other => unreachable!("an enum without members is a word in JSON, not {other:?}"),
    }
}

/// A number for a column. SQLite's are signed; ours never come near their end.
pub(crate) fn to_integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
