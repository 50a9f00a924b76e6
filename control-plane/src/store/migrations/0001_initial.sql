-- Times are milliseconds since the Unix epoch. Ids are text, as the API writes them.
-- `version` counts the changes of a row; it is the object's ETag.

CREATE TABLE organisation (
    singleton INTEGER PRIMARY KEY CHECK (singleton = 1),
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    ipv4_range TEXT NOT NULL,
    ipv6_range TEXT NOT NULL,
    -- The public half of the file `organisation-key`, so that a foreign key file is noticed.
    signing_key TEXT NOT NULL,
    approve_devices INTEGER NOT NULL CHECK (approve_devices IN (0, 1)),
    max_offline_s INTEGER NOT NULL,
    credential_lifetime_s INTEGER NOT NULL,
    -- Grows with every change that a bundle or a client's configuration can hold.
    sequence INTEGER NOT NULL,
    version INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE api_tokens (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    scope TEXT NOT NULL CHECK (scope IN ('admin', 'read')),
    secret_hash BLOB NOT NULL UNIQUE,
    expires_at INTEGER,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE users (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    email TEXT,
    disabled INTEGER NOT NULL CHECK (disabled IN (0, 1)),
    version INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE "groups" (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    version INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE group_members (
    group_id TEXT NOT NULL REFERENCES "groups" (id) ON DELETE CASCADE,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    PRIMARY KEY (group_id, user_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX group_members_by_user ON group_members (user_id);

CREATE TABLE sites (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    version INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE resources (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    site_id TEXT NOT NULL REFERENCES sites (id) ON DELETE RESTRICT,
    -- JSON, as in the API.
    addresses TEXT NOT NULL,
    filters TEXT NOT NULL,
    tags TEXT NOT NULL,
    version INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX resources_by_site ON resources (site_id);

CREATE TABLE policies (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    effect TEXT NOT NULL CHECK (effect IN ('permit', 'forbid')),
    -- JSON, as in the API.
    subjects TEXT NOT NULL,
    resources TEXT NOT NULL,
    conditions TEXT NOT NULL,
    disabled INTEGER NOT NULL CHECK (disabled IN (0, 1)),
    version INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What the policies name, so that nothing is deleted from under them.
CREATE TABLE policy_references (
    policy_id TEXT NOT NULL REFERENCES policies (id) ON DELETE CASCADE,
    object_id TEXT NOT NULL,
    PRIMARY KEY (policy_id, object_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX policy_references_by_object ON policy_references (object_id);

CREATE TABLE devices (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    kind TEXT NOT NULL CHECK (kind IN ('client', 'wireguard')),
    state TEXT NOT NULL CHECK (state IN ('pending', 'approved', 'revoked')),
    -- That many hosts into each range lie its addresses.
    host_number INTEGER NOT NULL UNIQUE,
    ipv4 TEXT NOT NULL UNIQUE,
    ipv6 TEXT NOT NULL UNIQUE,
    wireguard_public_key TEXT NOT NULL UNIQUE,
    -- DER-encoded SubjectPublicKeyInfo and its pin; absent for plain WireGuard devices.
    device_key BLOB,
    pin TEXT UNIQUE,
    -- Digest of the enrolment key's secret, for a client that lost the answer and asks again.
    joined_with BLOB,
    authenticated_at INTEGER NOT NULL,
    credential_issued_at INTEGER,
    last_seen_at INTEGER,
    version INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX devices_by_user ON devices (user_id);

CREATE TABLE enrollment_keys (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    secret_hash BLOB NOT NULL UNIQUE,
    uses_left INTEGER NOT NULL CHECK (uses_left >= 0),
    approved INTEGER NOT NULL CHECK (approved IN (0, 1)),
    expires_at INTEGER NOT NULL,
    version INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX enrollment_keys_by_user ON enrollment_keys (user_id);

CREATE TABLE connectors (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    site_id TEXT NOT NULL REFERENCES sites (id) ON DELETE RESTRICT,
    -- JSON arrays of `host:port`: by the administrator, and as the connector reports itself.
    endpoints TEXT NOT NULL,
    reported_endpoints TEXT NOT NULL,
    connector_key BLOB NOT NULL,
    pin TEXT NOT NULL UNIQUE,
    wireguard_public_key TEXT NOT NULL UNIQUE,
    -- Digest of the connector token's secret, for a connector that lost the answer and asks again.
    joined_with BLOB NOT NULL,
    program_version TEXT,
    last_seen_at INTEGER,
    version INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX connectors_by_site ON connectors (site_id);

CREATE TABLE connector_tokens (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    site_id TEXT NOT NULL REFERENCES sites (id) ON DELETE CASCADE,
    secret_hash BLOB NOT NULL UNIQUE,
    expires_at INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX connector_tokens_by_site ON connector_tokens (site_id);

-- No foreign key: a revocation outlives whom it revokes.
CREATE TABLE revocations (
    subject_id TEXT PRIMARY KEY,
    not_before INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- No foreign keys: the log outlives what it speaks of.
CREATE TABLE access_events (
    id TEXT PRIMARY KEY,
    at INTEGER NOT NULL,
    connector_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    resource_id TEXT,
    policy_id TEXT,
    protocol TEXT NOT NULL,
    source TEXT NOT NULL,
    source_port INTEGER NOT NULL,
    destination TEXT NOT NULL,
    destination_port INTEGER NOT NULL,
    verdict TEXT NOT NULL,
    reason TEXT NOT NULL,
    bytes_from_device INTEGER NOT NULL,
    bytes_to_device INTEGER NOT NULL,
    packets_from_device INTEGER NOT NULL,
    packets_to_device INTEGER NOT NULL,
    duration_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX access_events_by_time ON access_events (at, id);
CREATE INDEX access_events_by_device ON access_events (device_id, at, id);
CREATE INDEX access_events_by_user ON access_events (user_id, at, id);
CREATE INDEX access_events_by_resource ON access_events (resource_id, at, id);

CREATE TABLE audit_events (
    sequence INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    operation TEXT NOT NULL,
    object_id TEXT NOT NULL,
    -- JSON, or null when the object was deleted.
    object TEXT,
    hash TEXT NOT NULL
) STRICT;
CREATE TRIGGER audit_events_are_not_changed BEFORE UPDATE ON audit_events
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_events_are_not_deleted BEFORE DELETE ON audit_events
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;

-- Answers to POST requests that bore an Idempotency-Key, sealed with a key that only the bearer of
-- the API token can make.
CREATE TABLE idempotency (
    api_token_id TEXT NOT NULL REFERENCES api_tokens (id) ON DELETE CASCADE,
    idempotency_key TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    sealed_answer BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (api_token_id, idempotency_key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_by_time ON idempotency (created_at);
