-- How long users stay signed in; null: for ever.
ALTER TABLE organisation ADD COLUMN session_lifetime_s INTEGER;

CREATE TABLE identity_providers (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    issuer TEXT NOT NULL,
    client_id TEXT NOT NULL,
    -- Sealed with a key that the database does not have; null for a public client.
    sealed_client_secret BLOB,
    groups_claim TEXT,
    -- JSON, as in the API.
    scopes TEXT NOT NULL,
    version INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Who says which users are members, at their sign-ins; null: administrators do.
ALTER TABLE "groups" ADD COLUMN identity_provider_id TEXT
    REFERENCES identity_providers (id) ON DELETE SET NULL;

-- Which users the providers speak of. An e-mail address is no key: providers give it to others.
CREATE TABLE user_identities (
    issuer TEXT NOT NULL,
    subject TEXT NOT NULL,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (issuer, subject)
) STRICT, WITHOUT ROWID;
CREATE INDEX user_identities_by_user ON user_identities (user_id);

-- Sign-ins under way (RFC 8628). They are kept for a while after they expired, to say so.
CREATE TABLE sign_ins (
    id TEXT PRIMARY KEY,
    device_code_hash BLOB NOT NULL UNIQUE,
    user_code TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL CHECK (state IN ('pending', 'approved', 'denied')),
    device_name TEXT,
    -- Of a device that has enrolled.
    device_id TEXT REFERENCES devices (id) ON DELETE CASCADE,
    address TEXT,
    -- What was proved, once it is approved. No foreign key of the provider: the session outlives it.
    user_id TEXT REFERENCES users (id) ON DELETE CASCADE,
    identity_provider_id TEXT,
    authenticated_at INTEGER,
    authentication_methods TEXT,
    expires_at INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX sign_ins_by_expiry ON sign_ins (expires_at);

-- The latest session of each device that was ever signed in on.
CREATE TABLE user_sessions (
    id TEXT PRIMARY KEY,
    device_id TEXT NOT NULL UNIQUE REFERENCES devices (id) ON DELETE CASCADE,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    identity_provider_id TEXT,
    authenticated_at INTEGER NOT NULL,
    authentication_methods TEXT NOT NULL,
    ends_at INTEGER,
    ended_at INTEGER,
    version INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX user_sessions_by_user ON user_sessions (user_id);
