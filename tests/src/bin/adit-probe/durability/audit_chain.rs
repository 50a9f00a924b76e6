use std::collections::BTreeMap;

use adit_proto::sha256_base64url;
use adit_tests::ApiConnection;
use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

/// The audit log, as far as it was read and found whole.
#[derive(Default)]
pub(super) struct AuditChain {
    /// Hash of each event, oldest first.
    hashes: Vec<String>,
    /// How often each operation was done to each object.
    changes: BTreeMap<(String, String), u64>,
}

impl AuditChain {
    pub(super) fn len(&self) -> usize {
        self.hashes.len()
    }

    /// How often an operation was done to an object.
    pub(super) fn count(&self, operation: &str, object_id: &str) -> u64 {
        let key = (operation.to_owned(), object_id.to_owned());
        self.changes.get(&key).copied().unwrap_or_default()
    }

    /// Reads the events that are new and checks that each follows from the one before.
    pub(super) fn follow(&mut self, api: &mut ApiConnection) -> anyhow::Result<()> {
        let mut fresh: Vec<Value> = Vec::new();
        let mut path = "/v1/audit-events?limit=200".to_owned();
        let known = self.hashes.len() as u64;
        loop {
            let page = api.request("GET", &path, &[], None)?.body;
            let items = page["items"].as_array().context("not a list of events")?;
            let (mut reached, mut joined) = (items.is_empty(), false);
            for event in items {
                let sequence = event["sequence"].as_u64().context("no sequence")?;
                if sequence <= known {
                    let held = self.hashes.get(usize::try_from(sequence)?.saturating_sub(1));
                    ensure!(
                        held.map(String::as_str) == event["hash"].as_str(),
                        "event {sequence} was changed"
                    );
                    (reached, joined) = (true, true);
                    break;
                }
                fresh.push(event.clone());
            }
            let next = page["next_cursor"].as_str();
            let Some(next) = next.filter(|_| !reached) else {
                ensure!(joined || known == 0, "the events that were read are gone");
                break;
            };
            path = format!("/v1/audit-events?limit=200&cursor={next}");
        }
        for event in fresh.iter().rev() {
            self.append(event)?;
        }

        Ok(())
    }

    fn append(&mut self, event: &Value) -> anyhow::Result<()> {
        let sequence = event["sequence"].as_u64().context("no sequence")?;
        ensure!(
            sequence == self.hashes.len() as u64 + 1,
            "event {sequence} follows {}",
            self.hashes.len()
        );
        let previous = self.hashes.last().map_or("", String::as_str);
        let content = json!([
            event["sequence"],
            event["at"],
            event["actor"],
            event["operation"],
            event["object_id"],
            alphabetical(&event["object"]),
        ]);
        let hash = sha256_base64url(format!("{previous}\n{content}").as_bytes());
        ensure!(event["hash"] == hash.as_str(), "event {sequence} breaks the chain: {event}");
        self.hashes.push(hash);
        let text = |member: &str| event[member].as_str().unwrap_or_default().to_owned();
        *self.changes.entry((text("operation"), text("object_id"))).or_default() += 1;

        Ok(())
    }
}

/// The same value with the members of its objects in alphabetical order.
fn alphabetical(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let sorted: BTreeMap<_, _> =
                members.iter().map(|(name, member)| (name.clone(), alphabetical(member))).collect();
            sorted.into_iter().collect()
        }
        Value::Array(items) => items.iter().map(alphabetical).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}
