//! Questions to connectors, by `adit explain`.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use adit_proto::{ClientConfig, PolicyId, Reason, ResourceId, Verdict};
use tokio::sync::oneshot;

use crate::{
    daemon::sites::AttemptId,
    ipc::{Explanation, Failure, FailureCode, Response},
};

/// How long a connector may think.
const PATIENCE: Duration = Duration::from_secs(5);

/// Questions under way; further ones are refused.
const CAPACITY: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Questions {
    pending: BTreeMap<u64, Question>,
    next_id: u64,
}

#[derive(Debug)]
struct Question {
    attempt: AttemptId,
    /// The answer as far as it is known.
    explanation: Explanation,
    reply: oneshot::Sender<Response>,
    deadline: Instant,
}

/// What a connector answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) verdict: Verdict,
    pub(super) reason: Reason,
    pub(super) resource_id: Option<ResourceId>,
    pub(super) policy_id: Option<PolicyId>,
    pub(super) policy_name: Option<String>,
}

impl Questions {
    /// Notes a question; returns its id, or answers that there are too many.
    pub(super) fn insert(
        &mut self,
        attempt: AttemptId,
        explanation: Explanation,
        reply: oneshot::Sender<Response>,
        now: Instant,
    ) -> Option<u64> {
        if self.pending.len() >= CAPACITY {
            let failure = Failure::new(
                FailureCode::Busy,
                "too many ask the connectors at once",
                "try again in a moment",
            );
            let _ = reply.send(Response::Failure(failure));
            return None;
        }
        let id = self.next_id;
        self.next_id += 1;
        let question = Question { attempt, explanation, reply, deadline: now + PATIENCE };
        self.pending.insert(id, question);
        Some(id)
    }

    pub(super) fn handle_answer(
        &mut self,
        attempt: AttemptId,
        request_id: u64,
        answer: Answer,
        config: Option<&ClientConfig>,
    ) {
        // A connector answers its own questions only.
        if self.pending.get(&request_id).is_none_or(|question| question.attempt != attempt) {
            return;
        }
        let Some(Question { explanation, reply, .. }) = self.pending.remove(&request_id) else {
            return;
        };
        let resource_id = answer.resource_id.or(explanation.resource_id);
        let resources = config.map(|config| config.resources.as_slice()).unwrap_or_default();
        let resource_name = resources
            .iter()
            .find(|resource| Some(resource.id) == resource_id)
            .map(|resource| resource.name.clone());
        let explanation = Explanation {
            allowed: answer.verdict == Verdict::Allow,
            reason: answer.reason,
            remedy: answer.reason.remedy().to_owned(),
            resource_id,
            resource_name,
            policy_id: answer.policy_id,
            policy_name: answer.policy_name,
            ..explanation
        };
        let _ = reply.send(Response::Explanation(Box::new(explanation)));
    }

    pub(super) fn handle_session_ended(&mut self, attempt: AttemptId) {
        self.fail(|question| question.attempt == attempt, "the connector went away");
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.fail(|question| question.deadline <= now, "the connector does not answer");
    }

    pub(super) fn clear(&mut self) {
        self.fail(|_| true, "the tunnel was taken down");
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.pending.values().map(|question| question.deadline).min()
    }

    fn fail(&mut self, which: impl Fn(&Question) -> bool, why: &str) {
        let ids: Vec<u64> = self
            .pending
            .iter()
            .filter(|(_, question)| which(question))
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            if let Some(question) = self.pending.remove(&id) {
                let failure = Failure::new(FailureCode::ConnectorUnavailable, why, "adit status");
                let _ = question.reply.send(Response::Failure(failure));
            }
        }
    }
}
