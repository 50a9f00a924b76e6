//! What each role may do: the one table from which every right follows.

use adit_proto::api::{ApiToken, Collection, Permission, Role, Scope};

const NONE: Option<Permission> = None;
const READ: Option<Permission> = Some(Permission::Read);
const WRITE: Option<Permission> = Some(Permission::Write);

/// What owner, admin, network-admin, approver and auditor may do with a collection, in this order.
///
/// Beyond the table, only owners create and delete tokens of owners, and nobody creates or deletes
/// a token that may do more than the caller's: see [`covers`]. It may live longer, or nobody could
/// replace a token before it expires.
#[rustfmt::skip]
const fn row(collection: Collection) -> [Option<Permission>; 5] {
    match collection {
        //                               owner  admin  network-admin approver auditor
        Collection::Organisation    => [ WRITE, WRITE, READ,         READ,    READ ],
        Collection::Users           => [ WRITE, WRITE, READ,         READ,    READ ],
        Collection::Groups          => [ WRITE, WRITE, READ,         READ,    READ ],
        Collection::Sites           => [ WRITE, WRITE, WRITE,        NONE,    READ ],
        Collection::Resources       => [ WRITE, WRITE, WRITE,        READ,    READ ],
        Collection::Policies        => [ WRITE, WRITE, WRITE,        READ,    READ ],
        Collection::Devices         => [ WRITE, WRITE, READ,         READ,    READ ],
        Collection::Approvals       => [ WRITE, WRITE, NONE,         WRITE,   READ ],
        Collection::Connectors      => [ WRITE, WRITE, WRITE,        NONE,    READ ],
        Collection::ConnectorTokens => [ WRITE, WRITE, WRITE,        NONE,    READ ],
        Collection::EnrollmentKeys  => [ WRITE, WRITE, NONE,         NONE,    READ ],
        Collection::IdentityProviders => [ WRITE, WRITE, NONE,       NONE,    READ ],
        Collection::Sessions        => [ WRITE, WRITE, NONE,         READ,    READ ],
        Collection::ApiTokens       => [ WRITE, WRITE, NONE,         NONE,    READ ],
        Collection::AccessEvents    => [ WRITE, WRITE, READ,         NONE,    READ ],
        Collection::AuditEvents     => [ WRITE, WRITE, NONE,         NONE,    READ ],
    }
}

/// Whether the role has this scope.
pub(crate) fn has_scope(role: Role, scope: Scope) -> bool {
    let [owner, admin, network_admin, approver, auditor] = row(scope.collection);
    let access = match role {
        Role::Owner => owner,
        Role::Admin => admin,
        Role::NetworkAdmin => network_admin,
        Role::Approver => approver,
        Role::Auditor => auditor,
    };
    access.is_some_and(|access| access >= scope.permission)
}

/// Whether the token has this scope: its role has it, and the token is not narrowed to others.
pub(crate) fn allows(token: &ApiToken, scope: Scope) -> bool {
    let narrowed = token.scopes.as_ref();
    has_scope(token.role, scope)
        && narrowed.is_none_or(|scopes| scopes.iter().any(|held| held.includes(scope)))
}

/// Whether `token` may do all that `other` may, so that its bearer may create or delete it.
pub(crate) fn covers(token: &ApiToken, other: &ApiToken) -> bool {
    (token.role == Role::Owner || other.role != Role::Owner)
        && Scope::all().all(|scope| allows(token, scope) || !allows(other, scope))
}

#[cfg(test)]
mod tests {
    use adit_proto::Timestamp;

    use super::*;

    const ROLES: [Role; 5] =
        [Role::Owner, Role::Admin, Role::NetworkAdmin, Role::Approver, Role::Auditor];

    fn token(role: Role, scopes: Option<&[Scope]>) -> ApiToken {
        ApiToken {
            id: "tok_0193f0a2b7c87d34a1e2c3d4e5f60718".parse().unwrap(),
            name: "token".to_owned(),
            description: None,
            role,
            scopes: scopes.map(|scopes| scopes.iter().copied().collect()),
            expires_at: None,
            last_used_at: None,
            created_at: Timestamp::from_millis(0),
        }
    }

    #[test]
    fn owners_may_do_everything_and_auditors_read_everything() {
        for scope in Scope::all() {
            assert!(has_scope(Role::Owner, scope), "{scope}");
            assert_eq!(
                has_scope(Role::Auditor, scope),
                scope.permission == Permission::Read,
                "{scope}"
            );
        }
    }

    #[test]
    fn each_role_changes_what_is_its_work_and_nothing_else() {
        let written = |role: Role| {
            let collections = Collection::ALL.iter().copied();
            collections.filter(|it| has_scope(role, Scope::write(*it))).collect::<Vec<_>>()
        };
        let network = [
            Collection::Sites,
            Collection::Resources,
            Collection::Policies,
            Collection::Connectors,
            Collection::ConnectorTokens,
        ];
        assert_eq!(written(Role::NetworkAdmin), network);
        assert_eq!(written(Role::Approver), [Collection::Approvals]);
        assert_eq!(written(Role::Auditor), []);
        assert_eq!(written(Role::Admin), Collection::ALL);
    }

    #[test]
    fn a_narrowed_token_has_what_role_and_scopes_have_in_common() {
        let users = Collection::Users;
        let narrowed = [Scope::write(users), Scope::read(Collection::Groups)];
        let admin = token(Role::Admin, Some(&narrowed));
        assert!(allows(&admin, Scope::write(users)) && allows(&admin, Scope::read(users)));
        assert!(!allows(&admin, Scope::write(Collection::Groups)));
        assert!(!allows(&admin, Scope::read(Collection::Sites)));
        let auditor = token(Role::Auditor, Some(&narrowed));
        assert!(!allows(&auditor, Scope::write(users)));
        assert!(allows(&auditor, Scope::read(Collection::Groups)));
    }

    #[test]
    fn nobody_covers_a_token_that_may_do_more() {
        for (index, role) in ROLES.into_iter().enumerate() {
            let this = token(role, None);
            assert!(covers(&this, &this));
            assert_eq!(covers(&this, &token(Role::Owner, None)), index == 0);
        }
        let narrow = [Scope::read(Collection::Users)];
        let admin = token(Role::Admin, None);
        assert!(!covers(&admin, &token(Role::Owner, Some(&narrow))));
        assert!(covers(&admin, &token(Role::Admin, Some(&narrow))));
        assert!(!covers(&token(Role::Admin, Some(&narrow)), &admin));
        assert!(!covers(&token(Role::Auditor, None), &token(Role::Approver, None)));
    }
}
