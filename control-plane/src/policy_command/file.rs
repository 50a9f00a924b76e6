//! The file: a policy set and the version it was made from.
//!
//! YAML is read by `serde-saphyr`: it is written in Rust without `unsafe`, bounds what aliases may
//! expand to, and is kept up, as `serde_yaml` no longer is. YAML becomes the same tree as JSON does,
//! so both are held to the same types and get the same errors.

use std::{fs, path::Path};

use adit_proto::api::{PolicyEntry, PolicySet, PolicyTestEntry};
use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Yaml,
    Json,
}

impl Format {
    /// What the name of a file ends with.
    pub(super) fn of(path: &Path) -> anyhow::Result<Self> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("yaml" | "yml") => Ok(Self::Yaml),
            Some("json") => Ok(Self::Json),
            Some(_) | None => {
                bail!("expected a name that ends in .yaml, .yml or .json: {}", path.display())
            }
        }
    }
}

/// A policy set in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PolicyFile {
    /// The version that it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) base: Option<u64>,
    policies: Vec<PolicyEntry>,
    #[serde(default)]
    tests: Vec<PolicyTestEntry>,
}

impl PolicyFile {
    pub(super) fn new(set: PolicySet, base: u64) -> Self {
        Self { base: Some(base), policies: set.policies, tests: set.tests }
    }

    pub(super) fn into_set(self) -> PolicySet {
        PolicySet { policies: self.policies, tests: self.tests }
    }

    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let format = Format::of(path)?;
        let shown = path.display();
        let text = fs::read_to_string(path).with_context(|| format!("failed to read {shown}"))?;
        Self::parse(&text, format).with_context(|| format!("{shown} is no policy file"))
    }

    fn parse(text: &str, format: Format) -> anyhow::Result<Self> {
        let tree: Value = match format {
            Format::Yaml => serde_saphyr::from_str(text)?,
            Format::Json => serde_json::from_str(text)?,
        };
        serde_path_to_error::deserialize(tree)
            .map_err(|error| anyhow::anyhow!("{} at {}", error.inner(), error.path()))
    }

    pub(super) fn to_text(&self, format: Format) -> anyhow::Result<String> {
        match format {
            Format::Yaml => serde_saphyr::to_string(self).context("failed to write YAML"),
            Format::Json => {
                let text = serde_json::to_string_pretty(self).context("failed to write JSON")?;
                Ok(format!("{text}\n"))
            }
        }
    }
}

/// Writes another version into a file that has one, and leaves comments and all else alone.
pub(super) fn set_base(path: &Path, base: u64) -> anyhow::Result<()> {
    let text = fs::read_to_string(path)?;
    let changed = match Format::of(path)? {
        Format::Yaml => with_base(&text, "base:", base),
        Format::Json => with_base(&text, "\"base\":", base),
    };
    if changed != text {
        fs::write(path, changed)?;
    }
    Ok(())
}

/// Replaces the number behind the first line that begins with `key`.
fn with_base(text: &str, key: &str, base: u64) -> String {
    let mut found = false;
    let lines = text.split_inclusive('\n').map(|line| {
        let Some((indent, rest)) =
            line.split_once(key).filter(|(indent, _)| indent.trim().is_empty())
        else {
            return line.to_owned();
        };
        if std::mem::replace(&mut found, true) {
            return line.to_owned();
        }
        let after = rest.trim_start().trim_start_matches(|it: char| it.is_ascii_digit());
        format!("{indent}{key} {base}{after}")
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const YAML: &str = r#"
# Who works on what.
base: 7 # kept by `apply`
policies:
  - name: crew to db
    effect: permit
    subjects:
      groups: [crew]
      users: ["no", ada]   # quoted
    resources:
      tags: [db]
    conditions:
      authenticated_within_s: 3600
tests:
  - name: eve stays out
    subject: {user: eve}
    target:
      flow: {destination: 10.9.0.2, port: 5432, protocol: tcp}
    facts: {time: 2026-03-01T12:00:00Z}
    expect: deny
"#;

    fn parse(text: &str, format: Format) -> PolicyFile {
        PolicyFile::parse(text, format).unwrap()
    }

    #[test]
    fn yaml_with_comments_is_what_json_says() {
        let json = json!({
            "base": 7,
            "policies": [{
                "name": "crew to db", "effect": "permit",
                "subjects": { "groups": ["crew"], "users": ["no", "ada"] },
                "resources": { "tags": ["db"] },
                "conditions": { "authenticated_within_s": 3600 },
            }],
            "tests": [{
                "name": "eve stays out", "subject": { "user": "eve" },
                "target": {
                    "flow": { "destination": "10.9.0.2", "port": 5432, "protocol": "tcp" },
                },
                "facts": { "time": "2026-03-01T12:00:00Z" }, "expect": "deny",
            }],
        });
        assert_eq!(parse(YAML, Format::Yaml), parse(&json.to_string(), Format::Json));
    }

    #[test]
    fn what_was_written_is_read_again_in_both_formats() {
        let mut file = parse(YAML, Format::Yaml);
        for name in ["yes", "1e3", "~", "# no comment", "a: b", "- x", "\"", "né", "2026-01-01"] {
            file.policies[0].name = name.to_owned();
            file.policies[0].subjects.users = vec![name.to_owned()];
            for format in [Format::Yaml, Format::Json] {
                let text = file.to_text(format).unwrap();
                assert_eq!(parse(&text, format), file, "{text}");
            }
        }
    }

    #[test]
    fn defaults_are_not_written() {
        let text = parse(YAML, Format::Yaml).to_text(Format::Yaml).unwrap();
        for word in ["everyone", "disabled", "devices", "posture", "source_networks", "null", "[]"]
        {
            assert!(!text.contains(word), "{word} in {text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_by_its_place() {
        let wrong = YAML.replace("groups: [crew]", "gruops: [crew]");
        let error = format!("{:#}", PolicyFile::parse(&wrong, Format::Yaml).unwrap_err());
        assert!(error.contains("gruops") && error.contains("policies[0].subjects"), "{error}");
        assert!(PolicyFile::parse("policies: [", Format::Yaml).is_err());
        assert!(PolicyFile::parse("{", Format::Json).is_err());
    }

    #[test]
    fn the_base_is_replaced_where_it_stands_and_nothing_else() {
        let changed = with_base(YAML, "base:", 12);
        assert_eq!(changed, YAML.replace("base: 7", "base: 12"));
        let json = parse(YAML, Format::Yaml).to_text(Format::Json).unwrap();
        let changed = with_base(&json, "\"base\":", 12);
        assert_eq!(parse(&changed, Format::Json).base, Some(12));
        assert_eq!(with_base("policies: []\n", "base:", 12), "policies: []\n");
    }
}
