use std::{collections::BTreeMap, io};

use adit_tests::{ApiAnswer, ApiConnection, Random};
use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};

use super::{audit_chain::AuditChain, server::Running};

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    User,
    Group,
    Policy,
}

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::User, Self::Group, Self::Policy];

    pub(super) const fn path(self) -> &'static str {
        match self {
            Self::User => "/v1/users",
            Self::Group => "/v1/groups",
            Self::Policy => "/v1/policies",
        }
    }

    const fn operation_prefix(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Group => "group",
            Self::Policy => "policy",
        }
    }

    fn body(self, name: &str) -> Value {
        match self {
            Self::User => json!({ "name": name }),
            Self::Group => json!({ "name": name }),
            Self::Policy => json!({
                "name": name,
                "effect": "permit",
                "subjects": { "everyone": true },
                "resources": { "all": true },
            }),
        }
    }
}

/// One connection's worth of writes, and what the control plane has acknowledged of them.
pub(super) struct Writer {
    number: usize,
    random: Random,
    /// Makes names unique.
    next: u64,
    objects: BTreeMap<String, Object>,
    /// The write whose answer did not come.
    pending: Option<Write>,
    /// How often an operation on an object was acknowledged.
    acknowledged: BTreeMap<(String, String), u64>,
}

struct Object {
    kind: Kind,
    name: String,
    etag: String,
}

#[derive(Debug, Clone)]
enum Write {
    Create { kind: Kind, name: String },
    Replace { id: String, name: String },
    Delete { id: String },
}

/// Objects a writer keeps; above that it deletes.
const MAX_OBJECTS: usize = 60;

/// A policy is for all that there are to read, so there are few.
const MAX_POLICIES: usize = 10;

impl Writer {
    pub(super) fn new(number: usize, random: Random) -> Self {
        Self {
            number,
            random,
            next: 0,
            objects: BTreeMap::new(),
            pending: None,
            acknowledged: BTreeMap::new(),
        }
    }

    /// How many writes were acknowledged.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged.values().sum()
    }

    /// Ids and names of what must be there.
    pub(super) fn objects(&self, kind: Kind) -> BTreeMap<String, String> {
        self.objects
            .iter()
            .filter(|(_, object)| object.kind == kind)
            .map(|(id, object)| (id.clone(), object.name.clone()))
            .collect()
    }

    /// Compares what was acknowledged with the audit log, which may hold one more of each: a write
    /// whose answer was lost.
    pub(super) fn compare_with(&self, chain: &AuditChain) -> anyhow::Result<()> {
        for ((operation, id), count) in &self.acknowledged {
            let logged = chain.count(operation, id);
            ensure!(
                logged >= *count,
                "{operation} of {id} was acknowledged {count} times and logged {logged} times"
            );
        }

        Ok(())
    }

    /// Writes until the connection breaks.
    pub(super) fn write_until_cut(&mut self, running: &Running) -> anyhow::Result<()> {
        // The control plane may be gone already.
        let Ok(mut api) = running.connect() else { return Ok(()) };
        loop {
            if self.pending.is_none() {
                self.pending = Some(self.choose());
            }
            match self.attempt(&mut api) {
                Ok(()) => {}
                Err(error) if error.is::<io::Error>() => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Finds out what became of the last write.
    pub(super) fn settle(&mut self, api: &mut ApiConnection) -> anyhow::Result<()> {
        if self.pending.is_some() {
            self.attempt(api)?;
        }

        Ok(())
    }

    fn choose(&mut self) -> Write {
        let id = self.random_id();
        match (self.random.below(10), id) {
            (0..5, Some(id)) => Write::Replace { id, name: self.name() },
            (5, Some(id)) => Write::Delete { id },
            (_, Some(id)) if self.objects.len() >= MAX_OBJECTS => Write::Delete { id },
            _ => {
                let policies = self.objects.values().filter(|it| it.kind == Kind::Policy).count();
                let kinds = if policies < MAX_POLICIES { 3 } else { 2 };
                let kind = Kind::ALL[self.random.below(kinds)];
                Write::Create { kind, name: self.name() }
            }
        }
    }

    fn random_id(&mut self) -> Option<String> {
        if self.objects.is_empty() {
            return None;
        }
        let place = self.random.below(self.objects.len());
        self.objects.keys().nth(place).cloned()
    }

    fn name(&mut self) -> String {
        self.next += 1;
        format!("w{}-{}", self.number, self.next)
    }

    /// Does the pending write, which may have been done before.
    fn attempt(&mut self, api: &mut ApiConnection) -> anyhow::Result<()> {
        let Some(write) = self.pending.clone() else { return Ok(()) };
        match &write {
            Write::Create { kind, name } => {
                // Repeated, the control plane gives the answer that was lost.
                let key = format!("Idempotency-Key: {name}");
                let answer = api.request("POST", kind.path(), &[&key], Some(&kind.body(name)))?;
                ensure!(answer.status == 201, "{write:?}: {answer:?}");
                let id = answer.body["id"].as_str().context("no id")?.to_owned();
                let object = Object { kind: *kind, name: name.clone(), etag: etag(&answer)? };
                self.acknowledge(*kind, "create", &id);
                self.objects.insert(id, object);
            }
            Write::Replace { id, name } => {
                let object = self.objects.get_mut(id).context("it is not there")?;
                let path = format!("{}/{id}", object.kind.path());
                let if_match = format!("If-Match: {}", object.etag);
                let body = object.kind.body(name);
                let mut answer = api.request("PUT", &path, &[&if_match], Some(&body))?;
                let is_new = answer.status == 200;
                if answer.status == 412 {
                    // It was done before, and the answer lost.
                    answer = api.request("GET", &path, &[], None)?;
                }
                ensure!(answer.status == 200, "{write:?}: {answer:?}");
                ensure!(answer.body["name"] == name.as_str(), "{write:?}: {answer:?}");
                object.name.clone_from(name);
                object.etag = etag(&answer)?;
                let kind = object.kind;
                if is_new {
                    self.acknowledge(kind, "replace", id);
                }
            }
            Write::Delete { id } => {
                let object = self.objects.get(id).context("it is not there")?;
                let path = format!("{}/{id}", object.kind.path());
                let if_match = format!("If-Match: {}", object.etag);
                let answer = api.request("DELETE", &path, &[&if_match], None)?;
                let kind = object.kind;
                match answer.status {
                    204 => self.acknowledge(kind, "delete", id),
                    // It was done before, and the answer lost.
                    404 => {}
                    _ => bail!("{write:?}: {answer:?}"),
                }
                self.objects.remove(id);
            }
        }
        self.pending = None;

        Ok(())
    }

    fn acknowledge(&mut self, kind: Kind, verb: &str, id: &str) {
        let operation = format!("{}.{verb}", kind.operation_prefix());
        *self.acknowledged.entry((operation, id.to_owned())).or_default() += 1;
    }
}

fn etag(answer: &ApiAnswer) -> anyhow::Result<String> {
    answer.etag.clone().with_context(|| format!("no ETag: {answer:?}"))
}
