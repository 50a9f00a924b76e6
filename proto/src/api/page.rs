//! Cursor pagination.

use serde::{Deserialize, Serialize};

/// One page of a list, and how to ask for the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Page<T> {
    /// The objects, oldest first unless the list says otherwise.
    pub items: Vec<T>,
    /// Passed back as `cursor` for the next page; absent on the last.
    pub next_cursor: Option<String>,
}
