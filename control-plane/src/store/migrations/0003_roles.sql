-- A token has a role, and may be narrowed to some of the role's scopes. Who might do everything is
-- an owner, who might only read is an auditor.
ALTER TABLE api_tokens ADD COLUMN role TEXT NOT NULL DEFAULT 'auditor'
    CHECK (role IN ('owner', 'admin', 'network-admin', 'approver', 'auditor'));
UPDATE api_tokens SET role = 'owner' WHERE scope = 'admin';
ALTER TABLE api_tokens DROP COLUMN scope;
-- JSON, as in the API; null for all that the role may do.
ALTER TABLE api_tokens ADD COLUMN scopes TEXT;
ALTER TABLE api_tokens ADD COLUMN description TEXT;
ALTER TABLE api_tokens ADD COLUMN last_used_at INTEGER;
