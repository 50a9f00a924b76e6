//! The evaluator of the newest policies and resources.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use adit_policy::Evaluator;

/// The evaluator of one sequence, since compiling one is dear.
#[derive(Debug, Default)]
pub(crate) struct EvaluatorCache {
    newest: Mutex<Option<(u64, Arc<Evaluator>)>>,
}

impl EvaluatorCache {
    /// The evaluator of exactly this sequence.
    pub(crate) fn find(&self, sequence: u64) -> Option<Arc<Evaluator>> {
        let newest = self.lock();
        let (held, evaluator) = newest.as_ref()?;
        (*held == sequence).then(|| Arc::clone(evaluator))
    }

    pub(crate) fn insert(&self, sequence: u64, evaluator: Arc<Evaluator>) {
        let mut newest = self.lock();
        if newest.as_ref().is_none_or(|(held, _evaluator)| *held < sequence) {
            *newest = Some((sequence, evaluator));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<(u64, Arc<Evaluator>)>> {
        // No holder can panic half way through a change.
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
