-- What must hold of the policies after every change.
CREATE TABLE policy_tests (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    -- A user, group or device.
    subject_id TEXT NOT NULL,
    -- A resource, or a flow as JSON, as in the API.
    resource_id TEXT REFERENCES resources (id) ON DELETE RESTRICT,
    flow TEXT,
    -- JSON, as in the API.
    facts TEXT NOT NULL,
    expect TEXT NOT NULL CHECK (expect IN ('allow', 'deny')),
    version INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    CHECK ((resource_id IS NULL) <> (flow IS NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX policy_tests_by_subject ON policy_tests (subject_id);
CREATE INDEX policy_tests_by_resource ON policy_tests (resource_id);

-- Each change of policies or policy tests.
CREATE TABLE policy_versions (
    version INTEGER PRIMARY KEY,
    actor TEXT NOT NULL,
    operation TEXT NOT NULL,
    reason TEXT,
    created_at INTEGER NOT NULL
) STRICT;

-- What a version made of a policy or policy test: its JSON as it is written in the API, or null
-- when it was deleted. An object that a version says nothing of is as the versions before left it.
CREATE TABLE policy_version_objects (
    object_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    object TEXT,
    PRIMARY KEY (object_id, version)
) STRICT, WITHOUT ROWID;
CREATE INDEX policy_version_objects_by_version ON policy_version_objects (version);

-- The policies that are there when history begins.
INSERT INTO policy_versions (version, actor, operation, reason, created_at)
VALUES (1, 'control-plane', 'policy-history.begin', NULL, unixepoch() * 1000);
INSERT INTO policy_version_objects (object_id, version, object)
SELECT id, 1, json_object('name', name, 'effect', effect, 'subjects', json(subjects),
    'resources', json(resources), 'conditions', json(conditions),
    'disabled', json(iif(disabled, 'true', 'false')))
FROM policies;
