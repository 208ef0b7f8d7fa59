-- Written for SQLite and PostgreSQL alike: no types, functions or clauses that only one of them knows.
-- Times are seconds since 1970-01-01 UTC. Names and paths are compared byte by byte and stored as parsed.

CREATE TABLE accounts (
    name       TEXT    NOT NULL PRIMARY KEY,
    password   TEXT    NOT NULL, -- a PHC string: algorithm, parameters, salt, hash
    is_admin   BOOLEAN NOT NULL,
    created_at BIGINT  NOT NULL
);

CREATE TABLE projects (
    path       TEXT   NOT NULL PRIMARY KEY,
    visibility TEXT   NOT NULL CHECK (visibility IN ('private', 'internal', 'public')),
    created_at BIGINT NOT NULL
);

-- A group is a prefix of project paths and has no row of its own: `path` names a project or a group.
CREATE TABLE members (
    path       TEXT   NOT NULL,
    account    TEXT   NOT NULL REFERENCES accounts (name) ON DELETE CASCADE,
    role       BIGINT NOT NULL CHECK (role IN (10, 15, 20, 30, 40, 50)),
    created_at BIGINT NOT NULL,
    PRIMARY KEY (path, account)
);

-- Every token asks for one account's memberships along a path, and removing an account looks for its rows.
CREATE INDEX members_by_account ON members (account, path);
