//! Names for ids and ids for names, of what policies and their tests can name.

use std::{collections::HashMap, fmt::Display, str::FromStr};

use sqlx::SqliteConnection;

use crate::{
    error::ApiError,
    store::policies::{self, Named},
};

/// The names of one moment.
#[derive(Debug)]
pub(crate) struct Names {
    pub(crate) users: NamesOf,
    pub(crate) groups: NamesOf,
    pub(crate) devices: NamesOf,
    pub(crate) resources: NamesOf,
}

impl Names {
    pub(crate) async fn read(connection: &mut SqliteConnection) -> Result<Self, ApiError> {
        let mut read = async |named, kind| {
            Ok::<_, ApiError>(NamesOf::new(policies::names(&mut *connection, named).await?, kind))
        };
        Ok(Self {
            users: read(Named::Users, "user").await?,
            groups: read(Named::Groups, "group").await?,
            devices: read(Named::Devices, "device").await?,
            resources: read(Named::Resources, "resource").await?,
        })
    }
}

/// The names of one kind of objects.
#[derive(Debug)]
pub(crate) struct NamesOf {
    kind: &'static str,
    names: HashMap<String, String>,
    /// None where several have the same name.
    ids: HashMap<String, Option<String>>,
}

impl NamesOf {
    fn new(objects: Vec<(String, String)>, kind: &'static str) -> Self {
        let mut ids: HashMap<String, Option<String>> = HashMap::with_capacity(objects.len());
        for (id, name) in &objects {
            ids.entry(name.clone()).and_modify(|id| *id = None).or_insert(Some(id.clone()));
        }
        Self { kind, names: objects.into_iter().collect(), ids }
    }

    /// The name by which [`Self::id`] finds an object; its id when no name does.
    pub(crate) fn name<Id: Display + FromStr>(&self, id: &Id) -> String {
        let id = id.to_string();
        match self.names.get(&id) {
            Some(name)
                if name.parse::<Id>().is_err()
                    && self.ids.get(name).is_some_and(Option::is_some) =>
            {
                name.clone()
            }
            Some(_) | None => id,
        }
    }

    /// The object that a name or id stands for. `field` is where it is written.
    pub(crate) fn id<Id: FromStr>(
        &self,
        text: &str,
        field: impl FnOnce() -> String,
    ) -> Result<Id, ApiError> {
        let kind = self.kind;
        if let Ok(id) = text.parse()
            && self.names.contains_key(text)
        {
            return Ok(id);
        }
        match self.ids.get(text) {
            Some(Some(id)) => {
                id.parse().map_err(|_error| ApiError::internal(anyhow::anyhow!("{id} is no id")))
            }
            Some(None) => {
                let detail = format!("Several {kind}s have the name `{text}`; write the id.");
                Err(ApiError::invalid(field(), detail))
            }
            None => {
                let detail = format!("There is no {kind} `{text}`; check the name or id.");
                Err(ApiError::invalid(field(), detail))
            }
        }
    }
}
