//! Signing in at an identity provider.

use std::collections::BTreeSet;

use adit_proto::{
    GroupId, IdentityProviderId, SignInId, Timestamp, UserId,
    api::{Group, ProblemCode, SignIn, User},
};
use serde_json::json;
use zeroize::Zeroizing;

use crate::{
    app::{
        App, identity_providers::REDIRECT_PATH, live::ProviderFlow, random,
        revocation::revoke_user, sign_ins::find_waiting, sign_ins::grant, validate,
    },
    error::ApiError,
    open_id_connect::{self, ProvenIdentity, Registration},
    store::{
        ActorId, Change, groups, identity_providers, identity_providers::ProviderRecord, sign_ins,
        sign_ins::Authentication, user_identities, users,
    },
};

/// Most groups that are taken over from a claim.
const MAX_GROUPS: usize = 200;

/// Where to send a browser, and what to give it as a cookie.
pub(crate) struct Redirect {
    pub(crate) url: String,
    pub(crate) browser_secret: Zeroizing<String>,
}

/// What a provider's redirect brings back (RFC 6749 §4.1.2, RFC 9207).
#[derive(Debug)]
pub(crate) struct ProviderAnswer {
    pub(crate) state: String,
    /// The code, or why there is none.
    pub(crate) code: Result<String, String>,
    pub(crate) issuer: Option<String>,
    /// From the cookie.
    pub(crate) browser_secret: String,
}

/// Sends a browser to a provider.
pub(crate) async fn begin(
    app: &App,
    sign_in_id: SignInId,
    identity_provider_id: IdentityProviderId,
    now: Timestamp,
) -> Result<Redirect, ApiError> {
    let mut snapshot = app.store.snapshot().await?;
    let provider = identity_providers::find(&mut snapshot, identity_provider_id).await?;
    let provider = provider.ok_or_else(ApiError::not_found)?.object;
    drop(snapshot);
    let registration = registration(app, &provider)?;
    let request = open_id_connect::begin(&app.provider_http, &registration)
        .await
        .map_err(|error| unavailable(&provider, &error.to_string()))?;
    let browser_secret = random::new_secret()?;
    let flow = ProviderFlow { sign_in_id, identity_provider_id, expected: request.expected };
    if !app.live.provider_flows.insert(&request.state, &browser_secret, flow, now) {
        let detail = "Too many sign-ins are under way; try again in some minutes.";
        return Err(ApiError::new(ProblemCode::Unavailable, detail));
    }
    Ok(Redirect { url: request.url, browser_secret })
}

/// Signs in whom the provider names. Every refusal is in the audit log.
pub(crate) async fn finish(
    app: &App,
    answer: ProviderAnswer,
    now: Timestamp,
) -> Result<SignIn, ApiError> {
    let taken = app.live.provider_flows.take(&answer.state, &answer.browser_secret, now);
    let Some(flow) = taken else {
        return Err(ApiError::new(
            ProblemCode::NotAllowed,
            "This browser did not begin this sign-in, or it took too long; run `adit login` again.",
        ));
    };
    let sign_in_id = flow.sign_in_id;
    let provider_id = flow.identity_provider_id;
    let result = try_finish(app, flow, answer, now).await;
    if let Err(error) = &result {
        refuse(app, sign_in_id, provider_id, &error.detail).await?;
    }
    result
}

async fn try_finish(
    app: &App,
    flow: ProviderFlow,
    answer: ProviderAnswer,
    now: Timestamp,
) -> Result<SignIn, ApiError> {
    let refused = |detail: String| ApiError::new(ProblemCode::NotAllowed, detail);
    let mut snapshot = app.store.snapshot().await?;
    let found = identity_providers::find(&mut snapshot, flow.identity_provider_id).await?;
    drop(snapshot);
    let provider = found.ok_or_else(ApiError::not_found)?.object;
    // RFC 9207: another provider may have sent the browser here.
    if answer.issuer.is_some_and(|issuer| issuer != provider.issuer) {
        return Err(refused("The answer comes from another identity provider.".to_owned()));
    }
    let code = answer.code.map_err(|error| {
        let error: String = error.chars().filter(char::is_ascii_graphic).take(100).collect();
        refused(format!("The identity provider refuses: {error}."))
    })?;
    let registration = registration(app, &provider)?;
    let http = &app.provider_http;
    let identity = open_id_connect::finish(http, &registration, code, flow.expected, now)
        .await
        .map_err(|error| refused(format!("Nobody is signed in: {error}.")))?;
    sign_in(app, flow.sign_in_id, &provider, &identity).await
}

async fn sign_in(
    app: &App,
    id: SignInId,
    provider: &ProviderRecord,
    identity: &ProvenIdentity,
) -> Result<SignIn, ApiError> {
    let mut change = app.store.begin_change(ActorId::IdentityProvider(provider.id)).await?;
    let waiting = find_waiting(&mut change, id).await?;
    let (issuer, subject) = (&identity.issuer, &identity.subject);
    let known = user_identities::find_user(change.connection(), issuer, subject).await?;
    let user_id = match known {
        Some(user_id) => user_id,
        None => make_user(&mut change, provider, identity).await?,
    };
    let names = provider.groups_claim.as_ref().map(|claim| identity.strings_of(claim));
    let are_others = match names {
        Some(names) => take_over_groups(&mut change, provider.id, user_id, names).await?,
        None => false,
    };
    if are_others && known.is_some() {
        revoke_user(&mut change, user_id).await?;
    }
    let authentication = Authentication {
        user_id,
        identity_provider_id: Some(provider.id),
        authenticated_at: identity.authenticated_at,
        methods: identity.methods.clone(),
    };
    let sign_in = grant(&mut change, waiting, &authentication).await?;
    if are_others {
        change.commit("sign-in.approve", id, Some(&sign_in)).await?;
    } else {
        change.commit_unannounced("sign-in.approve", id, Some(&sign_in)).await?;
    }
    tracing::info!(%user_id, identity_provider_id = %provider.id, "Signed in");
    Ok(sign_in)
}

/// A user whom the provider speaks of for the first time. Never one that exists: neither a name nor
/// an e-mail address proves anything.
async fn make_user(
    change: &mut Change,
    provider: &ProviderRecord,
    identity: &ProvenIdentity,
) -> Result<UserId, ApiError> {
    let now = change.now();
    let email = identity.email.clone().filter(|it| validate::text("", it, 254).is_ok());
    let wanted = identity.name.as_ref().or(email.as_ref()).unwrap_or(&identity.subject);
    let printable = |text: String| -> String {
        text.chars().filter(|char| !char.is_control()).take(100).collect()
    };
    let id = UserId::from_uuid(random::new_uuid(now)?);
    let mut name = printable(wanted.clone());
    for other in [format!("{name} ({})", provider.name), id.to_string()] {
        let is_taken = !users::list(change.connection(), Some(&name), None, 1).await?.is_empty();
        if is_taken || name.is_empty() {
            name = printable(other);
        }
    }
    let user = User { id, name, email, disabled: false, created_at: now, updated_at: now };
    users::insert(change, &user).await?;
    user_identities::insert(change, &identity.issuer, &identity.subject, id).await?;
    Ok(id)
}

/// Makes the user a member of the provider's groups of these names, and of no other group of it.
/// A group of that name that is not the provider's is left alone: else it could let its users into
/// any. Says whether anything changed.
async fn take_over_groups(
    change: &mut Change,
    provider_id: IdentityProviderId,
    user_id: UserId,
    names: Vec<String>,
) -> Result<bool, ApiError> {
    let mut wanted: BTreeSet<GroupId> = BTreeSet::new();
    for name in names.into_iter().filter(|it| validate::name(it).is_ok()).take(MAX_GROUPS) {
        let held = groups::list(change.connection(), Some(&name), None, 1).await?.pop();
        match held {
            Some(group) if group.identity_provider_id == Some(provider_id) => {
                wanted.insert(group.id);
            }
            Some(_) => {}
            None => {
                let now = change.now();
                let id = GroupId::from_uuid(random::new_uuid(now)?);
                let identity_provider_id = Some(provider_id);
                let group =
                    Group { id, name, identity_provider_id, created_at: now, updated_at: now };
                groups::insert(change, &group).await?;
                wanted.insert(id);
            }
        }
    }
    let held = groups::of_user_by_provider(change.connection(), user_id, provider_id).await?;
    let held: BTreeSet<GroupId> = held.into_iter().collect();
    for id in wanted.difference(&held) {
        groups::insert_member(change, *id, user_id).await?;
    }
    for id in held.difference(&wanted) {
        groups::remove_member(change, *id, user_id).await?;
    }
    Ok(wanted != held)
}

/// Writes down that nobody was signed in, and why. The sign-in is over.
async fn refuse(
    app: &App,
    id: SignInId,
    provider_id: IdentityProviderId,
    reason: &str,
) -> Result<(), ApiError> {
    tracing::warn!(identity_provider_id = %provider_id, reason, "Refused a sign-in");
    let mut change = app.store.begin_change(ActorId::IdentityProvider(provider_id)).await?;
    sign_ins::deny(&mut change, id).await?;
    let entry = json!({ "identity_provider_id": provider_id, "reason": reason });
    change.commit_unannounced("sign-in.refuse", id, Some(&entry)).await?;
    Ok(())
}

fn registration(app: &App, provider: &ProviderRecord) -> Result<Registration, ApiError> {
    let sealed = provider.sealed_client_secret.as_deref();
    let client_secret = sealed
        .map(|sealed| app.sealer.open(provider.id.to_string(), sealed))
        .transpose()
        .map_err(ApiError::internal)?;
    Ok(Registration {
        issuer: provider.issuer.clone(),
        client_id: provider.client_id.clone(),
        client_secret: client_secret.map(|secret| secret.to_string()),
        scopes: provider.scopes.clone(),
        redirect_uri: format!("{}{REDIRECT_PATH}", app.public_url),
    })
}

fn unavailable(provider: &ProviderRecord, error: &str) -> ApiError {
    tracing::warn!(identity_provider_id = %provider.id, error, "Identity provider does not answer");
    let detail = "The identity provider does not answer as it should; tell an administrator.";
    ApiError::new(ProblemCode::Unavailable, detail)
}
