//! From policies as people write them to Cedar.

use std::error::Error;
use std::sync::Arc;

use adit_proto::{
    PolicyId, ResourceId,
    api::{Conditions, Effect, Policy, ResourceSelector, SubjectSelector},
};
use cedar_policy::{
    PolicySet,
    pst::{
        ActionConstraint, BinaryOp, Clause, Expr, Literal, NonEmpty, PrincipalConstraint,
        PstConstructionError, ResourceConstraint, StaticPolicy, Template, UnaryOp, Var,
    },
};
use ipnet::IpNet;

use crate::{
    schema::{
        ACTION, AUTHENTICATED_AGE, AUTHENTICATION_METHODS, CONNECT, DEVICE, GROUP, NOW, POSTURE,
        RESOURCE, SOURCE, TAGS, THE_CLOCK, USER, canonical_network, network_literal, violation,
    },
    time_window::{CompiledWindow, Span},
};

/// Why policies and resources make no evaluator.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// Two policies have the same id.
    #[error("two policies have the id {policy_id}")]
    DuplicatePolicy {
        /// Which id.
        policy_id: PolicyId,
    },
    /// Two resources have the same id.
    #[error("two resources have the id {resource_id}")]
    DuplicateResource {
        /// Which id.
        resource_id: ResourceId,
    },
    /// A policy cannot be said in Cedar, or violates the schema.
    #[error("policy {policy_id} cannot be compiled")]
    Policy {
        /// Which policy.
        policy_id: PolicyId,
        /// What Cedar says.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A resource cannot be said in Cedar.
    #[error("resource {resource_id} cannot be compiled")]
    Resource {
        /// Which resource.
        resource_id: ResourceId,
        /// What Cedar says.
        source: Box<dyn Error + Send + Sync>,
    },
}

/// A policy and the Cedar policy made from it.
#[derive(Debug)]
pub(crate) struct CompiledPolicy {
    pub(crate) policy: Policy,
    /// Its networks as the members of them are compared.
    pub(crate) source_networks: Vec<IpNet>,
    pub(crate) time_windows: Vec<CompiledWindow>,
    /// Alone in a set, as Cedar is asked about it.
    pub(crate) cedar: PolicySet,
    /// The same without its long lists of names.
    short: Option<PolicySet>,
}

impl CompiledPolicy {
    fn try_new(policy: &Policy) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let Policy { effect, subjects, resources, conditions, .. } = policy;
        let cedar = |subjects, resources| -> Result<_, Box<dyn Error + Send + Sync>> {
            let cedar = to_cedar(&policy.id.to_string(), *effect, subjects, resources, conditions)?;
            Ok(PolicySet::from_policies([cedar])?)
        };
        let (short_subjects, short_resources) =
            (short_subjects(subjects), short_resources(resources));
        let short = match (&short_subjects, &short_resources) {
            (None, None) => None,
            (short_subjects, short_resources) => Some(cedar(
                short_subjects.as_ref().unwrap_or(subjects),
                short_resources.as_ref().unwrap_or(resources),
            )?),
        };
        Ok(Self { short, ..Self::with_cedar(policy.clone(), cedar(subjects, resources)?) })
    }

    /// A policy with a Cedar policy that need not be made from it.
    pub(crate) fn with_cedar(policy: Policy, cedar: PolicySet) -> Self {
        let networks = &policy.conditions.source_networks;
        let source_networks = networks.iter().map(|network| canonical_network(*network)).collect();
        let time_windows = policy.conditions.time_windows.iter().map(CompiledWindow::new).collect();
        Self { policy, source_networks, time_windows, cedar, short: None }
    }

    /// What Cedar is asked about a subject and a resource that the policy is known to name.
    pub(crate) fn cedar_for_named(&self) -> &PolicySet {
        self.short.as_ref().unwrap_or(&self.cedar)
    }
}

/// Cedar walks the whole of a list, at some 200 ns a name, to find what the index has found.
const LONG: usize = 16;

/// Everyone, in place of a long list.
fn short_subjects(subjects: &SubjectSelector) -> Option<SubjectSelector> {
    let SubjectSelector { everyone, users, groups, devices } = subjects;
    let is_long = !everyone && users.len() + groups.len() + devices.len() > LONG;
    is_long.then(|| SubjectSelector { everyone: true, ..SubjectSelector::default() })
}

/// Every resource, in place of a long list.
fn short_resources(resources: &ResourceSelector) -> Option<ResourceSelector> {
    let ResourceSelector { all, ids, tags } = resources;
    let is_long = !all && ids.len() + tags.len() > LONG;
    is_long.then(|| ResourceSelector { all: true, ..ResourceSelector::default() })
}

/// Compiles those `policies` that are not disabled, each under its own id.
pub(crate) fn compile(policies: &[Policy]) -> Result<Vec<CompiledPolicy>, CompileError> {
    let mut compiled = Vec::with_capacity(policies.len());
    let mut all = PolicySet::new();
    for policy in policies.iter().filter(|policy| !policy.disabled) {
        let failed = |source| CompileError::Policy { policy_id: policy.id, source };
        let one = CompiledPolicy::try_new(policy).map_err(failed)?;
        for cedar in one.cedar.policies() {
            if all.policy(cedar.id()).is_some() {
                return Err(CompileError::DuplicatePolicy { policy_id: policy.id });
            }
            all.add(cedar.clone()).map_err(|error| failed(error.into()))?;
        }
        compiled.push(one);
    }
    if let Some(violation) = violation(&all) {
        let concerned =
            compiled.iter().find(|policy| policy.cedar.policy(violation.policy_id()).is_some());
        return Err(CompileError::Policy {
            policy_id: concerned.expect("only these were validated").policy.id,
            source: violation.into(),
        });
    }
    Ok(compiled)
}

/// Says a policy in Cedar, as a syntax tree: no text of a person is ever parsed.
pub(crate) fn to_cedar(
    id: &str,
    effect: Effect,
    subjects: &SubjectSelector,
    resources: &ResourceSelector,
    conditions: &Conditions,
) -> Result<cedar_policy::Policy, PstConstructionError> {
    let clauses = [
        subject_clause(subjects),
        resource_clause(resources),
        expiry_clause(conditions),
        posture_clause(conditions),
        source_clause(effect, conditions),
        age_clause(effect, conditions),
        methods_clause(effect, conditions),
        window_clause(effect, conditions),
    ]
    .into_iter()
    .flatten()
    .map(|expression| Clause::When(Arc::new(expression)));
    let template = Template::new(
        id,
        match effect {
            Effect::Permit => cedar_policy::pst::Effect::Permit,
            Effect::Forbid => cedar_policy::pst::Effect::Forbid,
        },
        PrincipalConstraint::Any,
        ActionConstraint::Eq(ACTION.named(CONNECT)),
        ResourceConstraint::Any,
    )
    .try_with_clauses(clauses)?;
    cedar_policy::Policy::from_pst(StaticPolicy::try_from(template)?.into())
}

fn subject_clause(subjects: &SubjectSelector) -> Option<Expr> {
    if subjects.everyone {
        return None;
    }
    let users = subjects.users.iter().map(|id| USER.named(id)).collect();
    let groups = subjects.groups.iter().map(|id| GROUP.named(id)).collect();
    let devices = subjects.devices.iter().map(|id| DEVICE.named(id)).collect();
    Some(any([users, groups, devices].map(|named| is_in(Var::Principal, named))))
}

fn resource_clause(resources: &ResourceSelector) -> Option<Expr> {
    if resources.all {
        return None;
    }
    let ids = resources.ids.iter().map(|id| RESOURCE.named(id)).collect();
    let tagged = strings(&resources.tags)
        .map(|tags| binary(BinaryOp::ContainsAny, attribute(Var::Resource, TAGS), tags));
    Some(any([is_in(Var::Resource, ids), tagged]))
}

fn posture_clause(conditions: &Conditions) -> Option<Expr> {
    let labels = strings(&conditions.posture)?;
    Some(binary(BinaryOp::ContainsAll, attribute(Var::Context, POSTURE), labels))
}

fn source_clause(effect: Effect, conditions: &Conditions) -> Option<Expr> {
    if conditions.source_networks.is_empty() {
        return None;
    }
    let in_any = any(conditions.source_networks.iter().map(|network| {
        let network = Expr::Literal(Literal::String(network_literal(*network).into()));
        Some(binary(
            BinaryOp::IsInRange,
            attribute(Var::Context, SOURCE),
            Expr::UnaryOp { op: UnaryOp::Ip, expr: Arc::new(network) },
        ))
    }));
    Some(if_known(effect, known(SOURCE), in_any))
}

fn age_clause(effect: Effect, conditions: &Conditions) -> Option<Expr> {
    let limit = conditions.authenticated_within_s?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let young = binary(BinaryOp::Less, attribute(Var::Context, AUTHENTICATED_AGE), long(limit));
    Some(if_known(effect, known(AUTHENTICATED_AGE), young))
}

fn methods_clause(effect: Effect, conditions: &Conditions) -> Option<Expr> {
    let methods = strings(&conditions.authentication_methods)?;
    let used = attribute(Var::Context, AUTHENTICATION_METHODS);
    let all = binary(BinaryOp::ContainsAll, used, methods);
    Some(if_known(effect, known(AUTHENTICATION_METHODS), all))
}

fn window_clause(effect: Effect, conditions: &Conditions) -> Option<Expr> {
    if conditions.time_windows.is_empty() {
        return None;
    }
    Some(any(conditions.time_windows.iter().map(|window| {
        let clock = || attribute(Var::Context, THE_CLOCK);
        let zone = || Expr::Literal(Literal::String(window.time_zone.as_str().into()));
        let shown =
            binary(BinaryOp::And, known(THE_CLOCK), binary(BinaryOp::HasTag, clock(), zone()));
        let minute = || binary(BinaryOp::GetTag, clock(), zone());
        let spans = CompiledWindow::new(window).spans;
        let hours = any(spans.into_iter().flat_map(Span::within_week).map(|(first, last)| {
            let begun = binary(BinaryOp::LessEq, long(first.into()), minute());
            let lasts = binary(BinaryOp::LessEq, minute(), long(last.into()));
            Some(binary(BinaryOp::And, begun, lasts))
        }));
        Some(if_known(effect, shown, hours))
    })))
}

fn expiry_clause(conditions: &Conditions) -> Option<Expr> {
    let expires_at = long(conditions.expires_at?.as_millis());
    Some(binary(BinaryOp::Less, attribute(Var::Context, NOW), expires_at))
}

/// Whether the context says this.
fn known(name: &str) -> Expr {
    Expr::HasAttr { expr: Arc::new(Expr::Var(Var::Context)), attrs: NonEmpty::new(name.into()) }
}

/// A condition on something that may be unknown: unknown is no match for a permit and a match for
/// a forbid.
fn if_known(effect: Effect, known: Expr, condition: Expr) -> Expr {
    match effect {
        Effect::Permit => binary(BinaryOp::And, known, condition),
        // The schema knows what a test has shown in this branch, but not behind `!… ||`.
        Effect::Forbid => Expr::IfThenElse {
            cond: Arc::new(known),
            then_expr: Arc::new(condition),
            else_expr: Arc::new(Expr::Literal(Literal::Bool(true))),
        },
    }
}

/// Nothing to choose from is never true: a selector that names nobody selects nobody.
fn any(expressions: impl IntoIterator<Item = Option<Expr>>) -> Expr {
    expressions
        .into_iter()
        .flatten()
        .reduce(|left, right| binary(BinaryOp::Or, left, right))
        .unwrap_or(Expr::Literal(Literal::Bool(false)))
}

/// The schema has no sets of mixed types and no empty ones.
fn is_in(var: Var, named: Vec<cedar_policy::pst::EntityUID>) -> Option<Expr> {
    let named: Vec<_> = named
        .into_iter()
        .map(|entity| Arc::new(Expr::Literal(Literal::EntityUID(entity))))
        .collect();
    (!named.is_empty()).then(|| binary(BinaryOp::In, Expr::Var(var), Expr::Set(named)))
}

fn strings(strings: &[String]) -> Option<Expr> {
    let strings: Vec<_> = strings
        .iter()
        .map(|text| Arc::new(Expr::Literal(Literal::String(text.as_str().into()))))
        .collect();
    (!strings.is_empty()).then_some(Expr::Set(strings))
}

const fn long(number: i64) -> Expr {
    Expr::Literal(Literal::Long(number))
}

fn attribute(var: Var, name: &str) -> Expr {
    Expr::GetAttr { expr: Arc::new(Expr::Var(var)), attr: name.into() }
}

fn binary(op: BinaryOp, left: Expr, right: Expr) -> Expr {
    Expr::BinaryOp { op, left: Arc::new(left), right: Arc::new(right) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use adit_proto::{DeviceId, GroupId, Timestamp, UserId, api::TimeWindow};
    use uuid::Uuid;

    fn cedar(
        effect: Effect,
        subjects: &SubjectSelector,
        resources: &ResourceSelector,
        conditions: &Conditions,
    ) -> String {
        let policy = to_cedar("pol_1", effect, subjects, resources, conditions).unwrap();
        policy.to_cedar().unwrap()
    }

    /// Spaces and parentheses are the printer's.
    fn bare(text: &str) -> String {
        text.replace(|character: char| character.is_whitespace() || "()".contains(character), "")
    }

    #[test]
    fn a_policy_becomes_one_cedar_policy() {
        let subjects = SubjectSelector {
            everyone: false,
            users: vec![UserId::from_uuid(Uuid::nil())],
            groups: vec![GroupId::from_uuid(Uuid::nil())],
            devices: vec![DeviceId::from_uuid(Uuid::nil())],
        };
        let resources = ResourceSelector {
            all: false,
            ids: vec![ResourceId::from_uuid(Uuid::nil())],
            tags: vec!["env:prod".to_owned()],
        };
        let conditions = Conditions {
            posture: vec!["encrypted".to_owned()],
            source_networks: vec!["192.0.2.0/24".parse().unwrap()],
            authenticated_within_s: Some(3600),
            authentication_methods: vec!["mfa".to_owned()],
            time_windows: serde_json::from_str(
                r#"[{"days": ["mon", "sun"], "from": "22:00", "to": "06:00", "time_zone": "UTC"}]"#,
            )
            .unwrap(),
            expires_at: Some(Timestamp::from_millis(1_767_225_600_123)),
        };
        let zeros = "0".repeat(32);
        let text = cedar(Effect::Permit, &subjects, &resources, &conditions);
        for part in [
            r#"permit ( principal, action == Action::"connect", resource )"#,
            &format!(r#"principal in [User::"usr_{zeros}"]"#),
            &format!(r#"principal in [Group::"grp_{zeros}"]"#),
            &format!(r#"principal in [Device::"dev_{zeros}"]"#),
            &format!(r#"resource in [Resource::"res_{zeros}"]"#),
            r#"resource.tags.containsAny(["env:prod"])"#,
            r#"context.posture.containsAll(["encrypted"])"#,
            r#"context has source && context.source.isInRange(ip("192.0.2.0/24"))"#,
            "context has authenticated_age && context.authenticated_age < 3600",
            r#"context has authentication_methods &&
               context.authentication_methods.containsAll(["mfa"])"#,
            r#"context has clock && context.clock.hasTag("UTC")"#,
            r#"1320 <= context.clock.getTag("UTC") && context.clock.getTag("UTC") <= 1799"#,
            r#"9960 <= context.clock.getTag("UTC") && context.clock.getTag("UTC") <= 10079"#,
            r#"0 <= context.clock.getTag("UTC") && context.clock.getTag("UTC") <= 359"#,
            "context.now < 1767225600123",
        ] {
            assert!(bare(&text).contains(&bare(part)), "{part} in {text}");
        }
    }

    #[test]
    fn a_forbid_takes_what_is_unknown_for_true() {
        let everyone = SubjectSelector { everyone: true, ..SubjectSelector::default() };
        let all = ResourceSelector { all: true, ..ResourceSelector::default() };
        let conditions = Conditions { authenticated_within_s: Some(60), ..Conditions::default() };
        let text = cedar(Effect::Forbid, &everyone, &all, &conditions);
        let part = "if context has authenticated_age then context.authenticated_age < 60 else true";
        assert!(bare(&text).contains(&bare(part)), "{text}");
    }

    #[test]
    fn text_of_a_person_stays_a_string() {
        let hostile = r#""]) }; permit (principal, action, resource); //"#;
        let everyone = SubjectSelector { everyone: true, ..SubjectSelector::default() };
        let resources =
            ResourceSelector { tags: vec![hostile.to_owned()], ..ResourceSelector::default() };
        let text = cedar(Effect::Permit, &everyone, &resources, &Conditions::default());
        let again: PolicySet = text.parse().unwrap();
        assert_eq!(again.num_of_policies(), 1);
        assert!(text.contains("when"));
    }

    #[test]
    fn every_shape_of_policy_is_within_the_schema() {
        let selector = |bit: bool| if bit { vec!["x".to_owned()] } else { vec![] };
        let window: TimeWindow = serde_json::from_str(r#"{"time_zone": "UTC"}"#).unwrap();
        for shape in 0..2048_u32 {
            let [a, b, c, d, e, f, g, h, i, j, k] =
                std::array::from_fn(|bit| shape >> bit & 1 == 1);
            let subjects = SubjectSelector {
                everyone: a,
                users: if b { vec![UserId::from_uuid(Uuid::nil())] } else { vec![] },
                ..SubjectSelector::default()
            };
            let resources = ResourceSelector { all: c, ids: vec![], tags: selector(d) };
            let conditions = Conditions {
                posture: selector(e),
                source_networks: if f { vec!["::/0".parse().unwrap()] } else { vec![] },
                authenticated_within_s: g.then_some(u64::MAX),
                authentication_methods: selector(i),
                time_windows: if j { vec![window.clone(); 2] } else { vec![] },
                expires_at: k.then_some(Timestamp::default()),
            };
            let effect = if h { Effect::Forbid } else { Effect::Permit };
            let policy = to_cedar("pol_1", effect, &subjects, &resources, &conditions).unwrap();
            let policies = PolicySet::from_policies([policy]).unwrap();
            assert!(violation(&policies).is_none(), "{policies}");
        }
    }
}
