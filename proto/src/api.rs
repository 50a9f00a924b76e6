//! Types of the REST API, defined once for server, programs and tests.
//!
//! A `…Write` is what a caller sends, with unknown members refused; the type without the suffix is
//! what comes back.

mod access;
mod connector;
mod device;
mod enrollment_key;
mod explain;
mod group;
mod identity_provider;
mod log;
mod organisation;
mod page;
mod policy;
mod policy_history;
mod policy_set;
mod policy_test;
mod problem;
mod resource;
mod scope;
mod secret;
mod sign_in;
mod site;
mod time_window;
mod token;
mod user;
mod user_session;

pub use access::{Access, AccessChange, AccessDifference};
pub use connector::{
    AccessEventBatch, Connector, ConnectorEnroll, ConnectorEnrolled, ConnectorReport,
    ConnectorToken, ConnectorTokenCreated, ConnectorTokenWrite, ConnectorWrite, SignedToken,
    StreamEvent,
};
pub use device::{
    ClientEnroll, ClientEnrolled, CredentialIssued, Device, DeviceKind, DeviceState,
    WireguardDeviceWrite,
};
pub use enrollment_key::{EnrollmentKey, EnrollmentKeyCreated, EnrollmentKeyWrite};
pub use explain::{Check, ExplainRequest, Explanation, PolicyTrace, TraceOutcome};
pub use group::{Group, GroupWrite};
pub use identity_provider::{IdentityProvider, IdentityProviderWrite};
pub use log::AuditEvent;
pub use organisation::{Organisation, OrganisationWrite};
pub use page::Page;
pub use policy::{Conditions, Effect, Policy, PolicyWrite, ResourceSelector, SubjectSelector};
pub use policy_history::{PolicyVersion, PolicyVersionContent};
pub use policy_set::{
    NamedResources, NamedSubjects, NamedTestSubject, NamedTestTarget, PolicyEntry, PolicySet,
    PolicySetChange, PolicyTestEntry, SetChanges,
};
pub use policy_test::{
    Expectation, FailedPolicyTest, PolicyDryRun, PolicyTest, PolicyTestRun, PolicyTestWrite,
    TestFacts, TestFlow, TestSubject, TestTarget,
};
pub use problem::{Problem, ProblemCode};
pub use resource::{PortFilter, Resource, ResourceWrite};
pub use scope::{Collection, Permission, Scope, ScopeError};
pub use secret::Secret;
pub use sign_in::{
    DEVICE_CODE_GRANT, DeviceAuthorization, DeviceAuthorizationRequest, DeviceToken,
    DeviceTokenRequest, OAUTH_CLIENT_ID, OauthError, OauthErrorCode, SignIn, SignInApproval,
    SignInState,
};
pub use site::{Site, SiteWrite};
pub use time_window::{TimeOfDay, TimeOfDayError, TimeWindow, Weekday};
pub use token::{ApiToken, ApiTokenCreated, ApiTokenWrite, Role};
pub use user::{User, UserWrite};
pub use user_session::UserSession;
