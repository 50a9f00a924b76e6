//! `/sign-in`: the pages that a person sees. No scripts; whatever comes from elsewhere is escaped.

use std::time::SystemTime;

use adit_proto::{
    IdentityProviderId,
    api::{ProblemCode, SignIn},
};
use axum::{
    Form, Router,
    extract::{Query, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::{problem::status, rate_limit::ClientAddress};
use crate::{
    app::{
        self, App,
        identity_providers::REDIRECT_PATH,
        live::PROVIDER_FLOW_LIFETIME,
        provider_sign_ins::{ProviderAnswer, Redirect},
        sign_ins::{CodeRefusal, VERIFICATION_PATH},
    },
    error::ApiError,
    store,
};

/// `__Host-`: of this host alone, by TLS alone (RFC 6265bis §4.1.3.2).
const COOKIE: &str = "__Host-adit-sign-in";

const STYLE: &str = "body{font:1.1rem/1.5 system-ui,sans-serif;max-width:32rem;margin:4rem auto;\
                     padding:0 1rem}input,button{font:inherit;padding:.4rem .8rem;margin:.3rem 0}\
                     code{font-size:1.4rem;letter-spacing:.1rem}";

pub(super) fn router() -> Router<App> {
    Router::new()
        .route(VERIFICATION_PATH, get(show).post(go_to_provider))
        .route(REDIRECT_PATH, get(come_back))
}

#[derive(Debug, Deserialize)]
struct ShowQuery {
    user_code: Option<String>,
}

#[derive(Debug, Deserialize)]
struct ChoiceForm {
    user_code: String,
    identity_provider_id: IdentityProviderId,
}

/// What a provider appends to the redirect URI; others are ignored (RFC 6749 §4.1.2).
#[derive(Debug, Deserialize)]
struct AnswerQuery {
    state: Option<String>,
    code: Option<String>,
    error: Option<String>,
    iss: Option<String>,
}

/// Asks for the code, or for a confirmation of it.
async fn show(
    State(app): State<App>,
    ClientAddress(address): ClientAddress,
    query: Result<Query<ShowQuery>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let typed = query.ok().and_then(|Query(query)| query.user_code).unwrap_or_default();
    if typed.is_empty() {
        return page(StatusCode::OK, &enter(""));
    }
    let now = SystemTime::now().into();
    match app::sign_ins::find_by_user_code(&app, &typed, address, now).await {
        Ok(sign_in) => match confirm(&app, &sign_in).await {
            Ok(body) => page(StatusCode::OK, &body),
            Err(error) => failed(&error),
        },
        Err(refusal) => code_refused(&refusal),
    }
}

/// Sends the browser to the provider that was chosen.
async fn go_to_provider(
    State(app): State<App>,
    ClientAddress(address): ClientAddress,
    headers: HeaderMap,
    form: Result<Form<ChoiceForm>, axum::extract::rejection::FormRejection>,
) -> Response {
    // Else another site could send a user who is signed in at the provider straight through.
    let origin = headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok());
    if origin != Some(app.public_url.as_str()) {
        let text = "Open the address that `adit login` shows, and go on from there.";
        return page(StatusCode::FORBIDDEN, &message("Not from here", text));
    }
    let Ok(Form(choice)) = form else {
        return page(StatusCode::UNPROCESSABLE_ENTITY, &enter("Choose a provider."));
    };
    let now = SystemTime::now().into();
    let found = app::sign_ins::find_by_user_code(&app, &choice.user_code, address, now).await;
    let sign_in = match found {
        Ok(sign_in) => sign_in,
        Err(refusal) => return code_refused(&refusal),
    };
    let provider_id = choice.identity_provider_id;
    match app::provider_sign_ins::begin(&app, sign_in.id, provider_id, now).await {
        Ok(redirect) => leave(&redirect),
        Err(error) => failed(&error),
    }
}

/// Takes what the provider sends back.
async fn come_back(
    State(app): State<App>,
    headers: HeaderMap,
    query: Result<Query<AnswerQuery>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let Ok(Query(query)) = query else {
        let text = "The identity provider's answer cannot be read; run `adit login` again.";
        return page(StatusCode::BAD_REQUEST, &message("Not signed in", text));
    };
    let answer = ProviderAnswer {
        state: query.state.unwrap_or_default(),
        code: match (query.code, query.error) {
            (Some(code), None) => Ok(code),
            (_, error) => Err(error.unwrap_or_else(|| "it gives no code".to_owned())),
        },
        issuer: query.iss,
        browser_secret: cookie(&headers).unwrap_or_default().to_owned(),
    };
    let finished = app::provider_sign_ins::finish(&app, answer, SystemTime::now().into()).await;
    let mut response = match finished {
        Ok(sign_in) => {
            let device = sign_in.device_name.as_deref().unwrap_or("the device");
            let text = format!("You are signed in on {device}. You may close this window.");
            page(StatusCode::OK, &message("Signed in", &text))
        }
        Err(error) => failed(&error),
    };
    set_cookie(&mut response, "", 0);
    response
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == COOKIE)
        .map(|(_, value)| value)
}

/// `Lax`: it must come along when the provider sends the browser back.
fn set_cookie(response: &mut Response, value: &str, max_age_s: u64) {
    let cookie =
        format!("{COOKIE}={value}; Path=/; Max-Age={max_age_s}; Secure; HttpOnly; SameSite=Lax");
    if let Ok(mut cookie) = HeaderValue::try_from(cookie) {
        cookie.set_sensitive(true);
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
}

/// By a page, not by a redirect: browsers hold every hop after a form against `form-action`, and
/// where a provider sends its users is its own affair.
fn leave(redirect: &Redirect) -> Response {
    let url = escape(&redirect.url);
    let body = format!(
        "<meta http-equiv=\"refresh\" content=\"0; url={url}\"><h1>Signing in</h1>\
         <p><a href=\"{url}\">Go to the identity provider</a></p>"
    );
    let mut response = page(StatusCode::OK, &body);
    set_cookie(&mut response, &redirect.browser_secret, PROVIDER_FLOW_LIFETIME.as_secs());
    response
}

fn enter(problem: &str) -> String {
    let problem = escape(problem);
    format!(
        "<h1>Sign in</h1><p>{problem}</p>\
         <form method=\"get\" action=\"{VERIFICATION_PATH}\"><label>The code that your device \
         shows<br><input name=\"user_code\" required autofocus autocomplete=\"off\" \
         autocapitalize=\"characters\" maxlength=\"20\" placeholder=\"WDJB-MJHT\"></label> \
         <button>Next</button></form>"
    )
}

async fn confirm(app: &App, sign_in: &SignIn) -> Result<String, ApiError> {
    let mut snapshot = app.store.snapshot().await?;
    let providers = store::identity_providers::list(&mut snapshot, None, None, 50).await?;
    let code = escape(&sign_in.user_code);
    let device = escape(sign_in.device_name.as_deref().unwrap_or("without a name"));
    let address = escape(sign_in.address.as_deref().unwrap_or("unknown"));
    let buttons: String = providers
        .iter()
        .map(|provider| {
            let name = escape(&provider.name);
            let id = provider.id;
            format!(
                "<button name=\"identity_provider_id\" value=\"{id}\">Sign in with {name}</button> "
            )
        })
        .collect();
    let next = if providers.is_empty() {
        "<p>Tell an administrator this code, who approves it. This page may be closed.</p>"
            .to_owned()
    } else {
        format!(
            "<form method=\"post\" action=\"{VERIFICATION_PATH}\">\
             <input type=\"hidden\" name=\"user_code\" value=\"{code}\">{buttons}</form>"
        )
    };
    Ok(format!(
        "<h1>Sign in</h1><p>A device wants to act in your name.</p>\
         <p>Device: {device}<br>Address: {address}</p><p><code>{code}</code></p>\
         <p>Go on only if you have just run <b>adit login</b> and it shows this code.</p>{next}"
    ))
}

fn code_refused(refusal: &CodeRefusal) -> Response {
    match refusal {
        CodeRefusal::Unknown => page(
            StatusCode::NOT_FOUND,
            &enter("There is no such code, or it has expired; look at it again."),
        ),
        CodeRefusal::TooManyTries => page(
            StatusCode::TOO_MANY_REQUESTS,
            &message("Not now", "Too many codes were wrong; try again in a quarter of an hour."),
        ),
        CodeRefusal::Failed(error) => failed(error),
    }
}

fn failed(error: &ApiError) -> Response {
    if let Some(source) = &error.source {
        tracing::error!(error = format!("{source:#}"), "Request failed");
    }
    let is_passing = error.code == ProblemCode::Unavailable;
    let title = if is_passing { "Not now" } else { "Not signed in" };
    page(status(error.code), &message(title, &error.detail))
}

fn message(title: &str, text: &str) -> String {
    format!("<h1>{}</h1><p>{}</p>", escape(title), escape(text))
}

fn page(status: StatusCode, body: &str) -> Response {
    let html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>Adit</title>\
         <style>{STYLE}</style>{body}</html>"
    );
    let style = STANDARD.encode(Sha256::digest(STYLE));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{style}'; form-action 'self'; base-uri 'none'; \
         frame-ancestors 'none'"
    );
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, policy.as_str()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
        // With `no-referrer` our own form would have no origin.
        (header::REFERRER_POLICY, "same-origin"),
    ];
    (status, headers, html).into_response()
}

/// For text and for attributes in double quotes.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(char),
        }
    }
    escaped
}
