//! Why a request is refused.

use adit_proto::api::{FailedPolicyTest, ProblemCode, Scope};

use crate::store::StoreError;

/// A refusal: what the caller is told, and what only the log is told.
#[derive(Debug)]
pub(crate) struct ApiError {
    pub(crate) code: ProblemCode,
    /// One sentence for people: what is wrong and what to do next.
    pub(crate) detail: String,
    /// The member of the body or query that is wrong.
    pub(crate) field: Option<String>,
    /// What the caller would have to be allowed.
    pub(crate) needed: Option<Scope>,
    /// The policy tests that would not hold.
    pub(crate) failed_tests: Vec<FailedPolicyTest>,
    /// What the log says and the caller does not learn.
    pub(crate) source: Option<anyhow::Error>,
}

impl ApiError {
    pub(crate) fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            field: None,
            needed: None,
            failed_tests: Vec::new(),
            source: None,
        }
    }

    /// There is none, or none that the caller may know of.
    pub(crate) fn not_found() -> Self {
        Self::new(ProblemCode::NotFound, "There is no such object; check the id and the path.")
    }

    /// A member has a value that cannot be. `field` is a JSON pointer or the name of a parameter.
    pub(crate) fn invalid(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { field: Some(field.into()), ..Self::new(ProblemCode::Invalid, detail) }
    }

    /// It contradicts what exists.
    pub(crate) fn conflict(detail: impl Into<String>) -> Self {
        Self::new(ProblemCode::Conflict, detail)
    }

    /// It would break policy tests, of which the caller is told the first.
    pub(crate) fn policy_tests_failed(mut failed_tests: Vec<FailedPolicyTest>) -> Self {
        const MOST: usize = 20;

        let count = failed_tests.len();
        failed_tests.truncate(MOST);
        let names: Vec<_> = failed_tests.iter().map(|test| format!("`{}`", test.name)).collect();
        let detail = format!(
            "{count} policy tests would not hold ({}{}); change what is written, or the tests with \
             it.",
            names.join(", "),
            if count > MOST { ", …" } else { "" },
        );
        Self { failed_tests, ..Self::new(ProblemCode::PolicyTestsFailed, detail) }
    }

    /// As it is, of a part of a larger body: `place` is the JSON pointer to the part.
    #[must_use]
    pub(crate) fn within(mut self, place: &str) -> Self {
        self.field = self.field.map(|field| format!("{place}{field}"));
        self
    }

    /// Our fault.
    pub(crate) fn internal(source: impl Into<anyhow::Error>) -> Self {
        let detail = "The control plane failed; its log says why.";
        Self { source: Some(source.into()), ..Self::new(ProblemCode::Internal, detail) }
    }

    /// Authenticated, but not allowed what `needed` says.
    pub(crate) fn lacks(needed: Scope) -> Self {
        let detail = format!(
            "This needs the scope `{needed}`, which your API token has not; use one whose role \
             and scopes include it."
        );
        Self { needed: Some(needed), ..Self::new(ProblemCode::NotAllowed, detail) }
    }

    pub(crate) fn not_authenticated() -> Self {
        Self::new(
            ProblemCode::NotAuthenticated,
            "Send a valid API token as `Authorization: Bearer adit_pat_…`.",
        )
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let (code, detail) = match &error {
            StoreError::Unique => {
                (ProblemCode::Conflict, "Another object has this name or key already.")
            }
            StoreError::Reference => {
                (ProblemCode::Conflict, "Other objects depend on this one; remove them first.")
            }
            StoreError::IdempotencyRace => (
                ProblemCode::Conflict,
                "A request with this Idempotency-Key is under way; repeat it in a second.",
            ),
            StoreError::Full => (
                ProblemCode::StorageFull,
                "The control plane's disk is full; nothing was changed. Make room and repeat.",
            ),
            StoreError::Busy => {
                (ProblemCode::Unavailable, "The control plane is busy; repeat in a second.")
            }
            StoreError::Unusable(_) | StoreError::Damaged(_) => (
                ProblemCode::Unavailable,
                "The control plane cannot use its database; its log says why.",
            ),
            StoreError::Database(_) | StoreError::Corrupt { .. } => return Self::internal(error),
        };
        let source = match error {
            StoreError::Full
            | StoreError::Busy
            | StoreError::Unusable(_)
            | StoreError::Damaged(_) => Some(error.into()),
            StoreError::Unique
            | StoreError::Reference
            | StoreError::IdempotencyRace
            | StoreError::Database(_)
            | StoreError::Corrupt { .. } => None,
        };
        Self { source, ..Self::new(code, detail) }
    }
}
