//! What the daemon has changed on this machine and that would outlive it.
//!
//! The interface, its addresses and its routes vanish with the process. Routes over other
//! interfaces do not: each is written here before it is made and crossed out when it is gone.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{routing::Route, store::write_whole};

/// The journal on disk.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    routes: Vec<Route>,
}

impl Journal {
    /// Reads what an earlier daemon left behind. A journal that cannot be read is as good as none:
    /// each entry was written whole.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let routes = match fs::read(path) {
            Ok(json) => serde_json::from_slice(&json).unwrap_or_else(|error| {
                tracing::warn!(%error, path = %path.display(), "Journal is damaged");
                Vec::new()
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        Ok(Self { path: path.to_owned(), routes })
    }

    pub(crate) fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// To be called before the route is made.
    pub(crate) fn insert(&mut self, route: &Route) -> io::Result<()> {
        if self.routes.contains(route) {
            return Ok(());
        }
        self.routes.push(route.clone());
        let saved = self.save();
        if saved.is_err() {
            self.routes.pop();
        }
        saved
    }

    /// To be called when the route is gone.
    pub(crate) fn remove(&mut self, route: &Route) -> io::Result<()> {
        let before = self.routes.len();
        self.routes.retain(|held| held != route);
        if self.routes.len() == before {
            return Ok(());
        }
        self.save()
    }

    fn save(&self) -> io::Result<()> {
        if self.routes.is_empty() {
            return match fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                Ok(()) | Err(_) => Ok(()),
            };
        }
        let json = serde_json::to_vec(&self.routes)?;
        write_whole(&self.path, &json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(destination: &str) -> Route {
        Route {
            destination: destination.parse().unwrap(),
            gateway: Some("192.168.1.1".parse().unwrap()),
            interface: 2,
            metric: 0,
            source: None,
        }
    }

    #[test]
    fn a_crashed_daemon_leaves_its_routes_to_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal.json");
        let mut journal = Journal::open(&path).unwrap();
        journal.insert(&route("192.0.2.1/32")).unwrap();
        journal.insert(&route("192.0.2.2/32")).unwrap();
        journal.remove(&route("192.0.2.1/32")).unwrap();
        drop(journal);

        assert_eq!(Journal::open(&path).unwrap().routes(), [route("192.0.2.2/32")]);
    }

    #[test]
    fn an_empty_journal_is_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal.json");
        let mut journal = Journal::open(&path).unwrap();
        journal.insert(&route("192.0.2.1/32")).unwrap();
        assert!(path.exists());
        journal.remove(&route("192.0.2.1/32")).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_damaged_journal_does_not_stop_the_daemon() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal.json");
        fs::write(&path, "[{").unwrap();
        assert!(Journal::open(&path).unwrap().routes().is_empty());
    }
}
