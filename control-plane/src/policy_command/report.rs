//! Changes of policies as people read them.

use std::fmt::Write as _;

use adit_proto::api::{
    Access, AccessDifference, FailedPolicyTest, PolicySetChange, PolicyTestRun, SetChanges,
};

/// How many lines of the difference in access are shown.
const MAX_LINES: usize = 50;

pub(super) fn change(change: &PolicySetChange) -> String {
    let mut text = set_changes("Policies", &change.policies);
    text += &set_changes("Policy tests", &change.tests);
    if let Some(dry_run) = &change.dry_run {
        text += &access(&dry_run.difference);
        text += &tests(&dry_run.tests);
    }
    let _ = writeln!(text, "Version: {}", change.version);
    text
}

pub(super) fn tests(run: &PolicyTestRun) -> String {
    let failed = run.failed.len();
    let mut text = format!("Tests: {} run, {failed} failed\n", run.run);
    for test in &run.failed {
        let _ = writeln!(text, "  ! {}", failed_test(test));
    }
    text
}

/// One test that does not hold, and why.
pub(super) fn failed_test(test: &FailedPolicyTest) -> String {
    let FailedPolicyTest { name, explanation, .. } = test;
    let is = if explanation.allowed { "allowed" } else { "denied" };
    let deciding = explanation.trace.iter().find(|it| Some(it.policy_id) == explanation.policy_id);
    let policy = deciding.map(|it| format!(" by `{}`", it.name)).unwrap_or_default();
    format!("{name}: {is}{policy}, {}", explanation.reason)
}

fn set_changes(what: &str, changes: &SetChanges) -> String {
    let SetChanges { created, changed, deleted } = changes;
    if changes.is_empty() {
        return format!("{what}: no changes\n");
    }
    let (new, other, gone) = (created.len(), changed.len(), deleted.len());
    let mut text = format!("{what}: {new} created, {other} changed, {gone} deleted\n");
    for (sign, names) in [('+', created), ('~', changed), ('-', deleted)] {
        for name in names {
            let _ = writeln!(text, "  {sign} {name}");
        }
    }
    text
}

fn access(difference: &AccessDifference) -> String {
    if difference.is_empty() {
        return "Access: no changes\n".to_owned();
    }
    let AccessDifference { gained, lost, conditions_changed, users, resources, changes, .. } =
        difference;
    let mut text = format!(
        "Access: {gained} gained, {lost} lost, {conditions_changed} under other conditions \
         ({users} users, {resources} resources)\n"
    );
    let shown = changes.get(..MAX_LINES).unwrap_or(changes);
    let user = |change: &adit_proto::api::AccessChange| match change.device_id {
        Some(device_id) => format!("{} ({device_id})", change.user_name),
        None => change.user_name.clone(),
    };
    let width = shown.iter().map(|change| user(change).chars().count()).max().unwrap_or_default();
    let resource_width =
        shown.iter().map(|change| change.resource_name.chars().count()).max().unwrap_or_default();
    for change in shown {
        let sign = match (change.before, change.after) {
            (Access::None, _) => '+',
            (_, Access::None) => '-',
            (_, _) => '~',
        };
        let _ = writeln!(
            text,
            "  {sign} {:width$}  {:resource_width$}  {} -> {}",
            user(change),
            change.resource_name,
            word(change.before),
            word(change.after),
        );
    }
    let all = gained + lost + conditions_changed;
    let more = all.saturating_sub(shown.len() as u64);
    if more > 0 {
        let _ = writeln!(text, "  … and {more} more");
    }
    text
}

const fn word(access: Access) -> &'static str {
    match access {
        Access::None => "none",
        Access::Conditional => "conditional",
        Access::Always => "always",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_plan_is_a_table() {
        let id = |kind: &str| format!("{kind}_0193f0a2b7c87d34a1e2c3d4e5f60718");
        let plan: PolicySetChange = serde_json::from_value(json!({
            "version": 7,
            "policies": { "created": ["new"], "changed": [], "deleted": ["old"] },
            "tests": { "created": [], "changed": [], "deleted": [] },
            "dry_run": {
                "difference": {
                    "gained": 1, "lost": 60, "conditions_changed": 0, "users": 2, "resources": 9,
                    "changes": [
                        {
                            "user_id": id("usr"), "user_name": "ada", "resource_id": id("res"),
                            "resource_name": "web", "before": "none", "after": "always",
                        },
                        {
                            "user_id": id("usr"), "user_name": "eve", "device_id": id("dev"),
                            "resource_id": id("res"), "resource_name": "database",
                            "before": "conditional", "after": "none",
                        },
                    ],
                    "truncated": true,
                },
                "tests": { "run": 3, "failed": [] },
            },
        }))
        .unwrap();
        let device = id("dev");
        let expected = format!(
            "Policies: 1 created, 0 changed, 1 deleted\n  + new\n  - old\n\
             Policy tests: no changes\n\
             Access: 1 gained, 60 lost, 0 under other conditions (2 users, 9 resources)\n  \
             + {:42}  web       none -> always\n  \
             - eve ({device})  database  conditional -> none\n  \
             … and 59 more\n\
             Tests: 3 run, 0 failed\nVersion: 7\n",
            "ada"
        );
        assert_eq!(change(&plan), expected);
    }
}
